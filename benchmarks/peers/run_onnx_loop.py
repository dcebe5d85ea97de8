"""Vectors of a folder of photos as the machine-learning service of immich makes them, one photo a
call: PIL, resize, one picture through ONNX Runtime with a thread a core: MODEL PHOTOS OUT BATCH
WORKERS.

The graph is the one that rclip is given; in the service HTTP comes on top.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from spent import report

SIDE = 256
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def prepared(file: Path) -> np.ndarray:
    """Return the middle of a photo, ``(1, 3, 256, 256)``."""
    image = Image.open(file).convert("RGB")
    scale = SIDE / min(image.size)
    width, height = (round(scale * side) for side in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(small.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float32)
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)[None]


if __name__ == "__main__":
    source, folder, out, *_ = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    (graph,) = Path(source, "rclip").rglob("visual.onnx")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    files = sorted(Path(folder).iterdir())
    session.run(None, {"input": prepared(files[0])})
    began = time.perf_counter()
    rows = [session.run(None, {"input": prepared(file)})[0] for file in files]
    np.save(f"{out}/vectors.npy", np.concatenate(rows))
    report(len(files), began)

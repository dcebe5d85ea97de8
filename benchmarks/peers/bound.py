"""The processor time that nothing can do without: bare scaled decode and bare forward pass: MODEL PHOTOS BATCH.

As many processes as usable cores share the photos, one thread each, so that the cores are as loaded as in a real run. Decode is Pillow
with ``draft`` down to no side below 224 pixels, from bytes in memory; forward is the image tower on batches that are there already, in
PyTorch and in ONNX Runtime, float32. No resize, no hashing, no storing. The bound is cores / (seconds of decode + of the faster forward).
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 224
FORWARDS = 4  # batches a process runs forward; more would tell no more


def main() -> None:
    """Print seconds a photo and the bound in photos a second."""
    source, folder, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    files = sorted(folder.iterdir())
    export(source)
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        jobs = [(decode, files[place::cores]) for place in range(cores)]
        seconds = {"decode": sum(pool.map(run, jobs)) / len(files)}
        for forward in (torch_forward, onnx_forward):
            spent = pool.map(run, [(forward, source, batch)] * cores)
            seconds[forward.__name__] = sum(spent) / cores / batch / FORWARDS
    best = min(seconds["torch_forward"], seconds["onnx_forward"])
    print(json.dumps({"count": len(files), "rate": cores / (seconds["decode"] + best), "stages": seconds}))


def run(job: tuple) -> float:
    """Return what one piece of work says it took."""
    work, *arguments = job
    return work(*arguments)


def decode(files: list[Path]) -> float:
    """Return the processor seconds of decoding these photos."""
    spent = 0.0
    for file in files:
        data = io.BytesIO(file.read_bytes())
        began = time.process_time()
        with Image.open(data) as image:
            image.draft("RGB", (SIDE, SIDE))
            image.load()
        spent += time.process_time() - began
    return spent


def torch_forward(source: Path, batch: int) -> float:
    """Return the processor seconds of the image tower in PyTorch with one thread."""
    import open_clip
    import torch

    torch.set_num_threads(1)
    model = open_clip.create_model(f"local-dir:{source / 'open_clip'}").eval()
    pixels = torch.from_numpy(drawn(batch))
    with torch.inference_mode():
        return timed(lambda: model.encode_image(pixels))


def onnx_forward(source: Path, batch: int) -> float:
    """Return the processor seconds of the image tower in ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(source / "image.onnx"), options, providers=["CPUExecutionProvider"])
    pixels = drawn(batch)
    return timed(lambda: session.run(None, {"pixels": pixels}))


def drawn(batch: int) -> np.ndarray:
    """Return seeded pixels; the time of a transformer does not depend on them."""
    return np.random.default_rng(0).standard_normal((batch, 3, SIDE, SIDE), dtype=np.float32)


def timed(call: Callable[[], object]) -> float:
    """Return the processor seconds of some calls after a first one."""
    call()
    began = time.process_time()
    for _ in range(FORWARDS):
        call()
    return time.process_time() - began


def export(source: Path) -> None:
    """Write the image tower as ONNX once."""
    if (source / "image.onnx").exists():
        return
    import open_clip
    import torch

    model = open_clip.create_model(f"local-dir:{source / 'open_clip'}").eval().visual
    pixels, aside = torch.from_numpy(drawn(2)), source / "image.part.onnx"
    axes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(model, (pixels,), dynamo=True, dynamic_shapes=axes, input_names=["pixels"], output_names=["vectors"])
    program.save(aside, external_data=False)
    aside.rename(source / "image.onnx")


if __name__ == "__main__":
    main()

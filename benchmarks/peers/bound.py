"""The processor time that nothing can do without: bare scaled decode and bare forward pass: MODEL
PHOTOS.

As many processes as usable cores share the photos, one thread each, so that the cores are as loaded
as in a real run. Decode is Pillow with ``draft``, from bytes in memory, down to no side below twice
what the model resizes to (at 1.44 times, an eighth of 4000x3000 for `mini`, the cosine to the whole
picture's vector falls to 0.990 at the first percentile of 100 photos); the bicubic resize of that
to the model's side is a stage of its own. Forward is the image tower on batches that are there
already, in ONNX Runtime and, where MODEL is a folder, in PyTorch, in float32, in the faster of two
sizes of batches. No hashing, no storing. The bound is cores / (seconds of decode, resize and the
fastest forward). MODEL is `mini` or a folder of model.py.
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
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

SIDES = {"mini": 260}
SIDE = 256
BATCHES = (8, 32)
FORWARD = 64  # pictures a process runs forward; more would tell no more


def main() -> None:
    """Print seconds a photo and the bound in photos a second."""
    source, folder = sys.argv[1], Path(sys.argv[2])
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    files, side = sorted(folder.iterdir()), SIDES.get(source, SIDE)
    runtimes = {"onnx forward": onnx_forward}
    if source != "mini":
        export(Path(source))
        runtimes["torch forward"] = torch_forward
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        jobs = [(decode, files[first::cores], side) for first in range(cores)]
        spent = [sum(seconds) / len(files) for seconds in zip(*pool.map(run, jobs), strict=True)]
        costs = dict(zip(("decode", "resize"), spent, strict=True))
        for name, forward in runtimes.items():
            costs[name] = min(
                sum(pool.map(run, [(forward, source, batch)] * cores)) / cores for batch in BATCHES
            )
    best = min(costs[name] for name in runtimes)
    print(json.dumps({"count": len(files), "rate": cores / (sum(spent) + best), "stages": costs}))


def run(job: tuple) -> Any:
    """Return what one piece of work says it took."""
    work, *arguments = job
    return work(*arguments)


def decode(files: list[Path], side: int) -> tuple[float, float]:
    """Return the processor seconds of decoding these photos, and of resizing them."""
    pillow_heif.register_heif_opener()
    decoding = resizing = 0.0
    for file in files:
        data = io.BytesIO(file.read_bytes())
        began = time.process_time()
        with Image.open(data) as image:
            image.draft("RGB", (2 * side, 2 * side))
            image.load()
            decoded = time.process_time()
            scale = side / min(image.size)
            image.convert("RGB").resize(
                (round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC
            )
        decoding += decoded - began
        resizing += time.process_time() - decoded
    return decoding, resizing


def torch_forward(source: str, batch: int) -> float:
    """Return the processor seconds a picture of the image tower in PyTorch with one thread."""
    import open_clip
    import torch

    torch.set_num_threads(1)
    model = open_clip.create_model(f"local-dir:{source}/open_clip").eval()
    pixels = torch.from_numpy(drawn(batch))
    with torch.inference_mode():
        return timed(lambda: model.encode_image(pixels), batch)


def onnx_forward(source: str, batch: int) -> float:
    """Return the processor seconds a picture of the image tower in ONNX Runtime with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    pixels = drawn(batch)
    file, outputs = Path(source) / "image.onnx", None
    if source == "mini":
        from vitsearch.encoders.mini import FOLDER

        file, outputs, side = FOLDER / "image.onnx", ["vectors"], SIDES["mini"]
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return timed(lambda: session.run(outputs, {"pixels": pixels}), batch)


def drawn(batch: int) -> np.ndarray:
    """Return seeded pixels; the time of a transformer does not depend on them."""
    return np.random.default_rng(0).standard_normal((batch, 3, SIDE, SIDE), dtype=np.float32)


def timed(call: Callable[[], object], batch: int) -> float:
    """Return the processor seconds a picture of some calls after a first one."""
    call()
    began = time.process_time()
    for _ in range(FORWARD // batch):
        call()
    return (time.process_time() - began) / (FORWARD // batch * batch)


def export(source: Path) -> None:
    """Write the image tower as ONNX once."""
    if (source / "image.onnx").exists():
        return
    import open_clip
    import torch

    model = open_clip.create_model(f"local-dir:{source / 'open_clip'}").eval().visual
    pixels, aside = torch.from_numpy(drawn(2)), source / "image.part.onnx"
    axes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(
        model,
        (pixels,),
        dynamo=True,
        dynamic_shapes=axes,
        input_names=["pixels"],
        output_names=["vectors"],
    )
    program.save(aside, external_data=False)
    aside.rename(source / "image.onnx")


if __name__ == "__main__":
    main()

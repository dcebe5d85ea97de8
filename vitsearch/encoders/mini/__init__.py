"""The model that ships inside the package, `mini`: a hybrid Vision Transformer and a sentence
encoder, photos and words to one space, on ONNX Runtime without torch. See MODEL_CARD.md.

The two graphs hold no weights: they read ``mini.safetensors`` beside them. Each is opened when it
is first needed, so that a search by words never loads the image tower. ``network`` and ``surface``
are the same weights in torch, for training and explanations.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from vitsearch.arrays import unit_rows
from vitsearch.encoders.base import Encoder, Vectors, fingerprint_of
from vitsearch.encoders.language import readable, readable_texts
from vitsearch.encoders.onnx import (
    CPU,
    Cores,
    open_graph,
    pad_single,
    thread_plan,
    trim_memory,
)
from vitsearch.errors import EncoderError

FOLDER = Path(__file__).parent
IMAGE_BATCH = 16
TEXT_BATCH = 64
PADDING = 0
PICTURES_PER_CALL = 4  # as fast as 8, in two thirds of the memory


class MiniEncoder(Encoder):
    """The `mini` encoder; safe to use from several threads.

    ``dim`` 640; softmax-trained, so ``logit_bias`` is None. English and Spanish, up to 128 tokens:
    what is longer is cut.
    """

    name = "mini"
    languages = ("en", "es")
    holds_sessions = True
    only_resizes = True

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        providers: Sequence[str],
        cores: Cores | None = None,
    ) -> None:
        self.dim: int = config["dim"]
        self.side: int = config["side"]
        self.decode_at_least = 2 * self.side
        self.logit_scale: float = config["logit_scale"]
        self.fingerprint = fingerprint_of(fingerprint_facts(config))
        self._context: int = config["network"]["context"]
        self._folder = folder
        self._providers = list(providers)
        self._cores = cores or Cores()
        self.parallel_calls = self._cores.callers
        self.pictures_per_call = PICTURES_PER_CALL if self.parallel_calls > 1 else None
        self._locks = {part: threading.Lock() for part in ("image", "text", "tokenizer")}
        self._sessions: dict[tuple[str, int], onnxruntime.InferenceSession] = {}
        self._tokenizer: Tokenizer | None = None

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the middle square of an RGB picture at 260x260, bicubic: uint8 ``(260, 260, 3)``.

        Cropped before it is resized, so a picture of 4000x2 pixels is never blown up as a whole.
        """
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        square = rgb.crop(self.seen_region(rgb))
        return np.array(
            square.resize((self.side, self.side), Image.Resampling.BICUBIC), dtype=np.uint8
        )

    def seen_region(self, image: Image.Image) -> tuple[int, int, int, int]:
        """Return what `prepare` keeps of a picture: (left, top, right, bottom) in its pixels."""
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        return left, top, left + edge, top + edge

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` arrays of `prepare`."""
        rows = [np.empty((0, self.dim), dtype=np.float32)]
        for start in range(0, len(batch), IMAGE_BATCH):
            rows += self._run_image("vectors", batch[start : start + IMAGE_BATCH])
        return unit_rows(np.concatenate(rows))

    def free_image_tower(self) -> None:
        """Give back the memory of the image tower; the next picture opens it again."""
        with self._locks["image"]:
            self._sessions.pop(("image", os.getpid()), None)
        trim_memory()

    def class_logits(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return the supervised head's logits ``(n, 1000)`` float32 for ``n`` pictures, columns in
        the order of `class_names`.
        """
        return self.class_logits_prepared([self.prepare(image) for image in images])

    def class_logits_prepared(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Return the supervised head's logits ``(n, 1000)`` float32 for ``n`` arrays
        of `prepare`.
        """
        rows = [np.empty((0, len(self.class_names)), dtype=np.float32)]
        for start in range(0, len(batch), IMAGE_BATCH):
            rows += self._run_image("logits", batch[start : start + IMAGE_BATCH])
        return np.concatenate(rows)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of ImageNet-1k's 1,000 classes, in the order of the head; two pairs of classes
        share a name.
        """
        return tuple((self._folder / "classes.txt").read_text(encoding="utf-8").splitlines())

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` texts, in their order; a text's vector
        does not depend on its neighbours.
        """
        rows = [
            encoding.ids for encoding in self._load_tokenizer().encode_batch(readable_texts(texts))
        ]
        vectors = np.empty((len(rows), self.dim), dtype=np.float32)
        order = sorted(
            range(len(rows)), key=lambda i: len(rows[i])
        )  # texts of like length share a batch: less padding
        for start in range(0, len(order), TEXT_BATCH):
            chosen = order[start : start + TEXT_BATCH]
            (vectors[chosen],) = self._session("text").run(None, padded([rows[i] for i in chosen]))
        return unit_rows(vectors)

    def is_cut(self, text: str) -> bool:
        """Return whether a text is longer than the 128 tokens that are read."""
        if len(text) <= self._context - 2:  # a token has a character or more
            return False
        return bool(self._load_tokenizer().encode(readable(text)).overflowing)

    def _run_image(self, output: str, batch: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        pixels = np.stack(pad_single(batch, self._cores))
        return [
            rows[: len(batch)] for rows in self._session("image").run([output], {"pixels": pixels})
        ]

    def _session(self, tower: str) -> onnxruntime.InferenceSession:
        # not one of before a fork: it would wait for threads that were left in the parent
        key = tower, os.getpid()
        with self._locks[tower]:
            if key not in self._sessions:
                self._sessions[key] = open_graph(
                    self._folder / f"{tower}.onnx",
                    self._cores.threads,
                    providers=self._providers,
                    unpacked=tower == "text",
                )
            return self._sessions[key]

    def _load_tokenizer(self) -> Tokenizer:
        with self._locks["tokenizer"]:
            if self._tokenizer is None:
                tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
                tokenizer.no_padding()
                tokenizer.enable_truncation(self._context)
                self._tokenizer = tokenizer
            return self._tokenizer


def padded(rows: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """Return token ids and mask ``(n, longest)``."""
    longest = max(map(len, rows))
    ids = np.full((len(rows), longest), PADDING, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return {"ids": ids, "mask": mask}


def fingerprint_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that moves a vector of this encoder."""
    return {
        "encoder": "mini",
        "weights_sha256": config["weights_sha256"],
        "network": config["network"],
        "preprocessing": {
            "crop": "centre square",
            "resize": "bicubic",
            "side": config["side"],
            "mean": 127,
            "std": 128,
        },
        "dtype": "float32",
        "normalised": True,
    }


@cache
def read_config(folder: Path = FOLDER) -> dict[str, Any]:
    """Return ``config.json``; raises EncoderError where it cannot be read."""
    try:
        facts: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"mini: {folder / 'config.json'} cannot be read ({error}): install vitsearch again"
        ) from error
    return facts


def choose_providers(device: str) -> list[str]:
    """Return ONNX Runtime's providers for a device; raises EncoderError for one that it does not
    have.
    """
    available = onnxruntime.get_available_providers()
    if device in ("auto", "cpu"):
        return list(CPU)
    if device.partition(":")[0] == "cuda" and "CUDAExecutionProvider" in available:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    raise EncoderError(
        f"mini cannot run on {device!r}: ONNX Runtime here has {', '.join(available)}; use "
        "--device auto"
    )


def load_mini(
    *, device: str = "auto", dtype: str = "auto", threads: int = 0, throughput: bool = False
) -> MiniEncoder:
    """Return the encoder inside the package; its towers are opened when they are first used.

    ``threads`` is how many compute one batch; 0 is one a core. ``throughput`` is for many pictures:
    one thread a batch, several batches at once.

    Raises EncoderError for a device that ONNX Runtime does not have, a dtype other than float32, or
    missing files.
    """
    if dtype not in ("auto", "float32"):
        raise EncoderError(f"mini computes in float32, not {dtype!r}: use --dtype auto")
    for file in ("mini.safetensors", "image.onnx", "text.onnx", "tokenizer.json", "classes.txt"):
        if not (FOLDER / file).is_file():
            raise EncoderError(f"mini: {FOLDER / file} is missing: install vitsearch again")
    providers = choose_providers(device)
    cores = thread_plan(throughput) if providers == list(CPU) else Cores()
    return MiniEncoder(
        FOLDER, read_config(), providers, replace(cores, threads=threads) if threads else cores
    )

"""``st:ORG/NAME``: models of sentence-transformers (Reimers and Gurevych 2019) that read pictures
and texts. Texts are queries: they get the prefix that the model's card asks for.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer

from vitsearch.arrays import unit_rows
from vitsearch.encoders.base import Encoder, Vectors, fingerprint_of
from vitsearch.encoders.checkpoints import (
    SENTENCE_TRANSFORMERS_MODULES,
    cached_snapshot,
    check_settings,
    check_sides,
    one_line,
    read_json,
    sentence_transformers_files,
    weights_hash,
)
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.huggingface import without_bar
from vitsearch.encoders.language import readable_texts
from vitsearch.encoders.tokenizer import check_tokenizer_files
from vitsearch.encoders.torch_encoder import IMAGE_BATCH, TEXT_BATCH, choose_device, choose_dtype
from vitsearch.errors import EncoderError
from vitsearch.photos.decode import upright_rgb
from vitsearch.untrusted import guarded, parse_json, read_bounded

MAX_SIDE = 1024  # pixels of a picture: no model of the catalogue sees more, and batches stay small
_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_DECISIVE = {".json", ".txt", ".model", ".jinja", ".safetensors"}
_THEIRS = "sentence_transformers."
_ALLOWED = {  # that a model may have given to the functions which load it: no code, files or hosts
    "dtype": ("auto", "float32", "float16", "bfloat16"),
    "torch_dtype": ("auto", "float32", "float16", "bfloat16"),
    "attn_implementation": ("eager", "sdpa"),  # another one is a kernel from the hub
}


def load_sentence_transformers(
    model: str, *, device: str = "auto", dtype: str = "auto"
) -> "SentenceTransformersEncoder":
    """Return the encoder ``ORG/NAME`` of the Hugging Face hub, from the cache where it is complete
    there, else downloaded.

    Raises EncoderError for a model that does not read pictures and texts, that comes with code or
    pickled weights, or whose files cannot be had or read.
    """
    if model.count("/") != 1 or not all(model.split("/")):
        raise EncoderError(
            f"st:{model} is not the name of a model: it is st:ORG/NAME, as in "
            "st:sentence-transformers/clip-ViT-B-32"
        )
    needed = sentence_transformers_files(cached_snapshot(model))
    folder = hub_folder(model, needed, also=_FILES)
    return load_sentence_transformers_folder(folder, f"st:{model}", device=device, dtype=dtype)


def load_sentence_transformers_folder(
    folder: Path, name: str, *, device: str, dtype: str
) -> "SentenceTransformersEncoder":
    """Return the encoder that sentence-transformers saved in a folder; raises EncoderError."""
    _check_files(folder, name)
    target = choose_device(device)
    number_format = choose_dtype(dtype, target)
    try:
        with without_bar():
            model = SentenceTransformer(
                str(folder),
                device=str(target),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": number_format, "use_safetensors": True},
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # it, transformers, torch and safetensors each raise their own
        raise EncoderError(
            f"{name}: sentence-transformers cannot read the model in {folder} ({one_line(error)})"
        ) from error
    lacking = {"image", "text"} - {str(each) for each in model.modalities}
    if lacking:
        raise EncoderError(
            f"{name} reads no {' and no '.join(sorted(lacking))}: take a model of pictures and "
            "texts, such as st:sentence-transformers/clip-ViT-B-32"
        )
    return SentenceTransformersEncoder(name, model, folder, dtype=number_format)


def _check_files(folder: Path, name: str) -> None:
    """Raise EncoderError where code would be run, a pickle read, or a library led to build what
    fills all memory.
    """
    for module in _modules(folder, name):
        if not str(module.get("type", "")).startswith(_THEIRS):
            raise EncoderError(
                f"{name} comes with code of its own ({module.get('type')}), which is never run: "
                "take a model whose parts are all of sentence-transformers"
            )
        part = (folder / str(module.get("path", ""))).resolve()
        if (
            not part.is_relative_to(folder.resolve())
            and not (folder / SENTENCE_TRANSFORMERS_MODULES).is_symlink()
        ):
            raise EncoderError(f"{name}: a part of the model is outside {folder}: fetch it again")
        inner = part.rglob("*") if (part / "router_config.json").is_file() else ()
        for each in [part, *(folder for folder in inner if folder.is_dir())]:
            _check_part(each, name)


def _check_part(part: Path, name: str) -> None:
    weights = sorted(part.glob("*.safetensors"))
    pickled = sorted(file for file in part.glob("*") if file.suffix in _PICKLED)
    if pickled and not list(part.glob("model.safetensors*")):
        raise EncoderError(
            f"{name}: the weights {pickled[0]} are pickled: save the model again with "
            "safetensors (save_pretrained)"
        )
    if (part / "config.json").is_file():
        check_settings(read_json(part / "config.json", name), weights, name)
    for file in sorted(part.glob("sentence_*_config.json")):
        _check_arguments(file, name)
    check_tokenizer_files(part, name)


def _check_arguments(file: Path, name: str) -> None:
    """Raise EncoderError where a part has its library load it with more than `_ALLOWED`."""
    for key, values in read_json(file, name).items():
        if key == "processing_kwargs":  # of each call: how texts and pictures are read
            check_settings({key: values}, [], name)
            check_sides({key: values}, name)
        elif key.endswith(("_args", "_kwargs")) and values:
            arguments = values if isinstance(values, dict) else {key: values}
            for argument, value in arguments.items():
                if value not in _ALLOWED.get(argument, ()):
                    raise EncoderError(
                        f"{name}: {file} asks for {argument} = {str(value)[:80]!r} in {key}, which "
                        "vitsearch does not pass on: take that line out if you trust the model"
                    )


def _modules(folder: Path, name: str) -> list[Mapping[str, Any]]:
    with guarded(
        EncoderError, f"{name}: the file {folder / SENTENCE_TRANSFORMERS_MODULES}", "fetch it again"
    ):
        modules = parse_json(read_bounded(folder / SENTENCE_TRANSFORMERS_MODULES))
        if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
            raise ValueError("no list of modules in it")
        return modules


class SentenceTransformersEncoder(Encoder):
    """A model of sentence-transformers; it prepares pictures itself, in the threads of its
    library.
    """

    holds_sessions = True
    only_resizes = True

    def __init__(
        self, name: str, model: SentenceTransformer, folder: Path, *, dtype: torch.dtype
    ) -> None:
        self.name, self._model = name, model.eval()
        self._lock = threading.Lock()  # processors keep their padding in themselves
        self.device = str(model.device)
        self.dtype = str(dtype).removeprefix("torch.")
        self.logit_scale = _exponent(model, "logit_scale", self.logit_scale)
        self.dim = int(self._encoded_texts(["a"]).shape[1])
        decisive = [each for each in sorted(folder.rglob("*")) if each.suffix in _DECISIVE]
        self.fingerprint = fingerprint_of(
            {
                "source": "sentence-transformers",
                "files": weights_hash(decisive),
                "parts": [str(each.relative_to(folder)) for each in decisive],
                "prompts": model.prompts,
                "side": MAX_SIDE,
                "dtype": self.dtype,
                "normalisation": "unit length in float32",
            }
        )

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Return the picture, ``(h, w, 3)`` uint8, made smaller to `MAX_SIDE`."""
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        return np.asarray(image.convert("RGB"))

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for prepared pictures."""
        if not len(batch):
            return np.empty((0, self.dim), dtype=np.float32)
        pictures = [Image.fromarray(each) for each in batch]
        with self._guarded("a picture"), self._lock:
            rows = self._model.encode_document(
                pictures, batch_size=IMAGE_BATCH, show_progress_bar=False, convert_to_numpy=True
            )
            return self._unit_rows(rows)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for pictures, turned upright."""
        return self.encode_prepared([self.prepare(upright_rgb(image)) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for texts, each with the model's prefix of
        queries.
        """
        if not len(texts):
            return np.empty((0, self.dim), dtype=np.float32)
        with self._guarded("a text"):
            return self._unit_rows(self._encoded_texts(readable_texts(texts)))

    def _guarded(self, what: str) -> AbstractContextManager[None]:
        return guarded(
            EncoderError,
            f"encoder {self.name}",
            "fetch it again",
            problem=f"cannot read {what}",
            passing=(MemoryError, torch.OutOfMemoryError),
        )

    def _encoded_texts(self, texts: Sequence[str]) -> NDArray[Any]:
        with self._lock:
            rows: NDArray[Any] = self._model.encode_query(
                list(texts), batch_size=TEXT_BATCH, show_progress_bar=False, convert_to_numpy=True
            )
        return rows

    def _unit_rows(self, rows: Any) -> Vectors:
        try:
            return unit_rows(np.asarray(rows, dtype=np.float32))
        except ValueError as error:
            raise EncoderError(
                f"encoder {self.name} overflows in {self.dtype}: use dtype=float32 or bfloat16"
            ) from error


def _exponent(model: SentenceTransformer, name: str, default: float) -> float:
    """Return e to the power of a model's parameter of that name, where it has one."""
    for key, value in model.named_parameters():
        if key.rpartition(".")[2] == name:
            return float(value.detach().float().exp().mean())
    return default

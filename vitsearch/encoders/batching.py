"""Encodes batches, in smaller ones where memory does not hold them; and files, read ahead."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.arrays import Vectors
from vitsearch.errors import PhotoError
from vitsearch.photos import prefetch_map
from vitsearch.photos.decode import read_bytes, upright_rgb
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.profiles import prepared
from vitsearch.photos.walk import walk
from vitsearch.types import OnProgress, Progress

TOO_LARGE = "not enough memory to encode it, even by itself"  # why a photo has no vector
NOT_FINITE = "the encoder gave a vector that is not finite"
_WORDS = ("out of memory", "bad_alloc", "bad allocation", "failed to allocate", "not enough memory")
Picture = str | os.PathLike[str] | Image.Image
OnBroken = Literal["raise", "nan"]


class Encodes(Protocol):
    """What `vitsearch.encoders.ImageEncoder` documents."""

    dim: int
    decode_at_least: int | None
    only_resizes: bool
    parallel_calls: int

    def prepare(self, image: Image.Image) -> NDArray[Any]: ...
    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors: ...


class OomSafeEncoder:
    """An encoder whose batches are halved when memory runs out; the size that went through is kept
    for the batches to come.
    """

    def __init__(self, encoder: Encodes) -> None:
        self.encoder = encoder
        self.max_batch: int | None = None

    def encode(self, pictures: Sequence[NDArray[Any]]) -> list[Vectors | None]:
        """Return the unit row ``(dim,)`` of each prepared picture in order, None for one that does
        not fit even by itself.

        Any other error of the encoder is raised.
        """
        rows: list[Vectors | None] = []
        largest, ran_out = 1, False
        size = self.max_batch or max(1, len(pictures))
        while len(rows) < len(pictures):
            part = pictures[len(rows) : len(rows) + size]
            encoded = self._part(part)
            if encoded is not None:
                rows += list(encoded)
                largest = max(largest, len(part))
                continue
            ran_out = True
            if len(part) == 1:
                rows.append(None)
            size = max(1, len(part) // 2)
        self.max_batch = largest if ran_out else self.max_batch
        return rows

    def _part(self, pictures: Sequence[NDArray[Any]]) -> Vectors | None:
        """Return the rows, or None where memory ran out; what the failed attempt held is free by
        then.
        """
        try:
            return np.asarray(self.encoder.encode_prepared(pictures))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return None


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out: Python's, numpy's, PyTorch's on any device,
    or ONNX Runtime's.
    """
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in text for words in _WORDS)
    )


# -- Files and pictures, read ahead ----------------------------------------------------------------


def files_below(pictures: Picture | Iterable[Picture]) -> Iterator[Picture]:
    """Yield pictures in their order, also a single one; a folder is replaced by the photos in it
    and below.
    """
    for picture in (
        [pictures] if isinstance(pictures, str | os.PathLike | Image.Image) else pictures
    ):
        if not isinstance(picture, str | os.PathLike) or not os.path.isdir(picture):
            yield picture
            continue
        for file in walk(Path(picture)):
            if file.problem is None:
                yield os.path.join(picture, file.path)


def embed_pictures(
    encoder: Encodes,
    pictures: Iterable[Picture],
    *,
    batch_size: int,
    broken: OnBroken,
    progress: OnProgress,
) -> Vectors:
    """Return what `vitsearch.encoders.ImageEncoder.embed` returns."""
    if isinstance(pictures, str | os.PathLike | Image.Image):
        pictures = [pictures]
    if batch_size < 1 or broken not in ("raise", "nan"):
        raise ValueError(
            f"batch_size is at least 1 and broken 'raise' or 'nan', not {batch_size} and {broken!r}"
        )
    total = len(pictures) if isinstance(pictures, Sized) else None
    rows: list[Vectors] = []
    failed, nothing = 0, np.full(encoder.dim, np.nan, dtype=np.float32)
    with closing(_embedded(encoder, pictures, batch_size)) as batches:
        for batch in batches:
            for row in batch:
                if isinstance(row, PhotoError) and broken == "raise":
                    raise row
                failed += isinstance(row, PhotoError)
                rows.append(nothing if isinstance(row, PhotoError) else row)
            progress(Progress("embedding", len(rows), total, failed))
    return np.stack(rows) if rows else np.empty((0, encoder.dim), dtype=np.float32)


def _embedded(
    encoder: Encodes, pictures: Iterable[Picture], batch_size: int
) -> Generator[list[Vectors | PhotoError], None, None]:
    """Yield the rows of each batch, an error in the place of a picture that has none."""
    workers, callers = os.cpu_count() or 1, encoder.parallel_calls
    safe_encoder = OomSafeEncoder(encoder)
    with PhotoDecoder() as decoder:
        loaded = prefetch_map(
            lambda picture: _loaded(encoder, decoder, *picture),
            _named(pictures),
            workers=workers,
            buffer=batch_size + workers,
            on_stop=decoder.close,
        )
        batches: Iterator[list[tuple[str, Any]]] = iter(
            lambda: list(islice(loaded, batch_size)), []
        )
        encoded = prefetch_map(
            lambda batch: _rows(safe_encoder, batch), batches, workers=callers, buffer=callers + 1
        )
        with closing(loaded), closing(encoded):
            yield from encoded


def _named(pictures: Iterable[Picture]) -> Iterator[tuple[str, Picture | PhotoError]]:
    """Yield each picture with its name for messages; one that Pillow has yet to read is read here,
    since threads cannot share its file.
    """
    for number, picture in enumerate(pictures, start=1):
        if not isinstance(picture, Image.Image):
            yield str(os.fspath(picture)), picture
            continue
        try:
            picture.load()
            yield f"picture {number}", picture
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            yield f"picture {number}", PhotoError(f"cannot be decoded: {error}")


def _loaded(
    encoder: Encodes, decoder: PhotoDecoder, name: str, picture: Picture | PhotoError
) -> tuple[str, NDArray[Any] | PhotoError]:
    """Return the encoder's input for a picture, as indexing prepares it, or why there is none."""
    try:
        if isinstance(picture, PhotoError):
            raise picture
        if isinstance(picture, Image.Image):
            return name, encoder.prepare(upright_rgb(picture))
        image, _ = decoder.decode(
            read_bytes(picture if isinstance(picture, str) else os.fspath(picture)),
            name=name,
            at_least=encoder.decode_at_least,
            colours="profile",
        )
        return name, prepared(image, encoder.prepare, resizes=encoder.only_resizes)
    except PhotoError as error:
        return name, PhotoError(f"{name}: {error}")
    except MemoryError:
        return name, PhotoError(f"{name}: not enough memory to decode it")


def _rows(
    encoder: OomSafeEncoder, batch: Sequence[tuple[str, NDArray[Any] | PhotoError]]
) -> list[Vectors | PhotoError]:
    rows = iter(encoder.encode([each for _, each in batch if not isinstance(each, PhotoError)]))
    return [
        each if isinstance(each, PhotoError) else _checked(name, next(rows)) for name, each in batch
    ]


def _checked(name: str, row: Vectors | None) -> Vectors | PhotoError:
    if row is None:
        return PhotoError(f"{name}: {TOO_LARGE}")
    return row if np.isfinite(row).all() else PhotoError(f"{name}: {NOT_FINITE}")

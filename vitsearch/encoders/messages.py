"""How an encoder and the processes of its devices talk (`vitsearch.encoders.devices`).

A message is two lengths, a JSON header and a body of raw bytes; nothing is unpickled.

    parent -> child: first what is loaded (name, device, dtype, runtime, calls), then requests with
                     an id: a batch (its shapes, and the pixels), or tune (a size of batches)
    child -> parent: first the fingerprint and how many calls run at once, then for each id the rows
                     in float32, in any order; error or memory where there are none; between them
                     remarks for the log
"""

import json
import struct
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.errors import EncoderError

Bytes = NDArray[np.uint8]
Shapes = list[tuple[int, str, list[int]]]  # so many arrays, their dtype, their shape
_LENGTHS = struct.Struct(">IQ")


def send(stream: IO[bytes], header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write a message whose body is the bytes of arrays, to an unbuffered stream."""
    body = [np.ascontiguousarray(each).reshape(-1).view(np.uint8).data for each in arrays]
    head = json.dumps(header).encode("ascii")
    head = _LENGTHS.pack(len(head), sum(map(len, body))) + head
    for rest in (memoryview(head), *body):
        while rest:
            rest = rest[stream.write(rest) :]


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], Bytes]:
    """Return the header and the body of the next message; raises EOFError where the stream ends."""
    head_size, body_size = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size).tobytes())
    header: dict[str, Any] = json.loads(_exactly(stream, head_size).tobytes())
    return header, _exactly(stream, body_size)


def shapes_of(batch: Sequence[NDArray[Any]]) -> Shapes:
    """Return what `unpacked` needs to know of arrays; raises EncoderError for those of objects."""
    if any(each.dtype.hasobject for each in batch):
        raise EncoderError("what this encoder prepares are not arrays of numbers: name one device")
    runs = groupby(batch, key=lambda each: (each.dtype.str, each.shape))
    return [(len(list(run)), dtype, list(shape)) for (dtype, shape), run in runs]


def unpacked(shapes: Shapes, body: Bytes) -> list[NDArray[Any]]:
    """Return the arrays whose bytes a body holds one behind the other; they share its memory."""
    arrays: list[NDArray[Any]] = []
    start = 0
    for count, dtype, shape in shapes:
        end = start + count * np.dtype(dtype).itemsize * int(np.prod(shape))
        arrays += list(body[start:end].view(dtype).reshape(count, *shape))
        start = end
    return arrays


def _exactly(stream: IO[bytes], size: int) -> Bytes:
    data = np.empty(size, dtype=np.uint8)
    rest = data.data
    while rest:
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]
    return data

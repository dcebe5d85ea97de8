"""What a process that decodes photos for another one runs: `serve`.

    parent -> child: a JSON header (what `decode` is given, and seconds), the content of the file;
                     for a video its path in the header, and either every or at
    child -> parent: a JSON header (the picture's size and facts, or the reason why there is none),
                     its RGB pixels, and behind them its ICC profile where it is not applied, or
                     with a ``side`` the picture as WebP of that side, with ``threads`` the text in
                     it behind the places of its words; of a video one picture after the other, then
                     a header with a note

Either way the two lengths come first. Nothing is unpickled, since a child reads the files of
strangers. Only what decoding needs is imported here: a child starts for one photo.
"""

import faulthandler
import json
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import IO, Any

from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import MAX_BYTES, decode, webp
from vitsearch.photos.formats import FORMATS, NOTE
from vitsearch.photos.profiles import PROFILE
from vitsearch.photos.text import READ, TextReader
from vitsearch.types import PhotoInfo

Message = tuple[dict[str, Any], bytes]  # a header and its body
LENGTHS = struct.Struct(">IQ")
MAX_HEADER_LENGTH = 1 << 16
_ORPHAN_SECONDS = 3.0  # how long past the limit a child decodes whose parent was killed


def frame(header: Mapping[str, Any], body: bytes = b"") -> tuple[bytes, bytes]:
    """Return a message as the two pieces that are written."""
    head = json.dumps(header).encode("ascii")
    return LENGTHS.pack(len(head), len(body)) + head, body


def header_of(data: bytes | bytearray) -> dict[str, Any]:
    """Return a header; raises ValueError or RecursionError for what is not one."""
    header = json.loads(data)
    if not isinstance(header, dict):
        raise ValueError
    return header


def serve() -> None:
    """Decode what comes on stdin until it ends: all that a child does."""
    answer(_load_readers, _answers)


def answer(
    start: Callable[[], None], answers: Callable[[bytes, dict[str, Any]], Iterable[Message]]
) -> None:
    """Give the answers to each request that comes on stdin, a content and a header, until it ends;
    what takes long is done in ``start``, before the first.
    """
    # Ctrl-C is sent to parent and children: the parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    # what a library may print must not get between the answers
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    start()
    requests = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  as long as the process
    with suppress(EOFError, BrokenPipeError):
        _send(output, {})
        while True:
            request, data = _receive(requests)
            seconds = request.pop("seconds")
            _end_with_the_parent(seconds)
            for header, body in answers(data, request):
                _send(output, header, body)
                _end_with_the_parent(seconds)
            faulthandler.cancel_dump_traceback_later()


def _load_readers() -> None:
    # before the first photo, whose time is counted; adapters of ours wait for a photo of theirs,
    # since NumPy, which that of RAW needs, takes longer to import than all others
    for photo_format in FORMATS:
        if not photo_format.reader.startswith("vitsearch."):
            with suppress(PhotoError):
                photo_format.load_reader()


def _answers(data: bytes, request: dict[str, Any]) -> Iterator[Message]:
    if "threads" in request:
        yield _text(data, request)
    elif "video" in request:
        yield from _moments(request)
    else:
        yield _reply(data, request)


def _end_with_the_parent(seconds: float) -> None:
    """End the process that long from now, in case that its parent was killed."""
    limit = min(seconds + _ORPHAN_SECONDS, threading.TIMEOUT_MAX)
    faulthandler.dump_traceback_later(limit, exit=True)


def _reply(data: bytes, limits: Mapping[str, Any]) -> Message:
    try:
        image, info = decode(data, **limits)
        facts = {"size": image.size, "info": asdict(info), NOTE: image.info.get(NOTE)}
        if "side" in limits:
            return facts, webp(image, limits["side"])
        profile: bytes = image.info.get(PROFILE, b"")
        return facts, image.tobytes() + profile if profile else image.tobytes()
    except PhotoError as error:
        return {"reason": str(error)}, b""
    except MemoryError:
        return {"reason": "not enough memory to decode it"}, b""


def _text(data: bytes, request: Mapping[str, Any]) -> Message:
    try:
        reader = _text_reader(request["threads"])
        image, _ = decode(data, max_pixels=request["max_pixels"], side=READ)
        text = reader.read(image)
        return {"places": 8 * len(text.places)}, text.packed() + text.text.encode()
    except PhotoError as error:
        return {"reason": str(error)}, b""
    except ImportError as error:
        return {"missing": f"RapidOCR cannot be imported: {error}"}, b""
    except MemoryError:
        return {"reason": "not enough memory to read its text"}, b""
    except Exception as error:  # of the libraries that read text
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        return {"reason": f"its text cannot be read: {reason}"}, b""


@cache
def _text_reader(threads: int) -> TextReader:
    return TextReader(threads)


def _moments(request: Mapping[str, Any]) -> Iterator[Message]:
    """Yield the moments of a video, and a closing header."""
    try:
        from vitsearch.photos.video import read_moment, read_moments

        limits = {name: request[name] for name in ("max_pixels", "at_least")}
        if "at" in request:
            yield _picture(*read_moment(request["video"], at=request["at"], **limits))
            note = ""
        else:
            moments = read_moments(request["video"], every=request["every"], **limits)
            while True:
                try:
                    yield _picture(*next(moments))
                except StopIteration as end:
                    note = end.value
                    break
        yield {"note": note}, b""
    except PhotoError as error:
        yield {"reason": str(error)}, b""
    except ImportError as error:
        yield {"reason": f"PyAV cannot be imported: {error}"}, b""
    except MemoryError:
        yield {"reason": "not enough memory to decode it"}, b""


def _picture(image: Image.Image, info: PhotoInfo) -> Message:
    return {"size": image.size, "info": asdict(info)}, image.tobytes()


def _send(stream: IO[bytes], header: Mapping[str, Any], body: bytes = b"") -> None:
    for piece in frame(header, body):
        rest = memoryview(piece)
        while rest:
            rest = rest[stream.write(rest) :]


def _receive(stream: IO[bytes]) -> Message:
    head_size, body_size = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    if head_size > MAX_HEADER_LENGTH or body_size > MAX_BYTES:
        raise EOFError
    return header_of(_exactly(stream, head_size)), _exactly(stream, body_size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]
    return bytes(data)

"""Decodes photos in child processes, so that a decoder that hangs or crashes costs one photo and
not the run.

    parent -> child: a JSON header (max_pixels, at_least, seconds), the file's content
    child -> parent: a JSON header (the picture's size and facts, or the reason why there is none),
                     its RGB pixels

Either way the two lengths come first. Nothing is unpickled, since a child reads the files of
strangers. The child runs `serve`; the rest of the module is the parent's.
"""

import faulthandler
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import IO, Any, Protocol

from PIL import Image

from vitsearch.errors import PhotoError, VitsearchError
from vitsearch.photos.decode import MAX_BYTES, decode
from vitsearch.photos.formats import FORMATS
from vitsearch.types import MAX_PIXELS, PhotoInfo

_LENGTHS = struct.Struct(">IQ")
_MAX_HEADER_LENGTH = 1 << 16
_START_SECONDS = 120.0
_ORPHAN_SECONDS = 3.0  # how long past the limit a child decodes whose parent was killed
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}  # NumPy would start a useless thread for each core in each child
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from vitsearch.photos.isolated import serve; serve()"
)


class PhotoDecoder(Protocol):
    """Decodes from any thread as `decode` does until it is closed, which also stops what is being
    decoded where that is possible.
    """

    def decode(
        self, data: bytes, /, *, max_pixels: int = ..., at_least: int | None = ...
    ) -> tuple[Image.Image, PhotoInfo]: ...
    def close(self) -> None: ...


def photo_decoder(seconds: float | None) -> PhotoDecoder:
    """Return a decoder that runs in the calling thread, or, with a limit of ``seconds`` for each
    photo, in child processes.
    """
    return InlineDecoder() if seconds is None else ProcessDecoder(seconds)


class InlineDecoder:
    """Decodes in the calling thread."""

    decode = staticmethod(decode)

    def close(self) -> None:
        """Do nothing: a thread cannot be stopped."""


class ProcessDecoder:
    """Child processes that decode, as many as threads ask for at once; one that was killed or
    crashed is replaced.

    ``seconds`` is the limit for one photo, a finite number above 0.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._idle: list[ChildDecoder] = []
        self._busy: set[ChildDecoder] = set()
        self._lock = threading.Lock()
        self._closed = False

    def decode(
        self, data: bytes, /, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
    ) -> tuple[Image.Image, PhotoInfo]:
        """Return what `decode` returns, from any thread.

        Raises PhotoError also where the limit has passed or the decoder crashed, VitsearchError
        where no process can be started.
        """
        child = self._take()
        try:
            return child.decode(data, max_pixels=max_pixels, at_least=at_least)
        finally:
            self._give_back(child)

    def close(self) -> None:
        """End every process; threads that still decode fail their photo, and none starts another
        process.
        """
        with self._lock:
            self._closed = True
            for child in self._busy:
                child.kill()  # its thread, which is reading from it, closes it
            while self._idle:
                self._idle.pop().close()

    def _take(self) -> "ChildDecoder":
        with self._lock:
            if self._closed:
                raise PhotoError("the run was stopped before it was decoded")
            while self._idle:
                child = self._idle.pop()
                if child.usable:
                    break
                child.close()
            else:
                child = ChildDecoder(self.seconds)
            self._busy.add(child)
            return child

    def _give_back(self, child: "ChildDecoder") -> None:
        with self._lock:
            self._busy.discard(child)
            if child.usable and not self._closed:
                self._idle.append(child)
                return
        child.close()


class ChildDecoder:
    """One child process that decodes one photo at a time, each within ``seconds``; the time of its
    start does not count.

    Raises VitsearchError when it cannot be started.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started, self._at_rest, self._late = False, True, False
        command = [
            sys.executable,
            "-c",
            _PROGRAM,
            *sys.path,
        ]  # the same places, so that it is the same package
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT,
            )
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._requests, self._answers = process, process.stdin, process.stdout

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it lives and waits for a photo."""
        return self._at_rest and not self._late and self._process.poll() is None

    def decode(
        self, data: bytes, /, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
    ) -> tuple[Image.Image, PhotoInfo]:
        """Return what `decode` returns; raises PhotoError also where the limit has passed or the
        decoder crashed.
        """
        self._at_rest = False
        self._wait_for_start()
        request = {"max_pixels": max_pixels, "at_least": at_least, "seconds": self.seconds}
        try:
            with self._killed_after(self.seconds):
                _send(self._requests, request, data)
                reply, pixels = _receive(self._answers, 3 * max_pixels)
            result = None if "reason" in reply else _picture(reply, pixels)
        except (OSError, EOFError):
            raise PhotoError(
                f"decoding took longer than {self.seconds:g} s"
                if self._late
                else f"the decoder {self._ending()}"
            ) from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise PhotoError("the decoder gave no answer that can be read") from None
        self._at_rest = True
        if result is None:
            raise PhotoError(str(reply["reason"]))
        return result

    def kill(self) -> None:
        """End the process at once; may be called from any thread."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and close its pipes; only where no thread uses it."""
        self.kill()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):  # of what the process did not take
                pipe.close()

    def _wait_for_start(self) -> None:
        if self._started:
            return
        try:
            with self._killed_after(_START_SECONDS):
                _receive(self._answers, 0)
        except (OSError, EOFError):
            raise _not_started(f"it {self._ending()}") from None
        except ValueError:
            raise _not_started("it gave no answer that can be read") from None
        self._started = True

    @contextmanager
    def _killed_after(self, seconds: float) -> Iterator[None]:
        """Kill the process when the block takes longer: a timer, since reads of pipes have no limit
        of their own on every system.
        """
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # it may be killing just now

    def _expire(self) -> None:
        self._late = True
        self._process.kill()

    def _ending(self) -> str:
        """Return how the process ended, which is killed where it only closed its pipes."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=5)
            return f"crashed (signal {-code})" if code < 0 else f"crashed (exit code {code})"
        self.kill()
        return "gave no answer"


def _not_started(reason: str) -> VitsearchError:
    return VitsearchError(
        f"cannot start a process that decodes photos ({reason}): index without a limit of the "
        "time for decoding"
    )


def _picture(reply: Mapping[str, Any], pixels: bytes) -> tuple[Image.Image, PhotoInfo]:
    """Return what a child answered; raises ValueError, TypeError or KeyError where that is not
    a picture.
    """
    width, height = reply["size"]
    if len(pixels) != 3 * width * height:
        raise ValueError
    return Image.frombytes("RGB", (width, height), pixels), PhotoInfo(**reply["info"])


def _send(stream: IO[bytes], header: Mapping[str, Any], body: bytes = b"") -> None:
    head = json.dumps(header).encode("ascii")
    stream.write(_LENGTHS.pack(len(head), len(body)) + head)
    stream.write(body)
    stream.flush()


def _receive(stream: IO[bytes], max_size: int) -> tuple[dict[str, Any], bytes]:
    """Return the next header and body; raises EOFError where the stream ends, ValueError for what
    is not one, or is longer than ``max_size``.
    """
    head_size, body_size = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    if head_size > _MAX_HEADER_LENGTH or body_size > max_size:
        raise ValueError
    header = json.loads(_exactly(stream, head_size))
    if not isinstance(header, dict):
        raise ValueError
    return header, _exactly(stream, body_size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def serve() -> None:
    """Decode what comes on stdin until it ends: all that a child does."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is sent to parent and children: the parent decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), 1
    )  # what a library may print must not get between the answers
    for photo_format in FORMATS:  # before the first photo, whose time is counted
        with suppress(PhotoError):
            photo_format.load_reader()
    with suppress(EOFError, BrokenPipeError):
        _send(answers, {})
        while True:
            request, data = _receive(sys.stdin.buffer, MAX_BYTES)
            faulthandler.dump_traceback_later(
                min(request["seconds"] + _ORPHAN_SECONDS, threading.TIMEOUT_MAX), exit=True
            )
            _send(answers, *_reply(data, request["max_pixels"], request["at_least"]))
            faulthandler.cancel_dump_traceback_later()


def _reply(data: bytes, max_pixels: int, at_least: int | None) -> tuple[dict[str, Any], bytes]:
    try:
        image, info = decode(data, max_pixels=max_pixels, at_least=at_least)
        return {"size": image.size, "info": asdict(info)}, image.tobytes()
    except PhotoError as error:
        return {"reason": str(error)}, b""
    except MemoryError:
        return {"reason": "not enough memory to decode it"}, b""

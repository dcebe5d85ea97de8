"""Decodes photos so that a decoder that hangs or crashes costs one photo and not the run: in
threads that can be left behind, and in child processes, as many as are asked for at once. What a
child runs, and how the two talk, is `vitsearch.photos.child`.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, Protocol, TypeVar

from PIL import Image

from vitsearch.errors import PhotoError, VitsearchError
from vitsearch.photos.child import LENGTHS, MAX_HEADER_LENGTH, frame, header_of
from vitsearch.photos.decode import Colours, decode
from vitsearch.photos.formats import NOTE
from vitsearch.photos.profiles import MAX_PROFILE_BYTES, PROFILE
from vitsearch.photos.text import PhotoText
from vitsearch.types import PhotoInfo
from vitsearch.untrusted import python_command

Decoded = tuple[Image.Image, PhotoInfo]
_JOIN_SECONDS = 5.0
Answer = TypeVar("Answer")
PATIENCE = 60.0  # seconds for a photo before it is named
MAX_EXTENSION = 14_400.0  # seconds for the length that a video claims to have
_START_SECONDS = 120.0
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}  # NumPy would start a useless thread for each core in each child
_PIPE_BYTES = 1 << 20  # a picture goes through in one piece, where the system has such pipes


class DecoderThread:
    """One thread that decodes one photo at a time; being a daemon, it keeps no program alive."""

    def __init__(self) -> None:
        self._photos: SimpleQueue[tuple[bytes, dict[str, Any]] | None] = SimpleQueue()
        self._answers: SimpleQueue[Decoded | BaseException] = SimpleQueue()
        self._at_rest = True
        self._thread = Thread(target=self._work, name="vitsearch-decoder", daemon=True)
        self._thread.start()

    @property
    def usable(self) -> bool:
        """Whether it waits for a photo."""
        return self._at_rest

    def decode(self, data: bytes, *, seconds: float, **options: Any) -> Decoded:
        """Return what `vitsearch.photos.decode.decode` returns, within ``seconds``; raises
        TimeoutError where it is not done by then, after which the thread is not usable.
        """
        self._at_rest = False
        self._photos.put((data, options))
        try:
            answer = self._answers.get(timeout=seconds)
        except Empty:
            raise TimeoutError from None
        if isinstance(answer, BaseException):
            self._at_rest = not isinstance(answer, _Stopped)
            raise answer
        self._at_rest = True
        return answer

    def kill(self) -> None:
        """Have the caller of `decode`, in another thread, leave this one behind."""
        self._answers.put(_Stopped("the run was stopped before it was decoded"))

    def close(self) -> None:
        """Let the thread end, at once where it is at rest."""
        self._photos.put(None)
        if self._at_rest:
            self._thread.join(_JOIN_SECONDS)

    def _work(self) -> None:
        while (photo := self._photos.get()) is not None:
            data, options = photo
            try:
                self._answers.put(decode(data, **options))
            except BaseException as error:
                self._answers.put(error)
            del data, photo


class _Stopped(PhotoError):
    """The photo was left behind."""


class DecoderDied(PhotoError):
    """The decoder crashed, or took too long."""


class DecoderNotStarted(VitsearchError):
    """No process that decodes could be started."""


def can_start() -> bool:
    """Return whether this system has what processes that decode need: Windows has not."""
    return hasattr(select, "poll") and hasattr(os, "readv")


class ChildDecoder:
    """One child process that decodes one photo at a time; the time of its start does not count.

    ``program`` is the statement of Python that it runs. Raises DecoderNotStarted when it cannot be
    started.
    """

    def __init__(self, program: str = "from vitsearch.photos.child import serve; serve()") -> None:
        if not can_start():
            raise _not_started(f"{sys.platform} has no way to wait for its pipes")
        self._started, self._at_rest, self._late = False, True, False
        self._deadline = 0.0
        command = python_command(program)
        try:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT,
            )
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._requests, self._answers):
            os.set_blocking(pipe, False)
            widen_pipe(pipe)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it lives and waits for a photo."""
        return self._at_rest and not self._late and self._process.poll() is None

    def decode(
        self,
        data: bytes,
        *,
        seconds: float,
        max_pixels: int,
        at_least: int | None,
        colours: Colours = "srgb",
        on_slow: Callable[[], None] | None = None,
    ) -> tuple[Image.Image, PhotoInfo]:
        """Return what `vitsearch.photos.decode.decode` returns; raises DecoderDied where the limit
        of ``seconds`` has passed or the decoder crashed.

        ``on_slow`` is called where it is not done within `PATIENCE`.
        """
        limits = {"max_pixels": max_pixels, "at_least": at_least, "colours": colours}
        return self.ask(data, limits, _picture, seconds=seconds, on_slow=on_slow)

    def webp(self, data: bytes, *, seconds: float, max_pixels: int, side: int) -> bytes:
        """Return a photo as WebP whose longest side is at most ``side``: a picture that the child
        makes, so that a small one goes through the pipe. Raises as `decode` does.
        """
        limits = {"max_pixels": max_pixels, "side": side}
        return self.ask(data, limits, lambda _, made: bytes(made), seconds=seconds)

    def text(self, data: bytes, *, seconds: float, max_pixels: int, threads: int) -> PhotoText:
        """Return the text in a photo; raises as `decode` does, and VitsearchError where the library
        that reads it is missing.
        """
        limits = {"max_pixels": max_pixels, "threads": threads}
        return self.ask(data, limits, _text, seconds=seconds)

    def ask(
        self,
        data: bytes,
        limits: Mapping[str, Any],
        read: Callable[[Mapping[str, Any], bytearray], Answer],
        *,
        seconds: float,
        on_slow: Callable[[], None] | None = None,
    ) -> Answer:
        """Return what ``read`` makes of the answer, a header and at most three bytes for each of
        ``limits["max_pixels"]``; raises as `decode` does.
        """
        with self._answering(limits, data, seconds):
            if on_slow and seconds > PATIENCE and not self._is_ready(PATIENCE):
                on_slow()
            reply, body = self._receive(3 * limits["max_pixels"] + MAX_PROFILE_BYTES)
            result = None if "reason" in reply else read(reply, body)
        self._at_rest = True
        if result is None:
            raise PhotoError(str(reply["reason"]))
        return result

    def moments(
        self, request: Mapping[str, Any], *, seconds: float, grows: bool
    ) -> Generator[tuple[Image.Image, PhotoInfo], None, str]:
        """Yield what `vitsearch.photos.video.read_moments` or ``read_moment`` gives for a request
        with the path of a video, and return its note; raises DecoderDied where it takes longer than
        ``seconds``, and if that ``grows`` as long as the video besides.
        """
        with self._answering(request, b"", seconds):
            begun, is_first = self._deadline - seconds, True
            while True:
                reply, pixels = self._receive(3 * request["max_pixels"])
                if "note" in reply or "reason" in reply:
                    break
                moment = _picture(reply, pixels)
                if grows and is_first:
                    duration = float(moment[1]["duration"] or 0)
                    self._deadline = begun + seconds + min(max(duration, 0), MAX_EXTENSION)
                    is_first = False
                yield moment
        self._at_rest = True
        if "reason" in reply:
            raise PhotoError(str(reply["reason"]))
        return str(reply["note"])

    @contextmanager
    def _answering(self, request: Mapping[str, Any], data: bytes, seconds: float) -> Iterator[None]:
        """Send a request, and read its answers in the block, within a limit."""
        self._at_rest = False
        self._wait_for_start()
        self._deadline = time.monotonic() + seconds
        try:
            for piece in frame({**request, "seconds": seconds}, data):
                self._send(piece)
            yield
        except (OSError, EOFError):
            raise DecoderDied(
                f"decoding took longer than {seconds:g} s"
                if self._late
                else f"the decoder {self._ending()}"
            ) from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise PhotoError("the decoder gave no answer that can be read") from None

    def kill(self) -> None:
        """End the process at once; may be called from any thread."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and close its pipes; only where no thread uses it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def _wait_for_start(self) -> None:
        if self._started:
            return
        self._deadline = time.monotonic() + _START_SECONDS
        try:
            self._receive(0)
        except (OSError, EOFError):
            raise _not_started(f"it {self._ending()}") from None
        except ValueError:
            raise _not_started("it gave no answer that can be read") from None
        self._started = True

    def _ending(self) -> str:
        """Return how the process ended, which is killed where it only closed its pipes."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(timeout=5)
            return f"crashed (signal {-code})" if code < 0 else f"crashed (exit code {code})"
        self.kill()
        return "gave no answer"

    # -- messages, each within the deadline --------------------------------------------------------

    def _send(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                self._wait(self._requests, select.POLLOUT)

    def _receive(self, max_size: int) -> tuple[dict[str, Any], bytearray]:
        """Return the next header and body; raises EOFError where the stream ends, ValueError for
        what is not one, or is longer than ``max_size``.
        """
        head_size, body_size = LENGTHS.unpack(self._exactly(LENGTHS.size))
        if head_size > MAX_HEADER_LENGTH or body_size > max_size:
            raise ValueError
        return header_of(self._exactly(head_size)), self._exactly(body_size)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                count = os.readv(self._answers, [rest])
            except BlockingIOError:
                self._wait(self._answers, select.POLLIN)
                continue
            if not count:
                raise EOFError
            rest = rest[count:]
        return data

    def _is_ready(self, seconds: float) -> bool:
        """Wait for an answer, and return whether one has begun within so many seconds."""
        return _ready(self._answers, select.POLLIN, seconds)

    def _wait(self, pipe: int, event: int) -> None:
        """Wait until a pipe is ready; the process is killed at the deadline, which raises
        EOFError.
        """
        remaining = self._deadline - time.monotonic()
        if not _ready(pipe, event, remaining) and time.monotonic() >= self._deadline:
            self._late = True
            self.kill()
            raise EOFError


def _ready(pipe: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pipe, event)
    # the longest that poll can wait is 2^31 ms
    return bool(poll.poll(1000 * min(max(seconds, 0), 1e6)))


def widen_pipe(pipe: int) -> None:
    """Let a pipe hold a picture, where the system can do that and lets this user."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _not_started(reason: str) -> DecoderNotStarted:
    return DecoderNotStarted(
        f"cannot start a process that decodes photos ({reason}): index without a limit of the "
        "time for decoding"
    )


def _text(reply: Mapping[str, Any], body: bytearray) -> PhotoText:
    """Return the text that a child answered; raises ValueError, TypeError or KeyError where that is
    none.
    """
    if "missing" in reply:
        raise VitsearchError(f"{reply['missing']}: pip install 'vitsearch[ocr]'")
    size = reply["places"]
    return PhotoText.unpacked(body[size:].decode(), bytes(body[:size]))


def _picture(reply: Mapping[str, Any], pixels: bytearray) -> tuple[Image.Image, PhotoInfo]:
    """Return what a child answered; raises ValueError, TypeError or KeyError where that is not
    a picture.
    """
    (width, height), count = reply["size"], 3 * reply["size"][0] * reply["size"][1]
    if not count <= len(pixels) <= count + MAX_PROFILE_BYTES:
        raise ValueError
    image = Image.frombytes("RGB", (width, height), memoryview(pixels)[:count])
    if len(pixels) > count:
        image.info[PROFILE] = bytes(memoryview(pixels)[count:])
    if note := reply.get(NOTE):
        image.info[NOTE] = str(note)
    return image, PhotoInfo(**reply["info"])


class _Decoder(Protocol):
    """One process or thread that decodes one photo at a time."""

    @property
    def usable(self) -> bool: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


Each = TypeVar("Each", bound=_Decoder)


class DecoderPool(Generic[Each]):
    """As many decoders as threads ask for at once; one that was killed, crashed or was left behind
    is replaced. Safe to use from several threads.
    """

    def __init__(self, make: Callable[[], Each]) -> None:
        self._make = make
        self._idle: list[Each] = []
        self._busy: set[Each] = set()
        self._lock = Lock()
        self._closed = False

    def fill(self, count: int) -> None:
        """Have so many ready."""
        with self._lock:
            while len(self._idle) < count and not self._closed:
                self._idle.append(self._make())

    def take(self) -> Each:
        with self._lock:
            if self._closed:
                raise PhotoError("the run was stopped before it was decoded")
            while self._idle:
                decoder = self._idle.pop()
                if decoder.usable:
                    break
                decoder.close()
            else:
                decoder = self._make()
            self._busy.add(decoder)
            return decoder

    def give_back(self, decoder: Each) -> None:
        with self._lock:
            self._busy.discard(decoder)
            if decoder.usable and not self._closed:
                self._idle.append(decoder)
                return
        decoder.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for decoder in self._busy:
                decoder.kill()  # who waits for it closes it
            while self._idle:
                self._idle.pop().close()

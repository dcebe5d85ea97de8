"""A thread that decodes photos, and that can be left behind where a decoder hangs."""

from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.decode import decode
from vitsearch.types import PhotoInfo

Decoded = tuple[Image.Image, PhotoInfo]
_JOIN_SECONDS = 5.0


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

"""Photos on disk: find them in a folder, read one, in a child process where its decoder may hang or
crash; and a bounded, ordered map over threads, which reads ahead.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from vitsearch.photos.decode import LoadedPhoto as LoadedPhoto
    from vitsearch.photos.decode import read_bytes_and_fingerprint as read_bytes_and_fingerprint
    from vitsearch.photos.decode import thumbnail as thumbnail
    from vitsearch.photos.decode import upright_rgb as upright_rgb
    from vitsearch.photos.decoder import PhotoDecoder as PhotoDecoder
    from vitsearch.photos.decoder import read_photo as read_photo
    from vitsearch.photos.walk import WalkOptions as WalkOptions
    from vitsearch.types import MAX_PIXELS as MAX_PIXELS

_MODULES = {
    "LoadedPhoto": "photos.decode",
    "MAX_PIXELS": "types",
    "PhotoDecoder": "photos.decoder",
    "WalkOptions": "photos.walk",
    "read_bytes_and_fingerprint": "photos.decode",
    "read_photo": "photos.decoder",
    "thumbnail": "photos.decode",
    "upright_rgb": "photos.decode",
}
__all__ = [*_MODULES, "prefetch_map"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vitsearch.{_MODULES[name]}"), name)


# -- Reading ahead ---------------------------------------------------------------------------------


Item = TypeVar("Item")
Result = TypeVar("Result")
PULSE = 0.1


def prefetch_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    buffer: int,
    on_stop: Callable[[], None] = lambda: None,
    meanwhile: Callable[[], None] | None = None,
    patience: float = math.inf,
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in the order of the items, worked out ahead of the
    consumer in threads.

    A result that the consumer has waited for longer than ``patience`` seconds is overtaken by those
    after it that are done.

    At most ``buffer`` items are taken and not yet handed over, so memory stays bounded whatever the
    length of ``items``. An error of ``function`` is raised at its item's turn, an error of
    ``items`` after the results before it. When the consumer stops, work that has not begun is
    dropped and the threads end once they have done what they are at; then, and after an error,
    ``on_stop`` is called first, which may cut that short. ``meanwhile`` is called every `PULSE`
    seconds by the consumer's thread while it waits for a result. Raises ValueError when ``workers``
    or ``buffer`` is below 1.
    """
    if workers < 1 or buffer < 1:
        raise ValueError(f"workers and buffer must be 1 or more, got {workers} and {buffer}")
    return _prefetch(
        function,
        iter(items),
        ThreadPoolExecutor(workers, thread_name_prefix="photos"),
        buffer=buffer,
        on_stop=on_stop,
        meanwhile=meanwhile,
        patience=patience,
    )


def _prefetch(
    function: Callable[[Item], Result],
    items: Iterator[Item],
    pool: ThreadPoolExecutor,
    *,
    buffer: int,
    on_stop: Callable[[], None],
    meanwhile: Callable[[], None] | None,
    patience: float,
) -> Generator[Result, None, None]:
    waiting = _Waiting[Result](patience, meanwhile)
    source_error: BaseException | None = None
    exhausted = False
    try:
        while True:
            while not exhausted and len(waiting) < buffer:
                try:
                    item = next(items)
                except StopIteration:
                    exhausted = True
                except Exception as error:
                    exhausted, source_error = True, error
                else:
                    waiting.add(pool.submit(function, item))
            if not len(waiting):
                break
            yield waiting.take().result()
        if source_error is not None:
            raise source_error
    except BaseException:
        on_stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Waiting(Generic[Result]):
    """Results that are not handed over yet, in the order of their items."""

    def __init__(self, patience: float, meanwhile: Callable[[], None] | None) -> None:
        self._patience, self._meanwhile = patience, meanwhile
        self._futures: deque[Future[Result]] = deque()
        self._first: Future[Result] | None = None
        self._late = math.inf  # when the patience with the first ends

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[Result]) -> None:
        """Put one at the end."""
        self._futures.append(future)

    def take(self) -> Future[Result]:
        """Take the next one out, when it is done."""
        first = self._futures[0]
        if first is not self._first:
            self._first, self._late = first, time.monotonic() + self._patience
        while True:
            candidates = [*self._futures] if time.monotonic() > self._late else [first]
            for future in candidates:
                if future.done():
                    self._futures.remove(future)
                    if future is first:
                        self._first = None  # whose error would keep all that led to it alive
                    return future
            if self._meanwhile:
                self._meanwhile()
            wait(candidates, PULSE, FIRST_COMPLETED)

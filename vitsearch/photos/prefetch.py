"""A bounded, ordered map over threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

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
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in the order of the items, worked out ahead of the
    consumer in threads.

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
    )


def _prefetch(
    function: Callable[[Item], Result],
    items: Iterator[Item],
    pool: ThreadPoolExecutor,
    *,
    buffer: int,
    on_stop: Callable[[], None],
    meanwhile: Callable[[], None] | None,
) -> Generator[Result, None, None]:
    waiting: deque[Future[Result]] = deque()
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
                    waiting.append(pool.submit(function, item))
            if not waiting:
                break
            while meanwhile and not waiting[0].done() and not wait([waiting[0]], PULSE).done:
                meanwhile()
            yield waiting.popleft().result()
        if source_error is not None:
            raise source_error
    except BaseException:
        on_stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

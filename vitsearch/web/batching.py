"""Requests computed in batches: those that arrive during one batch make up the next, and an idle
server starts at once.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import Generic, TypeVar

from vitsearch.errors import ServiceBusy

Job = TypeVar("Job")
Result = TypeVar("Result")

MAX_BATCH = 32  # no model on a CPU gains from more


class Batcher(Generic[Job, Result]):
    """Threads that compute jobs: at once while one is idle, otherwise together with all that have
    arrived meanwhile, up to ``max_batch``.

    ``compute`` returns a result or an exception for each job, in their order; what it raises is
    raised for all of them. ``on_batch`` is called with the size of each batch, and like ``compute``
    from each of the ``workers`` threads.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Result | Exception]],
        *,
        max_batch: int = MAX_BATCH,
        workers: int = 1,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._compute, self._max_batch, self._on_batch = compute, max_batch, on_batch
        self._waiting: queue.SimpleQueue[tuple[Job, Future[Result]] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(
                target=copy_context().run,  # with what the command has set, as texts_in
                args=(self._work,),
                name="vitsearch-batches",
                daemon=True,
            )
            for _ in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> "Future[Result]":
        """Return the future result of a job; raises ServiceBusy after `close`."""
        future: Future[Result] = Future()
        with self._closing:
            if self._closed:
                raise ServiceBusy("the server is stopping: try again in a moment")
            self._waiting.put((job, future))
        return future

    def close(self) -> None:
        """Compute the waiting jobs, then end the threads; a second call does nothing."""
        with self._closing:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Compute the next batch, which may hold large pictures and is let go before the thread
        waits again; return whether more may come.
        """
        batch, more = self._next_batch()
        if batch:
            self._on_batch(len(batch))
            self._run(batch)
        return more

    def _next_batch(self) -> tuple[list[tuple[Job, "Future[Result]"]], bool]:
        """Return the waiting jobs, at least one unless it is the end, and whether more may come."""
        batch: list[tuple[Job, Future[Result]]] = []
        item = self._waiting.get()
        while item is not None:
            if item[1].set_running_or_notify_cancel():
                batch.append(item)
            if len(batch) == self._max_batch:
                return batch, True
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _run(self, batch: Sequence[tuple[Job, "Future[Result]"]]) -> None:
        try:
            results: Sequence[Result | Exception] = self._compute([job for job, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

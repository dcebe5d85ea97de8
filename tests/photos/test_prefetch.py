import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch.photos import prefetch_map


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers()), st.integers(1, 4), st.integers(1, 9))
def test_same_as_map(items: list[int], workers: int, ahead: int) -> None:
    assert list(prefetch_map(str, items, workers=workers, buffer=ahead)) == list(map(str, items))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.integers(1, 4), st.integers(1, 9))
def test_at_most_ahead_items_are_taken_and_not_handed_over(
    count: int, workers: int, ahead: int
) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(count):
            taken += 1
            yield item

    for handed_over, item in enumerate(
        prefetch_map(lambda item: item, items(), workers=workers, buffer=ahead)
    ):
        assert item == handed_over
        assert taken <= handed_over + ahead


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(1, 3), st.integers(1, 6), st.booleans())
def test_an_error_comes_at_its_turn(place: int, workers: int, ahead: int, in_items: bool) -> None:
    def items() -> Iterator[int]:
        for item in range(25):
            if in_items and item == place:
                raise LookupError(item)
            yield item

    def function(item: int) -> int:
        if item == place:
            raise LookupError(item)
        return item

    results = prefetch_map(function, items(), workers=workers, buffer=ahead)
    assert list(islice(results, place)) == list(range(place))
    with pytest.raises(LookupError, match=str(place)):
        next(results)


def test_a_late_result_is_overtaken_by_those_that_are_done() -> None:
    done = threading.Event()

    def function(item: int) -> int:
        if item == 2:
            assert done.wait(60)
        return item

    results = prefetch_map(function, range(9), workers=2, buffer=4, patience=0.05)
    assert list(islice(results, 8)) == [0, 1, 3, 4, 5, 6, 7, 8]
    done.set()
    assert list(results) == [2]


def test_an_error_keeps_nothing_alive() -> None:
    class Encoder:
        """What the function holds."""

    def run() -> weakref.ref[Encoder]:
        encoder = Encoder()

        def function(item: int, used: Encoder = encoder) -> int:
            raise LookupError(item)

        with suppress(LookupError):
            next(prefetch_map(function, range(3), workers=2, buffer=3))
        return weakref.ref(encoder)

    gc.disable()
    try:
        assert run()() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, ValueError])
def test_a_consumer_that_stops_leaves_no_thread_and_no_work(error: type[BaseException]) -> None:
    before = threading.active_count()
    begun: list[int] = []
    with (
        suppress(error),
        closing(prefetch_map(begun.append, iter(range(10**9)), workers=2, buffer=4)) as results,
    ):
        next(results)
        raise error
    assert threading.active_count() == before
    assert len(begun) <= 5


def test_results_come_in_order_also_when_the_first_is_the_slowest() -> None:
    second_is_done = threading.Event()

    def function(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(30)
        if item == 1:
            second_is_done.set()
        return item

    assert list(prefetch_map(function, range(5), workers=2, buffer=3)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, 0)])
def test_no_workers_or_nothing_ahead_is_refused(workers: int, ahead: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        prefetch_map(str, [], workers=workers, buffer=ahead)

"""Memory of uploads goes back to the system."""

import asyncio
import gc
import weakref

import pytest

from vitsearch.web import MemoryKeeper


class _Cycle:
    """What only the collector of cycles lets go, as a picture in the frames of an error."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.slow
def test_what_an_upload_left_behind_goes_after_a_while() -> None:
    async def watched() -> list[bool]:
        keeper, seen = MemoryKeeper(0.01), []
        task = asyncio.create_task(keeper.run())
        for note in (False, True):
            gone = weakref.ref(_Cycle())
            if note:
                keeper.note_upload()
            for _ in range(500 if note else 10):
                await asyncio.sleep(0.01)
                if gone() is None:
                    break
            seen.append(gone() is None)
        task.cancel()
        return seen

    gc.disable()
    try:
        assert asyncio.run(watched()) == [False, True]
    finally:
        gc.enable()


@pytest.mark.slow
def test_what_requests_left_behind_goes_when_no_more_come() -> None:
    async def watched() -> bool:
        keeper = MemoryKeeper(0.01)
        task = asyncio.create_task(keeper.run())
        gone = weakref.ref(_Cycle())
        keeper.note_request()
        for _ in range(500):
            await asyncio.sleep(0.01)
            if gone() is None:
                break
        task.cancel()
        return gone() is None

    gc.disable()
    try:
        assert asyncio.run(watched())
    finally:
        gc.enable()

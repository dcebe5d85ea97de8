"""Memory that large pictures and many requests leave behind goes back to the system."""

import asyncio
import ctypes
import gc
from contextlib import suppress

SECONDS = 2.0  # between two looks
M_ARENA_MAX, ARENAS = -8, 2


class MemoryKeeper:
    """Gives memory back after uploads, and when many requests have been answered: an allocator
    keeps what was freed for later, for each thread that ever took some.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._left = 0
        self._active = False

    def note_request(self) -> None:
        """Have memory given back once no request comes any more."""
        self._active = True

    def note_upload(self) -> None:
        """Have memory given back in a while, and once more when the last answer is out."""
        self._left = 3

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            active, self._active = self._active, False
            await asyncio.sleep(self._seconds)
            if self._left or (active and not self._active):
                self._left = max(0, self._left - 1)
                await asyncio.to_thread(give_back)


def limit_arenas() -> None:
    """Have all threads share two pools of memory, where the C library can (glibc's mallopt):
    otherwise each thread has one of its own, and keeps in it what it once needed.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc's malloc_trim)."""
    gc.collect()  # a picture in a cycle of references would stay until much else is made
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

"""Memory that large pictures leave behind goes back to the system."""

import asyncio
import ctypes
import gc
from contextlib import suppress

SECONDS = 2.0  # between two looks


class MemoryKeeper:
    """Gives memory back after uploads: an allocator keeps what was freed for later, for each thread
    that ever decoded a large picture.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._left = 0

    def note_upload(self) -> None:
        """Have memory given back in a while, and once more when the last answer is out."""
        self._left = 3

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            if self._left:
                self._left -= 1
                await asyncio.to_thread(give_back)


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc's malloc_trim)."""
    gc.collect()  # a picture in a cycle of references would stay until much else is made
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

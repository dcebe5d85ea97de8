"""The process of a server: a note of which collections are served on this machine just now, so that
other commands find their page, and memory that goes back to the system after large pictures and
many requests.
"""

import asyncio
import ctypes
import gc
import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from vitsearch.paths import cache_dir
from vitsearch.storage import locate

_SECONDS = 2.0  # within which a server answers that it runs


def running(photos: str, collection: str | None) -> str:
    """Return the `entrance` of a running server of a collection, "" where there is none; raises
    CollectionNotFound.
    """
    # a record that is damaged, or an answer that is no HTTP, is none of this server
    with suppress(OSError, ValueError, KeyError, TypeError, HTTPException):
        entrance = str(json.loads(_record(photos, collection).read_bytes())["entrance"])
        base, _, key = entrance.partition("?")
        # answered to the key alone, which each start makes anew: another server may have the port;
        # one that asks for a token has no key in its entrance
        health = f"{base}api/index?{key}" if key else f"{base}healthz"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(health, timeout=_SECONDS) as answer:
            return entrance if "status" in json.load(answer) else ""
    return ""


def page_at(entrance: str, address: str) -> str:
    """Return an address of a server, from that of its first page with its key."""
    base, _, key = entrance.partition("?")
    page = base.rstrip("/") + address
    return f"{page}{'&' if '?' in page else '?'}{key}" if key else page


@contextmanager
def recorded(photos: str, collection: str | None, entrance: str) -> Iterator[None]:
    """Note during the block that a collection is served, for the user of this process alone: the
    entrance holds the key.
    """
    record = _record(photos, collection)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({"entrance": entrance}, file)
    except OSError:
        yield  # other commands start a server of their own
        return
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            if json.loads(record.read_bytes())["entrance"] == entrance:
                record.unlink()


def _record(photos: str, collection: str | None) -> Path:
    folder = locate(photos, collection)[1].resolve()
    name = hashlib.blake2b(os.fsencode(folder), digest_size=16).hexdigest()
    return cache_dir() / "serving" / f"{name}.json"


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

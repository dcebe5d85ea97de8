"""Albums and saved searches: what a person keeps of a collection, as facts of its database.

A photo is named by its id, which it keeps when its file moves, is put aside, or comes back.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from vitsearch.errors import QueryError
from vitsearch.storage.lock import writer_lock
from vitsearch.storage.store import PhotoStore

FAVOURITES = "Favourites"
MAX_NAME = 100  # characters
MAX_ALBUMS, MAX_PHOTOS = 1000, 100_000
_ALBUM, _SEARCH = "album:", "search:"


class Album(NamedTuple):
    """Photos under a name, by their ids, in the order that a person gave them."""

    name: str
    ids: tuple[int, ...] = ()

    def with_photos(self, ids: Iterable[int]) -> "Album":
        """Return the album with photos at its end; those that it has stay where they are."""
        return Album(self.name, tuple(dict.fromkeys([*self.ids, *ids])))

    def without(self, ids: Iterable[int]) -> "Album":
        """Return the album without photos."""
        gone = set(ids)
        return Album(self.name, tuple(each for each in self.ids if each not in gone))

    def with_first(self, ids: Iterable[int]) -> "Album":
        """Return the album with some of its photos at its beginning."""
        first = [each for each in ids if each in set(self.ids)]
        return Album(self.name, tuple(dict.fromkeys([*first, *self.ids])))


def albums(store: PhotoStore) -> list[Album]:
    """Return the albums of a collection in order of name, the favourites first."""
    read = store.facts_named(_ALBUM)
    return [Album(name, tuple(json.loads(str(read[name])))) for name in _in_order(read)]


def album_names(store: PhotoStore) -> list[str]:
    """Return the names of the albums in their order."""
    return _in_order(store.facts_named(_ALBUM))


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != FAVOURITES, name.casefold()))


def saved_searches(store: PhotoStore) -> list[tuple[str, str]]:
    """Return the names and addresses of the searches that were saved, in order of name."""
    read = store.facts_named(_SEARCH).items()
    return sorted(((name, str(value)) for name, value in read), key=lambda pair: pair[0].casefold())


def album_named(store: PhotoStore, name: str) -> Album | None:
    """Return an album, None where there is none of this name."""
    value = store.get_meta(_ALBUM + name)
    return None if value is None else Album(name, tuple(json.loads(str(value))))


@contextmanager
def writing(folder: Path) -> Iterator[PhotoStore]:
    """Run the block as one transaction on the database of a collection's folder; raises
    CollectionLocked while another process writes.
    """
    with writer_lock(folder), closing(PhotoStore(folder / "photos.db")) as store:
        with store.writing():
            yield store
        store.checkpoint()


def put_album(store: PhotoStore, album: Album) -> None:
    """Store an album in place of one of its name (inside `writing`); raises QueryError."""
    if len(album.ids) > MAX_PHOTOS:
        raise QueryError(f"an album holds up to {MAX_PHOTOS:,} photos: make another one")
    _put(store, _ALBUM + checked_name(album.name), json.dumps(album.ids))


def put_search(store: PhotoStore, name: str, address: str) -> None:
    """Store the address of a search under a name (inside `writing`); raises QueryError."""
    _put(store, _SEARCH + checked_name(name), address)


def _put(store: PhotoStore, key: str, value: str) -> None:
    if store.get_meta(key) is None:
        prefix = key.partition(":")[0] + ":"
        if len(store.facts_named(prefix)) >= MAX_ALBUMS:
            raise QueryError(f"there are {MAX_ALBUMS:,} already: remove one first")
    store.set_meta(key, value)


def remove_album(store: PhotoStore, name: str) -> None:
    """Remove an album, not its photos (inside `writing`)."""
    store.remove_facts([_ALBUM + name])


def remove_search(store: PhotoStore, name: str) -> None:
    """Remove a saved search (inside `writing`)."""
    store.remove_facts([_SEARCH + name])


def checked_name(name: str) -> str:
    """Return a name that an album may have; raises QueryError."""
    if not name or len(name) > MAX_NAME or not name.isprintable() or name != name.strip():
        raise QueryError(f"a name has 1 to {MAX_NAME} characters, all of them printable")
    return name

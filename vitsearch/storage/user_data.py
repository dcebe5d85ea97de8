"""What a person keeps of a collection and says about it, as facts of its database: albums, saved
searches, and examples, which are the labels that single photos have and have not; they train
classifiers.

A photo is named by its id, which it keeps when its file moves, is put aside, or comes back.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vitsearch.errors import QueryError
from vitsearch.storage.filesystem import writer_lock
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


# -- Examples --------------------------------------------------------------------------------------


MAX_LABEL = 200  # characters
MAX_UNDO = 100  # changes that can be undone
_EXAMPLE, _HISTORY, _TRAINED = "example:", "examples-before", "trained"


class Example(NamedTuple):
    """What a person said about a photo: its label, "" where that is not known, and the labels that
    it does not have.
    """

    photo_id: int
    label: str = ""
    wrong: tuple[str, ...] = ()

    def with_label(self, label: str) -> "Example":
        """Return the example with a right label in place of any other."""
        return Example(self.photo_id, label, tuple(each for each in self.wrong if each != label))

    def without(self, label: str) -> "Example":
        """Return the example with a label that is wrong."""
        right = "" if self.label == label else self.label
        return Example(self.photo_id, right, tuple(dict.fromkeys([*self.wrong, label])))


def examples(store: PhotoStore) -> dict[int, Example]:
    """Return the examples of a collection by the ids of their photos."""
    read = {}
    for key, value in store.facts_named(_EXAMPLE).items():
        label, wrong = json.loads(str(value))
        read[int(key)] = Example(int(key), label, tuple(wrong))
    return read


def put_examples(store: PhotoStore, changed: Iterable[Example]) -> None:
    """Store examples in place of those of the same photos, as a change that can be undone (inside
    `writing`); one that says nothing is removed. Raises QueryError.
    """
    before = []
    for example in changed:
        for label in (example.label, *example.wrong):
            _check(label)
        key = f"{_EXAMPLE}{example.photo_id}"
        before.append((example.photo_id, store.get_meta(key)))
        text = json.dumps([example.label, example.wrong])
        _put_or_remove(store, key, text if example.label or example.wrong else None)
    history = [*_history(store), before][-MAX_UNDO:]
    store.set_meta(_HISTORY, json.dumps(history))


def undo(store: PhotoStore) -> list[int]:
    """Take back the last change of examples (inside `writing`), and return the ids of its photos;
    none where there is no change.
    """
    *history, last = [*_history(store)] or [[]]
    for photo_id, value in last:
        _put_or_remove(store, f"{_EXAMPLE}{photo_id}", value)
    store.set_meta(_HISTORY, json.dumps(history))
    return [photo_id for photo_id, _ in last]


def can_undo(store: PhotoStore) -> bool:
    """Return whether there is a change to take back."""
    return bool(_history(store))


def trained(store: PhotoStore) -> dict[str, Any] | None:
    """Return what is known of the classifier that was trained on the examples, None where there is
    none.
    """
    value = store.get_meta(_TRAINED)
    return None if value is None else dict(json.loads(str(value)))


def put_trained(store: PhotoStore, facts: dict[str, Any]) -> None:
    """Store what is known of the classifier (inside `writing`)."""
    store.set_meta(_TRAINED, json.dumps(facts))


def _history(store: PhotoStore) -> Sequence[Any]:
    value = store.get_meta(_HISTORY)
    read: Sequence[Any] = [] if value is None else json.loads(str(value))
    return read


def _put_or_remove(store: PhotoStore, key: str, value: str | None) -> None:
    if value is None:
        store.remove_facts([key])
    else:
        store.set_meta(key, value)


def _check(label: str) -> None:
    """Raise QueryError for a label that cannot be stored; "" is none."""
    if len(label) > MAX_LABEL or not label.isprintable() or label != label.strip():
        raise QueryError(f"a label has at most {MAX_LABEL} characters, all of them printable")

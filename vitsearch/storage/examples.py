"""Examples: what a person said about the labels of single photos, as facts of the database.

They train classifiers. A photo is named by its id, as in an album.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vitsearch.errors import QueryError
from vitsearch.storage.store import PhotoStore

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
        _put(store, key, text if example.label or example.wrong else None)
    history = [*_history(store), before][-MAX_UNDO:]
    store.set_meta(_HISTORY, json.dumps(history))


def undo(store: PhotoStore) -> list[int]:
    """Take back the last change of examples (inside `writing`), and return the ids of its photos;
    none where there is no change.
    """
    *history, last = [*_history(store)] or [[]]
    for photo_id, value in last:
        _put(store, f"{_EXAMPLE}{photo_id}", value)
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


def _put(store: PhotoStore, key: str, value: str | None) -> None:
    if value is None:
        store.remove_facts([key])
    else:
        store.set_meta(key, value)


def _check(label: str) -> None:
    """Raise QueryError for a label that cannot be stored; "" is none."""
    if len(label) > MAX_LABEL or not label.isprintable() or label != label.strip():
        raise QueryError(f"a label has at most {MAX_LABEL} characters, all of them printable")

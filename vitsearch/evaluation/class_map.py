"""Which class of a supervised model is which label: derived from words and what WordNet has above
them, and a file that a person edits.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitsearch.errors import QueryError
from vitsearch.labels import Label, parse_labels
from vitsearch.outputs.drawing import write_page
from vitsearch.types import Activation

# -- What the names of a model's classes mean ------------------------------------------------------

IMAGENET = Path(__file__).parents[1] / "imagenet_classes.tsv"
_PLURALS = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
}
# meanings above ImageNet-1k's classes that are not what people mean by this word of a photo
SELDOM = {
    "n02085374": "toy",  # a toy dog
    "n03956922": "plant",  # a factory
    "n02959942": "car",  # of a railway
    "n04139859": "bank",  # for savings
    "n13899404": "ball",  # a globe, such as a bubble
    "n09214060": "bar",  # of sand
    "n02788689": "bar",  # of a keyboard
    "n09214581": "barrier",  # of sand
    "n09349797": "mechanism",  # of nature, such as a sandbar
    "n02152991": "game",  # birds that are hunted
    "n03959701": "plate",  # of armour
}


class Word(NamedTuple):
    """A word that a class has: 0 for its own, of a meaning above 1 for the first name and its short
    forms, 2 for another.
    """

    text: str
    rank: int = 0


@lru_cache(maxsize=16_384)
def name_key(text: str) -> str:
    """Return a name in lower case, words apart, without an article."""
    words = text.casefold().replace("_", " ").replace("-", " ").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def singulars(key: str) -> list[str]:
    """Return what a name would be the plural of."""
    front, _, last = key.rpartition(" ")
    found = [_PLURALS[last]] if last in _PLURALS else []
    if len(last) > 3 and last.endswith("s") and not last.endswith(("ss", "us", "is")):
        found.append(last[:-1])
        found += (
            [last[:-2]]
            if last.endswith(("ches", "shes", "sses", "xes", "zes", "uses", "oes"))
            else []
        )
        found += [last[:-3] + "y"] if last.endswith("ies") else []
        found += [last[:-3] + "f", last[:-3] + "fe"] if last.endswith("ves") else []
    return [f"{front} {one}".strip() for one in found]


# -- meanings --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """A line of the file: a WNID, its names (that of the class first), and the WNIDs right above
    it.
    """

    wnid: str
    names: tuple[str, ...]
    above: tuple[str, ...]
    is_class: bool


@cache
def _meanings() -> dict[str, Meaning]:
    """Return WordNet's meanings of ImageNet-1k's classes, in order, and those above
    them, by WNID.
    """
    rows = [
        line.split("\t")
        for line in IMAGENET.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    return {
        wnid: Meaning(
            wnid, (*([name] if name else []), *words.split("|")), tuple(above.split()), bool(name)
        )
        for wnid, name, words, above in rows
    }


def meanings_of(classes: Sequence[str]) -> list[list[Meaning]]:
    """Return for each class the meanings that it may have: that of its place where the model's
    classes are ImageNet-1k's in order.
    """
    meanings = _meanings()
    by_name: dict[str, list[Meaning]] = {}
    for meaning in meanings.values():
        for name in {name_key(word) for word in (meaning.wnid, *meaning.names)}:
            by_name.setdefault(name, []).append(meaning)
    found = [
        _distinct(one for part in _parts(name) for one in by_name.get(name_key(part), []))
        for name in classes
    ]
    in_order = [meaning for meaning in meanings.values() if meaning.is_class]
    if len(classes) == len(in_order) and sum(
        one in some for one, some in zip(in_order, found, strict=True)
    ) >= 0.9 * len(classes):
        return [[one] for one in in_order]
    return [[one for one in some if one.is_class] or some for some in found]


def _distinct(found: Iterable[Meaning]) -> list[Meaning]:
    return list({one.wnid: one for one in found}.values())


def _parts(name: str) -> list[str]:
    """Return the names of a class that its model has with commas between."""
    return [part.strip() for part in name.split(",") if part.strip()]


def class_levels(name: str, meanings: Sequence[Meaning]) -> list[list[Word]]:
    """Return the words of a class, then level by level those above it; of several meanings, only
    what is above all of them.
    """
    own = [name, *_parts(name)]
    if not meanings:
        return [[Word(one) for one in own], [Word(_head_noun(part)) for part in _parts(name)]]
    if len(meanings) == 1:
        own += [meanings[0].wnid, *meanings[0].names]
    far = [_distances(one) for one in meanings]
    shared: dict[int, list[Word]] = {}
    for wnid in sorted(set.intersection(*(set(one) for one in far))):
        shared.setdefault(max(one[wnid] for one in far), []).extend(_words_of(_meanings()[wnid]))
    return [[Word(one) for one in own], *(shared[distance] for distance in sorted(shared))]


def _words_of(meaning: Meaning) -> Iterator[Word]:
    """Yield the words of a meaning that is above a class."""
    first = name_key(meaning.names[0])
    for name in meaning.names:
        if SELDOM.get(meaning.wnid) != name_key(name):
            yield Word(
                name, 1 if name_key(name) == first or first.endswith(f" {name_key(name)}") else 2
            )


def _distances(meaning: Meaning) -> dict[str, int]:
    """Return how far each meaning above is by the longest way, so that one above another is
    farther: a whippet is a dog, then an animal.
    """
    found: dict[str, int] = {}
    level, steps = set(meaning.above), 1
    while level:
        found |= dict.fromkeys(level, steps)
        level = {above for wnid in level for above in _meanings()[wnid].above}
        steps += 1
    return found


def _head_noun(name: str) -> str:
    """Return the word that a name is about: the last, or that before "of" ("cup of coffee")."""
    words = name.replace("_", " ").split()
    return words[words.index("of") - 1] if "of" in words[1:] else words[-1]


# -- Which class of a supervised model is which label ----------------------------------------------

NONE = "-"  # of a file: the class is no label
SIGN = " = "
_LEVELS = " > "
_HEAD = "# which class of the model is which label; - is none of them\n"


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The classes of a model, in its order, and for each the name of its label, or None."""

    classes: tuple[str, ...]
    labels: tuple[str | None, ...]

    def columns(self, names: Sequence[str]) -> list[list[int]]:
        """Return the places of each label's classes, in the order of ``names``; raises QueryError
        for a label of the map that is none.
        """
        found: dict[str, list[int]] = {name: [] for name in names}
        for place, label in enumerate(self.labels):
            if label is not None and label not in found:
                raise QueryError(
                    f"the class map gives {self.classes[place]!r} the label {label!r}, which is "
                    "none: make it anew"
                )
            if label is not None:
                found[label].append(place)
        return list(found.values())


def derive_class_map(classes: Sequence[str], labels: Sequence[str | Label]) -> ClassMap:
    """Return which class is which label, by its names, its synonyms and the meanings above it; the
    nearest wins.

    A label is meant by its name (the last level) and by its words, in any case, singular or plural:
    "dog" takes all breeds, and where "poodle" is a label too, poodles go there. Synonyms and
    meanings are WordNet's, of the classes that are ImageNet-1k's under any of their names or their
    WNIDs; other classes have their own names, with commas between, and then their head noun
    ("sports car" is a car). A meaning above is meant by its first name ("house": palaces) or a
    short form of it ("musical instrument": instrument); its other names ("theater, house": cinemas)
    count only where no class is below a meaning of that first name. What people seldom mean by a
    word (`SELDOM`) does not count: the bank of "piggy bank", the plant that is a factory, the car
    of a railway. Of two labels that are equally near, that whose upper levels ("bird > crane") are
    above the class wins, or else the first. Raises QueryError as `parse_labels` does.
    """
    wanted = _Wanted(parse_labels(labels))
    levels = [
        class_levels(name, known) for name, known in zip(classes, meanings_of(classes), strict=True)
    ]
    best = wanted.best_ranks(levels)
    return ClassMap(tuple(classes), tuple(wanted.nearest(one, best) for one in levels))


def label_called(name: str, labels: Sequence[Label]) -> str | None:
    """Return the label of this name, or else the first of which it is the last level or a word, in
    any case, singular or plural.
    """
    return (
        name
        if name in {label.name for label in labels}
        else _Wanted(labels).nearest([[Word(name)]], {})
    )


def write_class_map(file: str | os.PathLike[str], found: ClassMap) -> None:
    """Write ``class = label`` a line, in order of class, aside and then renamed; raises
    VitsearchError.
    """
    lines = (
        f"{_one_line(name)}{SIGN}{label or NONE}\n"
        for name, label in zip(found.classes, found.labels, strict=True)
    )
    write_page(Path(file), (_HEAD + "".join(lines)).encode("utf-8", "surrogateescape"), "class map")


def read_class_map(
    file: str | os.PathLike[str], classes: Sequence[str], labels: Sequence[str | Label]
) -> ClassMap:
    """Return the class map of a file; a class that is not in it is no label.

    Of several classes of one name, the lines hold in their order, and one line alone holds for all.
    Raises QueryError for a file that was made for other labels, and with the number of the line
    that names an unknown class or label, or a class once too often.
    """
    names = {label.name for label in parse_labels(labels)}
    places: dict[str, list[int]] = {}
    for place, name in enumerate(classes):
        places.setdefault(_one_line(name), []).append(place)
    told: dict[str, list[str | None]] = {}
    lines: dict[str, int] = {}
    for number, text in _lines(Path(file)):
        name, sign, label = (part.strip() for part in text.rpartition(SIGN))
        if text.startswith("#") and name not in places:
            continue
        if problem := _problem(name if sign else "", label, places, told):
            raise QueryError(f"{file}, line {number}: {problem}")
        told.setdefault(name, []).append(None if label == NONE else label)
        lines.setdefault(label, number)
    _check_labels(file, names, lines)
    found: list[str | None] = [None] * len(classes)
    for name, given in told.items():
        for place, label_or_none in zip(
            places[name], given * len(places[name]) if len(given) == 1 else given, strict=False
        ):
            found[place] = label_or_none
    return ClassMap(tuple(classes), tuple(found))


def _check_labels(file: str | os.PathLike[str], names: set[str], lines: Mapping[str, int]) -> None:
    """Raise QueryError for labels that are not asked for, which stand on these lines."""
    given = [label for label in lines if label != NONE]
    unknown = [label for label in given if label not in names]
    asked = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
    if len(unknown) > 1 or (unknown and unknown == given):
        theirs = ", ".join(given[:5]) + (", ..." if len(given) > 5 else "")
        raise QueryError(
            f"the class map {file} was made for other labels ({theirs}): name a new file for "
            f"{asked}"
        )
    if unknown:
        raise QueryError(
            f"{file}, line {lines[unknown[0]]}: there is no label {unknown[0]!r}: write one of "
            f"{asked}, or - for none; if the file was made for other labels, name a new file"
        )


def _problem(
    name: str, label: str, places: dict[str, list[int]], told: dict[str, list[str | None]]
) -> str | None:
    """Return what is wrong with a line, or None."""
    if not name or not label:
        return "it is not of the form class = label: write - for no label"
    if name not in places:
        return (
            f"the model has no class {name!r}: its classes are {', '.join(list(places)[:3])}, ..."
        )
    if len(told.get(name, [])) == len(places[name]):
        return f"the class {name!r} is there already: keep one line"
    return None


def _lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank and their numbers; raises QueryError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise QueryError(
            f"cannot read the class map {file} ({error.strerror}): check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise QueryError(
            f"the class map {file} is not UTF-8 text ({error.reason} at byte {error.start}): save "
            "it as UTF-8"
        ) from error
    return [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _one_line(name: str) -> str:
    return " ".join(name.split())


# -- words -----------------------------------------------------------------------------------------


_Levels = Sequence[Sequence[Word]]
_Ranks = Mapping[tuple[str, str], int]


class _Wanted:
    """The labels by the words that mean them."""

    def __init__(self, labels: Sequence[Label]) -> None:
        self._levels = {
            label.name: frozenset(map(name_key, label.name.split(_LEVELS)[:-1])) for label in labels
        }
        self._exact: dict[str, dict[tuple[str, str], None]] = {}
        self._singular: dict[str, dict[tuple[str, str], None]] = {}
        for label in labels:
            for word in (label.name.split(_LEVELS)[-1], *label.words):
                self._exact.setdefault(name_key(word), {})[label.name, name_key(word)] = None
                for one in singulars(name_key(word)):
                    self._singular.setdefault(one, {})[label.name, name_key(word)] = None
        self._order = {label.name: place for place, label in enumerate(labels)}

    def best_ranks(self, classes: Sequence[_Levels]) -> _Ranks:
        """Return how well each word of a label is met above any class, by (label, word)."""
        found: dict[tuple[str, str], int] = {}
        for word in {word for levels in classes for level in levels for word in level if word.rank}:
            for meant, rank in self._met(word):
                found[meant] = min(rank, found.get(meant, rank))
        return found

    def nearest(self, levels: _Levels, best: _Ranks) -> str | None:
        """Return the label of the first level of words that has one."""
        for level in levels:
            if met := {
                meant[0]
                for word in level
                for meant, rank in self._met(word)
                if rank in (0, best.get(meant))
            }:
                above = {name_key(word.text) for level in levels for word in level}
                return min(
                    met, key=lambda label: (-len(self._levels[label] & above), self._order[label])
                )
        return None

    def _met(self, word: Word) -> Iterator[tuple[tuple[str, str], int]]:
        """Yield the words of labels that a class's word is, and how well: but for its own, a plural
        is met less than what is equal.
        """
        key = name_key(word.text)
        for meant in self._exact.get(key, ()):
            yield meant, word.rank
        for meant in (
            *self._singular.get(key, ()),
            *(meant for one in singulars(key) for meant in self._exact.get(one, ())),
        ):
            yield meant, word.rank and word.rank + 2


# -- logits ----------------------------------------------------------------------------------------


def label_logits(
    logits: NDArray[np.floating], columns: Sequence[Sequence[int]], activation: Activation
) -> NDArray[np.float64]:
    """Return the labels' logits ``(n, labels)`` of the classes' ``(n, classes)``; a label without a
    class has minus infinity.

    With "softmax", probabilities among the labels are those of their classes summed and divided by
    the sum of all labels'; classes that stand by themselves ("sigmoid") count by the highest.
    """
    either = np.logaddexp.reduce if activation == "softmax" else np.maximum.reduce
    wide = np.asarray(logits, dtype=np.float64)
    out = np.full((len(wide), len(columns)), -np.inf)
    for label, places in enumerate(columns):
        if places:
            out[:, label] = either(wide[:, places], axis=1)
    return out

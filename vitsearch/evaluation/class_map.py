"""Which class of a supervised model belongs to which label: derived, or read from a file."""

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
from vitsearch.outputs import write_page
from vitsearch.types import LEVEL_SEPARATOR, Activation

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
# meanings above ImageNet-1k's classes that people seldom have in mind when they use this word
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
    """A word of a class, and its rank.

    0 is a word of the class itself; of the words of a meaning above it, 1 is its first name and the
    short forms of that, 2 any other.
    """

    text: str
    rank: int = 0


@lru_cache(maxsize=16_384)
def name_key(text: str) -> str:
    """Return a name in lower case, its words separated by spaces, without an article."""
    words = text.casefold().replace("_", " ").replace("-", " ").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def singulars(key: str) -> list[str]:
    """Return the names of which this one may be the plural."""
    front, _, last = key.rpartition(" ")
    results = [_PLURALS[last]] if last in _PLURALS else []
    if len(last) > 3 and last.endswith("s") and not last.endswith(("ss", "us", "is")):
        results.append(last[:-1])
        has_es = last.endswith(("ches", "shes", "sses", "xes", "zes", "uses", "oes"))
        results += [last[:-2]] if has_es else []
        results += [last[:-3] + "y"] if last.endswith("ies") else []
        results += [last[:-3] + "f", last[:-3] + "fe"] if last.endswith("ves") else []
    return [f"{front} {form}".strip() for form in results]


# -- What the names of a model's classes mean ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """A meaning of WordNet: its WNID, its names, the class's first, and the WNIDs above it."""

    wnid: str
    names: tuple[str, ...]
    above: tuple[str, ...]
    is_class: bool


@cache
def _meanings() -> dict[str, Meaning]:
    """Return WordNet's meanings of ImageNet-1k's classes, in order, and those above, by WNID."""
    meanings = {}
    for line in IMAGENET.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            wnid, name, words, above = line.split("\t")
            names = (*([name] if name else []), *words.split("|"))
            meanings[wnid] = Meaning(wnid, names, tuple(above.split()), bool(name))
    return meanings


def meanings_of(classes: Sequence[str]) -> list[list[Meaning]]:
    """Return for each class the meanings that it may have.

    Where the model's classes are ImageNet-1k's in order, its position decides.
    """
    meanings = _meanings()
    by_name: dict[str, list[Meaning]] = {}
    for meaning in meanings.values():
        for name in {name_key(word) for word in (meaning.wnid, *meaning.names)}:
            by_name.setdefault(name, []).append(meaning)
    candidates = [
        _distinct(meaning for part in _parts(name) for meaning in by_name.get(name_key(part), []))
        for name in classes
    ]
    in_order = [meaning for meaning in meanings.values() if meaning.is_class]
    if len(classes) == len(in_order):
        pairs = zip(in_order, candidates, strict=True)
        if sum(meaning in options for meaning, options in pairs) >= 0.9 * len(classes):
            return [[meaning] for meaning in in_order]
    return [
        [meaning for meaning in options if meaning.is_class] or options for options in candidates
    ]


def _distinct(meanings: Iterable[Meaning]) -> list[Meaning]:
    return list({meaning.wnid: meaning for meaning in meanings}.values())


def _parts(name: str) -> list[str]:
    """Return the names of a class, which its model separates by commas."""
    return [part.strip() for part in name.split(",") if part.strip()]


def class_levels(name: str, meanings: Sequence[Meaning]) -> list[list[Word]]:
    """Return the words of a class, then level by level those above it.

    Of several meanings, only what is above all of them counts.
    """
    names = [name, *_parts(name)]
    if not meanings:
        return [[Word(item) for item in names], [Word(_head_noun(part)) for part in _parts(name)]]
    if len(meanings) == 1:
        names += [meanings[0].wnid, *meanings[0].names]
    far = [_distances(item) for item in meanings]
    shared: dict[int, list[Word]] = {}
    for wnid in sorted(set.intersection(*(set(item) for item in far))):
        shared.setdefault(max(item[wnid] for item in far), []).extend(_words_of(_meanings()[wnid]))
    return [[Word(item) for item in names], *(shared[distance] for distance in sorted(shared))]


def _words_of(meaning: Meaning) -> Iterator[Word]:
    """Yield the words of a meaning that is above a class."""
    first = name_key(meaning.names[0])
    for name in meaning.names:
        if SELDOM.get(meaning.wnid) != name_key(name):
            yield Word(
                name, 1 if name_key(name) == first or first.endswith(f" {name_key(name)}") else 2
            )


def _distances(meaning: Meaning) -> dict[str, int]:
    """Return the longest distance to each meaning above, by WNID.

    A meaning above another is thereby farther: a whippet is a dog, then an animal.
    """
    distances: dict[str, int] = {}
    level, steps = set(meaning.above), 1
    while level:
        distances |= dict.fromkeys(level, steps)
        level = {above for wnid in level for above in _meanings()[wnid].above}
        steps += 1
    return distances


def _head_noun(name: str) -> str:
    """Return the head noun of a name: its last word, or that before "of" ("cup of coffee")."""
    words = name.replace("_", " ").split()
    return words[words.index("of") - 1] if "of" in words[1:] else words[-1]


# -- The class map ---------------------------------------------------------------------------------

NONE = "-"  # in a file: the class has no label
SIGN = " = "
_HEAD = "# which class of the model is which label; - is none of them\n"


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The classes of a model, in its order, and for each the name of its label, or None."""

    classes: tuple[str, ...]
    labels: tuple[str | None, ...]

    def columns(self, names: Sequence[str]) -> list[list[int]]:
        """Return the positions of each label's classes, in the order of ``names``.

        Raises QueryError for a label of the map that is not among them.
        """
        members: dict[str, list[int]] = {name: [] for name in names}
        for i, label in enumerate(self.labels):
            if label is not None and label not in members:
                raise QueryError(
                    f"the class map gives {self.classes[i]!r} the label {label!r}, which is "
                    "none: make it anew"
                )
            if label is not None:
                members[label].append(i)
        return list(members.values())


def derive_class_map(classes: Sequence[str], labels: Sequence[str | Label]) -> ClassMap:
    """Return the label of each class, by its names, its synonyms and the meanings above it.

    The nearest label wins. A label matches by its name (the last level) and by its words, in any
    case, singular or plural: "dog" takes all breeds, and where "poodle" is a label too, poodles go
    there. Synonyms and meanings are WordNet's, for the classes that are ImageNet-1k's under any of
    their names or their WNIDs; other classes have their own names, separated by commas, and then
    their head noun ("sports car" is a car). A meaning above is matched by its first name ("house":
    palaces) or a short form of it ("musical instrument": instrument); its other names ("theater,
    house": cinemas) count only where no class is below a meaning of that first name. What people
    seldom mean by a word (`SELDOM`) does not count: the bank of "piggy bank", the plant that is a
    factory, the car of a railway. Of two labels that are equally near, that whose upper levels
    ("bird > crane") are above the class wins, or else the first. Raises QueryError as
    `parse_labels` does.
    """
    matcher = _LabelMatcher(parse_labels(labels))
    levels = [
        class_levels(name, known) for name, known in zip(classes, meanings_of(classes), strict=True)
    ]
    best = matcher.best_ranks(levels)
    return ClassMap(tuple(classes), tuple(matcher.nearest(words, best) for words in levels))


def label_called(name: str, labels: Sequence[Label]) -> str | None:
    """Return the label of this name, or else the first that matches it, or None.

    A label matches by its last level or a word, in any case, singular or plural.
    """
    if name in {label.name for label in labels}:
        return name
    return _LabelMatcher(labels).nearest([[Word(name)]], {})


def write_class_map(file: str | os.PathLike[str], class_map: ClassMap) -> None:
    """Write lines ``class = label`` in order of class, aside and then renamed.

    Raises VitsearchError.
    """
    lines = (
        f"{_one_line(name)}{SIGN}{label or NONE}\n"
        for name, label in zip(class_map.classes, class_map.labels, strict=True)
    )
    write_page(Path(file), (_HEAD + "".join(lines)).encode("utf-8", "surrogateescape"), "class map")


def read_class_map(
    file: str | os.PathLike[str], classes: Sequence[str], labels: Sequence[str | Label]
) -> ClassMap:
    """Return the class map of a file; a class that is not in it has no label.

    For several classes of the same name, the lines apply in their order, and a single line applies
    to all of them. Raises QueryError for a file that was made for other labels, and with the number
    of the line that names an unknown class or label, or a class once too often.
    """
    names = {label.name for label in parse_labels(labels)}
    positions: dict[str, list[int]] = {}
    for i, name in enumerate(classes):
        positions.setdefault(_one_line(name), []).append(i)
    labels_by_class: dict[str, list[str | None]] = {}
    lines: dict[str, int] = {}
    for number, text in _lines(Path(file)):
        name, sign, label = (part.strip() for part in text.rpartition(SIGN))
        if text.startswith("#") and name not in positions:
            continue
        if problem := _problem(name if sign else "", label, positions, labels_by_class):
            raise QueryError(f"{file}, line {number}: {problem}")
        labels_by_class.setdefault(name, []).append(None if label == NONE else label)
        lines.setdefault(label, number)
    _check_labels(file, names, lines)
    mapped: list[str | None] = [None] * len(classes)
    for name, stored in labels_by_class.items():
        each = stored * len(positions[name]) if len(stored) == 1 else stored
        for i, label_or_none in zip(positions[name], each, strict=False):
            mapped[i] = label_or_none
    return ClassMap(tuple(classes), tuple(mapped))


def _check_labels(file: str | os.PathLike[str], names: set[str], lines: Mapping[str, int]) -> None:
    """Raise QueryError for labels, by their line, that are not among ``names``."""
    used = [label for label in lines if label != NONE]
    unknown = [label for label in used if label not in names]
    expected = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
    if len(unknown) > 1 or (unknown and unknown == used):
        foreign = ", ".join(used[:5]) + (", ..." if len(used) > 5 else "")
        raise QueryError(
            f"the class map {file} was made for other labels ({foreign}): name "
            f"a new file for {expected}"
        )
    if unknown:
        raise QueryError(
            f"{file}, line {lines[unknown[0]]}: there is no label {unknown[0]!r}: write one of "
            f"{expected}, or - for none; if the file was made for other labels, name a new file"
        )


def _problem(
    name: str,
    label: str,
    positions: dict[str, list[int]],
    labels_by_class: dict[str, list[str | None]],
) -> str | None:
    """Return what is wrong with a line, or None."""
    if not name or not label:
        return "it is not of the form class = label: write - for no label"
    if name not in positions:
        first = ", ".join(list(positions)[:3])
        return f"the model has no class {name!r}: its classes are {first}, ..."
    if len(labels_by_class.get(name, [])) == len(positions[name]):
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
            f"the class map {file} is not UTF-8 text ({error.reason} at byte "
            f"{error.start}): save it as UTF-8"
        ) from error
    return [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _one_line(name: str) -> str:
    return " ".join(name.split())


# -- Matching words of classes and labels ----------------------------------------------------------

_Levels = Sequence[Sequence[Word]]
_Ranks = Mapping[tuple[str, str], int]


class _LabelMatcher:
    """Finds labels by the words that match them."""

    def __init__(self, labels: Sequence[Label]) -> None:
        paths = {label.name: label.name.split(LEVEL_SEPARATOR) for label in labels}
        self._levels = {name: frozenset(map(name_key, path[:-1])) for name, path in paths.items()}
        self._exact: dict[str, dict[tuple[str, str], None]] = {}
        self._singular: dict[str, dict[tuple[str, str], None]] = {}
        for label in labels:
            for word in (paths[label.name][-1], *label.words):
                self._exact.setdefault(name_key(word), {})[label.name, name_key(word)] = None
                for singular in singulars(name_key(word)):
                    self._singular.setdefault(singular, {})[label.name, name_key(word)] = None
        self._order = {label.name: number for number, label in enumerate(labels)}

    def best_ranks(self, classes: Sequence[_Levels]) -> _Ranks:
        """Return the best rank at which each word of a label matches above any class.

        The keys are (label, word).
        """
        best: dict[tuple[str, str], int] = {}
        for word in {word for levels in classes for level in levels for word in level if word.rank}:
            for target, rank in self._matches(word):
                best[target] = min(rank, best.get(target, rank))
        return best

    def nearest(self, levels: _Levels, best: _Ranks) -> str | None:
        """Return the label of the first level of words that has one."""
        for level in levels:
            if met := {
                target[0]
                for word in level
                for target, rank in self._matches(word)
                if rank in (0, best.get(target))
            }:
                above = {name_key(word.text) for level in levels for word in level}
                return min(
                    met, key=lambda label: (-len(self._levels[label] & above), self._order[label])
                )
        return None

    def _matches(self, word: Word) -> Iterator[tuple[tuple[str, str], int]]:
        """Yield the words of labels that a class's word matches, (label, word), and the rank.

        Except for the class's own words, a plural ranks below an equal word.
        """
        key = name_key(word.text)
        for target in self._exact.get(key, ()):
            yield target, word.rank
        for target in (
            *self._singular.get(key, ()),
            *(target for singular in singulars(key) for target in self._exact.get(singular, ())),
        ):
            yield target, word.rank and word.rank + 2


# -- Logits of labels ------------------------------------------------------------------------------


def label_logits(
    logits: NDArray[np.floating], columns: Sequence[Sequence[int]], activation: Activation
) -> NDArray[np.float64]:
    """Return the labels' logits ``(n, labels)`` from those of the classes ``(n, classes)``.

    A label without a class has minus infinity. With "softmax", the probabilities of a label's
    classes are summed and divided by the sum of all labels'; of independent classes ("sigmoid") the
    highest counts.
    """
    either = np.logaddexp.reduce if activation == "softmax" else np.maximum.reduce
    wide = np.asarray(logits, dtype=np.float64)
    out = np.full((len(wide), len(columns)), -np.inf)
    for label, members in enumerate(columns):
        if members:
            out[:, label] = either(wide[:, members], axis=1)
    return out

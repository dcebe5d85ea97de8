"""What the names of a model's classes mean: their words, and WordNet's meanings of ImageNet-1k's classes and those above them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

IMAGENET = Path(__file__).parents[1] / "imagenet_classes.tsv"
_PLURALS = {"men": "man", "women": "woman", "people": "person", "children": "child", "mice": "mouse", "geese": "goose", "feet": "foot"}
SELDOM = {  # meanings above ImageNet-1k's classes that are not what people mean by this word of a photo
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
    """A word that a class has: 0 for its own, of a meaning above 1 for the first name and its short forms, 2 for another."""

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
        found += [last[:-2]] if last.endswith(("ches", "shes", "sses", "xes", "zes", "uses", "oes")) else []
        found += [last[:-3] + "y"] if last.endswith("ies") else []
        found += [last[:-3] + "f", last[:-3] + "fe"] if last.endswith("ves") else []
    return [f"{front} {one}".strip() for one in found]


# -- meanings -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """A line of the file: a WNID, its names (that of the class first), and the WNIDs right above it."""

    wnid: str
    names: tuple[str, ...]
    above: tuple[str, ...]
    is_class: bool


@cache
def _meanings() -> dict[str, Meaning]:
    """Return WordNet's meanings of ImageNet-1k's classes, in order, and those above them, by WNID."""
    rows = [line.split("\t") for line in IMAGENET.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {
        wnid: Meaning(wnid, (*([name] if name else []), *words.split("|")), tuple(above.split()), bool(name))
        for wnid, name, words, above in rows
    }


def meanings_of(classes: Sequence[str]) -> list[list[Meaning]]:
    """Return for each class the meanings that it may have: that of its place where the model's classes are ImageNet-1k's in order."""
    meanings = _meanings()
    by_name: dict[str, list[Meaning]] = {}
    for meaning in meanings.values():
        for name in {name_key(word) for word in (meaning.wnid, *meaning.names)}:
            by_name.setdefault(name, []).append(meaning)
    found = [_distinct(one for part in _parts(name) for one in by_name.get(name_key(part), [])) for name in classes]
    in_order = [meaning for meaning in meanings.values() if meaning.is_class]
    if len(classes) == len(in_order) and sum(one in some for one, some in zip(in_order, found, strict=True)) >= 0.9 * len(classes):
        return [[one] for one in in_order]
    return [[one for one in some if one.is_class] or some for some in found]


def _distinct(found: Iterable[Meaning]) -> list[Meaning]:
    return list({one.wnid: one for one in found}.values())


def _parts(name: str) -> list[str]:
    """Return the names of a class that its model has with commas between."""
    return [part.strip() for part in name.split(",") if part.strip()]


def class_levels(name: str, meanings: Sequence[Meaning]) -> list[list[Word]]:
    """Return the words of a class, then level by level those above it; of several meanings, only what is above all of them."""
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
            yield Word(name, 1 if name_key(name) == first or first.endswith(f" {name_key(name)}") else 2)


def _distances(meaning: Meaning) -> dict[str, int]:
    """Return how far each meaning above is by the longest way, so that one above another is farther: a whippet is a dog, then an animal."""
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

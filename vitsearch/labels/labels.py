"""What a person writes as labels: names, synonyms, and names below names.

cat = kitten | tabby          the prompts of cat, kitten and tabby are averaged; the answer is "cat"
keep := a sharp photo         the prompts say "a sharp photo" and nothing else; the answer is "keep"
animal > dog = puppy          a dog is an animal; the answer is the path "animal > dog"
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from vitsearch.arrays import Vectors
from vitsearch.errors import QueryError
from vitsearch.types import LEVEL_SEPARATOR

NOTHING = "none of these"
_LEVEL = re.compile(r"(?<!\S)>(?!\S)")  # signs stand by themselves: "E=mc2" is a name
_SIGN = re.compile(r"(?<!\S)(:?=)(?!\S)")


@dataclass(frozen=True, slots=True)
class Label:
    """One label: its name, with `` > `` between the levels, and the words of its prompts."""

    name: str
    words: tuple[str, ...]


def parse_labels(labels: Sequence[str | Label]) -> tuple[Label, ...]:
    """Return the labels, parsed.

    Raises QueryError for no label, an empty or a repeated one, or one with an empty part.
    """
    if isinstance(labels, str):
        raise QueryError(f"labels are a list of strings, not one string: [{labels!r}, ...]")
    parsed = tuple(label if isinstance(label, Label) else _parse(label) for label in labels)
    if not parsed:
        raise QueryError("there is no label: give at least two, such as --labels 'cat,dog'")
    names = [label.name for label in parsed]
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise QueryError(f"a label is given twice: {', '.join(doubled[:5])}: give each once")
    if NOTHING in names:
        raise QueryError(
            f"the label {NOTHING!r} is kept for the background class: name yours otherwise"
        )
    return _disambiguated(parsed)


def _parse(text: str) -> Label:
    name, sign, words = (*_SIGN.split(text, maxsplit=1), "", "")[:3]
    levels = [level.strip() for level in _LEVEL.split(name)]
    synonyms = [word.strip() for word in words.split("|")] if sign else []
    if not text.strip():
        raise QueryError("a label is empty: take out the doubled comma or the blank entry")
    if not all(levels) or not all(synonyms):
        raise QueryError(
            f"the label {text.strip()!r} has an empty part: write 'animal > cat = kitten | tabby'"
        )
    prompted = synonyms if sign == ":=" else [levels[-1], *synonyms]
    return Label(LEVEL_SEPARATOR.join(levels), tuple(dict.fromkeys(prompted)))


def _disambiguated(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Return the labels, those that would share their prompts with the parent's name added.

    An example is "crane", the bird and the machine.
    """
    counts = Counter(label.words for label in labels)
    return tuple(_with_parent(label) if counts[label.words] > 1 else label for label in labels)


def _with_parent(label: Label) -> Label:
    parent, separator, _ = label.name.rpartition(LEVEL_SEPARATOR)
    if not separator:
        return label
    kind = parent.rpartition(LEVEL_SEPARATOR)[2]
    return Label(label.name, tuple(f"{word}, a kind of {kind}" for word in label.words))


def _below(parent: str, level: str) -> str:
    return f"{parent}{LEVEL_SEPARATOR}{level}"


class Tree:
    """The levels of a list of labels: a probability for every name at and above them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._children: dict[str, dict[str, list[int]]] = {}
        for position, name in enumerate(names):
            path = list(accumulate(name.split(LEVEL_SEPARATOR), _below))
            for parent, child in pairwise(["", *path]):
                self._children.setdefault(parent, {}).setdefault(child, []).append(position)

    @property
    def is_flat(self) -> bool:
        """Whether no label is below another."""
        return len(self._children) <= 1

    def descend(self, probabilities: Vectors, at_least: float) -> tuple[str, float] | None:
        """Return the deepest name that is at least this probable, and its probability, or None.

        The way down is by the most probable child. ``probabilities`` are those of the labels
        ``(classes,)``; that of a name above labels is the sum of theirs.
        """
        deepest, parent, positions = None, "", list(range(len(self.names)))
        while children := self._below(parent, positions):
            name, members = max(
                children.items(), key=lambda child: float(probabilities[child[1]].sum())
            )
            probability = min(1.0, float(probabilities[members].sum()))
            if probability < at_least:
                break
            deepest = (name, probability)
            if name == parent:
                break
            parent, positions = name, members
        return deepest

    def _below(self, name: str, positions: list[int]) -> Mapping[str, list[int]]:
        """Return the children of a name; a label with labels below it is a child of itself too."""
        children = self._children.get(name, {})
        itself = [position for position in positions if self.names[position] == name]
        return {**children, name: itself} if children and itself else children

"""What a person writes as labels: names, synonyms, and names below names.

cat = kitten | tabby          the prompts of cat, kitten and tabby are averaged; the answer is "cat"
keep := a sharp photo         the prompts say "a sharp photo" and nothing else; the answer is "keep"
animal > dog = puppy          a dog is an animal; the answer is the path "animal > dog"
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitsearch.arrays import Vectors
from vitsearch.errors import QueryError

NOTHING = "none of these"
BELOW = " > "
_LEVEL = re.compile(r"(?<!\S)>(?!\S)")  # signs stand by themselves: "E=mc2" is a name
_SIGN = re.compile(r"(?<!\S)(:?=)(?!\S)")


@dataclass(frozen=True, slots=True)
class Label:
    """One label: the name of the answer, with `` > `` between the levels, and what
    its prompts say.
    """

    name: str
    words: tuple[str, ...]


def parse_labels(labels: Sequence[str | Label]) -> tuple[Label, ...]:
    """Return the labels; raises QueryError for none, an empty or a doubled one, or one with an
    empty part.
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
    return _tell_apart(parsed)


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
    said = synonyms if sign == ":=" else [levels[-1], *synonyms]
    return Label(BELOW.join(levels), tuple(dict.fromkeys(said)))


def _tell_apart(labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Say the parent of labels that would otherwise have the same prompts ("crane" of birds and of
    machines).
    """
    said = Counter(label.words for label in labels)
    return tuple(_with_parent(label) if said[label.words] > 1 else label for label in labels)


def _with_parent(label: Label) -> Label:
    parent, below, _ = label.name.rpartition(BELOW)
    if not below:
        return label
    return Label(
        label.name,
        tuple(f"{word}, a kind of {parent.rpartition(BELOW)[2] or parent}" for word in label.words),
    )


class Tree:
    """The levels of a list of labels: a probability for every name at and above them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._children: dict[str, dict[str, list[int]]] = {}
        for place, name in enumerate(names):
            levels = name.split(BELOW)
            for depth in range(len(levels)):
                parent, child = BELOW.join(levels[:depth]), BELOW.join(levels[: depth + 1])
                self._children.setdefault(parent, {}).setdefault(child, []).append(place)

    @property
    def is_flat(self) -> bool:
        """Whether no label is below another."""
        return len(self._children) <= 1

    def descend(self, chances: Vectors, at_least: float) -> tuple[str, float] | None:
        """Return the deepest name on the way down by the most probable child whose probability is
        at least this, or None.

        ``chances`` are the labels' probabilities ``(classes,)``; that of a name above labels is the
        sum of theirs.
        """
        found, above, within = None, "", list(range(len(self.names)))
        while children := self._below(above, within):
            name, places = max(children.items(), key=lambda child: float(chances[child[1]].sum()))
            chance = min(1.0, float(chances[places].sum()))
            if chance < at_least:
                break
            found = (name, chance)
            if name == above:
                break
            above, within = name, places
        return found

    def _below(self, name: str, within: list[int]) -> Mapping[str, list[int]]:
        """Return the children of a name; one that is itself a label and has labels below it is its
        own child.
        """
        children = self._children.get(name, {})
        own = [place for place in within if self.names[place] == name]
        return {**children, name: own} if children and own else children

"""From the probabilities of classes to the labels that a photo gets."""

from dataclasses import dataclass

from vitsearch.classify.labels import Tree
from vitsearch.classify.linear import Classifier
from vitsearch.errors import QueryError
from vitsearch.vectors import Vectors, squash, top_k

Answer = tuple[str, float]
SURE = 0.5  # the threshold of labels that stand by themselves, where none is given


@dataclass(frozen=True, slots=True)
class Choice:
    """Which labels a photo gets.

    ``top`` is how many at most (None: as many as reach the threshold), ``threshold`` the least probability. Where labels lie below others
    and their probabilities sum to 1, a threshold asks for the deepest name that reaches it, one a photo.
    """

    top: int | None = 1
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise QueryError(f"a threshold is a probability from 0 to 1, not {self.threshold}")


def answer(classifier: Classifier, vectors: Vectors, choice: Choice) -> list[list[Answer]]:
    """Return for each of ``(n, dim)`` vectors its labels with their probabilities, best first, equal ones in order of class."""
    logits = classifier.logits(vectors)
    chances = squash(logits, classifier.activation)
    if choice.threshold is not None and classifier.activation == "softmax":
        tree = Tree(classifier.classes)
        if not tree.is_flat:
            found = [tree.descend(row, choice.threshold) for row in chances]
            return [[one] if one else [] for one in found]
    count = len(classifier.classes) if choice.top is None else choice.top
    places = logits.argmax(axis=1)[:, None] if count == 1 else [top_k(row, count) for row in logits]
    least = choice.threshold if choice.threshold is not None else SURE if choice.top is None else 0.0
    return [
        [(classifier.classes[place], float(row[place])) for place in best if row[place] >= least]
        for row, best in zip(chances, places, strict=True)
    ]

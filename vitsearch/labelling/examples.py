"""The photos of a collection whose label a person gave."""

from vitsearch.collection import Collection
from vitsearch.truth import read_truth
from vitsearch.vectors import Vectors


def labelled_vectors(collection: Collection, source: str) -> tuple[list[str], Vectors, list[str]]:
    """Return the paths, the vectors ``(n, dim)`` and the labels of the photos that have one, in order of path.

    ``source`` is "folders" or a CSV file (see `read_truth`); raises QueryError.
    """
    photos, vectors = collection.vectors()
    truth = read_truth(source, [photo.path for photo in photos])
    kept = [place for place, photo in enumerate(photos) if photo.path in truth]
    return [photos[place].path for place in kept], vectors[kept], [truth[photos[place].path] for place in kept]

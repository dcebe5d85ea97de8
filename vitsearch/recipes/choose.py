"""The choice of an index: what each would cost for so many photos, and the first that fits.

The figures are predictions from rates measured on two cores of an AMD EPYC (`benchmarks/indexes.py`); they are for choosing and for
telling a person what to expect, not promises.
"""

from dataclasses import dataclass, replace

from vitsearch.recipes.recipe import Recipe, auto_lists, load_recipe, pq_bytes, training_rows

EXACT_UP_TO = 30_000  # photos that are compared one by one in a few milliseconds
RECALL = 0.95
ID_BYTES = 8
TRAINING_ROUNDS = 10  # of k-means
ARITHMETIC = 5.0e10  # multiplications and additions a second while building
SCAN = {"flat": 4.0e9, "ivf": 4.0e9, "ivf-sq8": 2.5e9, "disk": 1.5e9, "ivf-pq": 8.0e9, "rabitq": 2.0e10}  # dimensions a second, one query
PROBED = 24  # lists read for the default recall on clustered photos


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe with what it is predicted to need: bytes in memory, seconds to build, milliseconds a query, and why it was taken."""

    recipe: Recipe
    memory_bytes: int
    build_seconds: float
    query_ms: float
    reason: str


def choose_recipe(count: int, dim: int, *, memory: int, recall: float = RECALL, gpu: bool = False, faiss: bool = True) -> Choice:
    """Return the recipe for ``count`` photos of ``dim`` numbers that fits ``memory`` bytes, with the search to be tuned to ``recall``.

    Up to 30,000 photos, and where FAISS is missing, the search is exact. Beyond, the most precise of `ivf-sq8`, `ivf-pq` and `rabitq`
    that fits is taken (on a GPU `gpu-ivf` where that fits), and `disk` where none does.
    """
    if not faiss:
        return predict(load_recipe("flat"), count, dim, "FAISS is not installed, so every vector is compared")
    if count <= EXACT_UP_TO:
        return predict(load_recipe("flat"), count, dim, f"up to {EXACT_UP_TO:,} photos are compared one by one")
    for name in ("gpu-ivf",) * gpu + ("ivf-sq8", "ivf-pq", "rabitq"):
        choice = predict(replace(load_recipe(name), recall=recall), count, dim, f"the most precise index within {_shown(memory)}")
        if choice.memory_bytes <= memory:
            return choice
    return predict(
        replace(load_recipe("disk"), recall=recall), count, dim, f"no index fits into {_shown(memory)}, so its lists stay on disk"
    )


def predict(recipe: Recipe, count: int, dim: int, reason: str = "") -> Choice:
    """Return what a recipe is predicted to need for ``count`` photos of ``dim`` numbers."""
    kind = recipe.name.removeprefix("gpu-")
    lists = auto_lists(count) if recipe.lists == "auto" else int(recipe.lists or 0)
    memory = count * (bytes_a_vector(recipe, dim) + ID_BYTES) + lists * dim * 4
    if recipe.on_disk:
        memory = lists * dim * 4
    trained = min(count, training_rows(lists, recipe.train_size)) * TRAINING_ROUNDS * 2 * lists * dim
    build = (trained + 2.0 * count * lists * dim) / ARITHMETIC + count * dim / 2e8
    share = min(1.0, PROBED / lists) if lists else 1.0
    scan = (count * share * dim) / SCAN.get(kind, SCAN["flat"]) + lists * dim / SCAN["flat"]
    return Choice(recipe, int(memory), build, 1000 * scan, reason)


def bytes_a_vector(recipe: Recipe, dim: int) -> int:
    """Return the bytes that a recipe's code of one vector takes, without its id."""
    factory = recipe.factory or ""
    if "SQ8" in factory:
        return dim
    if "RaBitQ" in factory:
        return dim // 8 + 8
    if "{pq}" in factory:
        return pq_bytes(dim)
    links = 272 if "HNSW32" in factory else 0
    return 4 * dim + links


def _shown(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

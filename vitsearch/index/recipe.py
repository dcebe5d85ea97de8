"""Recipes: which index is built over the vectors, read from TOML files, and the choice of one.

`load_recipe` reads a recipe, `choose_recipe` picks the one that suits a collection, and `predict`
estimates what a recipe costs. No index library is needed for any of them.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vitsearch.errors import RecipeError
from vitsearch.untrusted import MAX_TOML_BYTES, parse_toml, read_bounded, reason

# an installed wheel carries the recipes inside the package, a checkout has them beside it
_PACKAGE = Path(__file__).parent.parent
_FOLDERS = (_PACKAGE / "recipes_data", _PACKAGE.parent / "indexes" / "recipes")
# with more lists, assigning the rows takes most of the build, and searches hardly gain
_MAX_LISTS = 4096
# fewer training points for each list make poor lists (FAISS warns below this)
_POINTS_PER_LIST = 39
_TRAINED_PER_LIST = 48
_MIN_TRAINED = 16_384  # for the 256 centres of a product quantiser
_SUBSPACE = 8  # the fewest numbers of a vector that one byte of a product quantiser stands for

# FAISS makes room for what a search is to hold, however few the photos
MAX_SEARCH, MAX_OVERFETCH = 1_048_576, 10_000
_COUNTS = ("nprobe", "efSearch", "k_factor", "k_factor_rf")  # search parameters from 1

EXACT_UP_TO = 30_000  # photos that are compared one by one in a few milliseconds
RECALL = 0.95
ID_BYTES = 8
TRAINING_ROUNDS = 10  # of k-means
ARITHMETIC = 5.0e10  # multiplications and additions a second while building
SCAN = {  # dimensions that one query scans a second
    "flat": 4.0e9,
    "ivf": 4.0e9,
    "ivf-sq8": 2.5e9,
    "disk": 1.5e9,
    "ivf-pq": 8.0e9,
    "rabitq": 2.0e10,
    "pq-fastscan": 3.0e10,
}
PROBED = 24  # lists read for the default recall on clustered photos

Kind = Literal["exact", "faiss", "auto"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an index is built and searched.

    ``kind`` is ``exact`` (no index library), ``faiss``, or ``auto``: one of the others, chosen when
    it is built (`choose_recipe`). ``factory`` is a FAISS factory string, in which ``{lists}``
    stands for ``lists`` (a number, or ``auto``: twice the square root of the number of photos) and
    ``{pq}`` for the bytes of a product-quantised vector (one for 8 dimensions, a divisor of them),
    ``{principal}`` for the principal directions that are kept (three in five of the dimensions) and
    ``{pairs}`` for half of them. ``search`` holds search parameters by their FAISS names; at most
    ``train_size`` rows, drawn with a fixed seed, are used for training; the index is asked for
    ``overfetch`` candidates for each result. ``on_disk`` leaves inverted lists in their file,
    ``gpu`` searches a copy on a GPU where
    there is one. ``recall`` is the recall@10 to tune the search to (0: the search parameters stay
    as they are), ``memory`` the bytes that the index may take (0: no limit; for ``auto`` a quarter
    of the machine's memory).
    """

    name: str
    kind: Kind = "faiss"
    factory: str | None = None
    search: Mapping[str, float] = field(default_factory=dict)
    lists: int | Literal["auto"] | None = None
    train_size: int = 262_144
    overfetch: int = 4
    on_disk: bool = False
    gpu: bool = False
    recall: float = 0.0
    memory: int = 0
    description: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether the results are those of an exact search over the vectors."""
        return self.kind == "exact" or self.factory in ("Flat", "IDMap,Flat", "IDMap2,Flat")

    def factory_for(self, count: int, dim: int) -> str:
        """Return the FAISS factory string for ``count`` photos of ``dim`` numbers.

        Raises RecipeError for a recipe without one.
        """
        if self.factory is None:
            raise RecipeError(
                f"recipe {self.name!r} has no factory string; give it "
                'kind = "faiss" and factory = "..."'
            )
        lists = auto_lists(count) if self.lists == "auto" else self.lists
        principal = principal_directions(dim)
        numbers = {"pq": pq_bytes(dim), "principal": principal, "pairs": principal // 2}
        factory = self.factory.replace("{lists}", str(lists))
        for name, number in numbers.items():
            factory = factory.replace(f"{{{name}}}", str(number))
        return factory

    def to_dict(self) -> dict[str, Any]:
        """Return name, kind, and what is not the default, as plain JSON and TOML types."""
        default = Recipe(self.name)
        facts: dict[str, Any] = {}
        for key in _KEYS:
            value = getattr(self, key)
            if key in ("name", "kind") or value != getattr(default, key):
                facts[key] = dict(value) if key == "search" else value
        return facts

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any], *, source: str = "recipe") -> "Recipe":
        """Return the recipe with these facts.

        Raises RecipeError, which names ``source``, for a wrong key, type or value.
        """
        problem = _problem(facts)
        if problem:
            raise RecipeError(f"{source}: {problem}")
        return cls(**facts)

    def to_toml(self) -> str:
        """Return the text of a TOML file that ``from_toml`` reads back as an equal recipe."""
        facts = self.to_dict()
        search = facts.pop("search", {})
        lines = [f"{key} = {_toml_value(value)}" for key, value in facts.items()]
        if search:
            lines += ["", "[search]"]
            lines += [f"{key} = {_toml_value(value)}" for key, value in search.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, *, source: str = "recipe") -> "Recipe":
        """Return the recipe in a TOML text.

        Raises RecipeError, which names ``source``, when the text is not a valid recipe.
        """
        try:
            facts = parse_toml(text)
        except ValueError as error:
            raise RecipeError(f"{source}: not a TOML file: {reason(error)}") from error
        return cls.from_dict(facts, source=source)


_KEYS = tuple(field.name for field in fields(Recipe))


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Return a recipe by its name (`list_recipes`) or from a TOML file.

    A ``Path``, or a string with a path separator or ending in ``.toml``, is a file. Raises
    RecipeError.
    """
    text = str(name_or_file)
    looks_like_file = "/" in text or "\\" in text or text.lower().endswith(".toml")
    if isinstance(name_or_file, Path) or looks_like_file:
        return _read_recipe(Path(text))
    known = _known_files()
    if text not in known:
        raise RecipeError(
            f"unknown recipe {text!r}; known: {', '.join(known)}; or give a TOML file, such as "
            "./my-recipe.toml"
        )
    return _read_recipe(known[text])


def list_recipes() -> list[str]:
    """Return the names of the recipes that come with vitsearch, sorted."""
    return list(_known_files())


def training_rows(lists: int, limit: int) -> int:
    """Return how many rows train an index of ``lists`` inverted lists, at most ``limit``.

    48 rows for each list train it as well as all rows do.
    """
    return min(limit, max(_MIN_TRAINED, _TRAINED_PER_LIST * lists)) if lists else limit


def auto_lists(count: int) -> int:
    """Return how many inverted lists suit ``count`` rows: twice the square root.

    Each list gets at least 39 rows, and there are at most 4,096 lists.
    """
    return max(1, min(round(2 * math.sqrt(count)), count // _POINTS_PER_LIST, _MAX_LISTS))


def pq_bytes(dim: int) -> int:
    """Return how many bytes a product quantiser uses for ``dim`` numbers.

    That is their largest divisor with at least 8 numbers to a byte.
    """
    return next((count for count in range(dim // _SUBSPACE, 0, -1) if dim % count == 0), 1)


def principal_directions(dim: int) -> int:
    """Return how many principal directions a fast-scan recipe keeps of ``dim`` numbers: three in
    five, an even number.
    """
    return max(2, min(dim, 3 * dim // 5) // 2 * 2)


@dataclass(frozen=True, slots=True)
class RecipeCost:
    """What a recipe is predicted to cost: memory, time to build, time for one query.

    ``reason`` says in one line why the recipe was chosen, "" where it was not.
    """

    recipe: Recipe
    memory_bytes: int
    build_seconds: float
    query_ms: float
    reason: str


def choose_recipe(
    count: int,
    dim: int,
    *,
    memory: int,
    recall: float = RECALL,
    gpu: bool = False,
    faiss: bool = True,
) -> RecipeCost:
    """Return the recipe for ``count`` photos of ``dim`` numbers that fits ``memory`` bytes.

    It is predicted; `IndexMaintainer` measures candidates where it can. Its search is to be tuned
    to ``recall``. Up to 30,000 photos, and where FAISS is missing, the
    search is exact. Beyond, it is the most precise of `ivf-sq8`, `ivf-pq` and `rabitq` that fits
    (with ``gpu`` `gpu-ivf` where that fits), and `disk` where none does.
    """
    if not faiss:
        reason = "FAISS is not installed, so every vector is compared"
        return predict(load_recipe("flat"), count, dim, reason)
    if count <= EXACT_UP_TO:
        reason = f"up to {EXACT_UP_TO:,} photos are compared one by one"
        return predict(load_recipe("flat"), count, dim, reason)
    reason = f"the most precise index within {_shown(memory)}"
    for name in ("gpu-ivf",) * gpu + ("ivf-sq8", "ivf-pq", "rabitq"):
        cost = predict(replace(load_recipe(name), recall=recall), count, dim, reason)
        if cost.memory_bytes <= memory:
            return cost
    reason = f"no index fits into {_shown(memory)}, so its lists stay on disk"
    return predict(replace(load_recipe("disk"), recall=recall), count, dim, reason)


def predict(recipe: Recipe, count: int, dim: int, reason: str = "") -> RecipeCost:
    """Return what a recipe is predicted to cost for ``count`` photos of ``dim`` numbers."""
    kind = recipe.name.removeprefix("gpu-")
    lists = auto_lists(count) if recipe.lists == "auto" else int(recipe.lists or 0)
    memory = count * (bytes_per_vector(recipe, dim) + ID_BYTES) + lists * dim * 4
    if recipe.on_disk:
        memory = lists * dim * 4
    trained = min(count, training_rows(lists, recipe.train_size))
    training = trained * TRAINING_ROUNDS * 2 * lists * dim
    build = (training + 2.0 * count * lists * dim) / ARITHMETIC + count * dim / 2e8
    share = min(1.0, PROBED / lists) if lists else 1.0
    scan = (count * share * dim) / SCAN.get(kind, SCAN["flat"]) + lists * dim / SCAN["flat"]
    return RecipeCost(recipe, int(memory), build, 1000 * scan, reason)


def bytes_per_vector(recipe: Recipe, dim: int) -> int:
    """Return the bytes of one vector in a recipe's index, without its id."""
    factory = recipe.factory or ""
    if "SQ8" in factory:
        return dim
    if "{pairs}" in factory:
        return -(-principal_directions(dim) // 4)
    if "RaBitQ" in factory:
        return dim // 8 + 8
    if "{pq}" in factory:
        return pq_bytes(dim)
    links = 272 if "HNSW32" in factory else 0
    return 4 * dim + links


def _known_files() -> dict[str, Path]:
    for folder in _FOLDERS:
        files = sorted(folder.glob("*.toml"))
        if files:
            return {file.stem: file for file in files}
    return {}


def _read_recipe(file: Path) -> Recipe:
    shown = ascii(str(file))[1:-1]
    try:
        text = read_bounded(file, MAX_TOML_BYTES).decode("utf-8")
    except FileNotFoundError as error:
        raise RecipeError(
            f"no recipe file {shown}; known recipes: {', '.join(_known_files())}"
        ) from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"{shown}: cannot be read as a recipe: {reason(error)}") from error
    return Recipe.from_toml(text, source=shown)


def _problem(facts: Mapping[str, Any]) -> str | None:
    unknown = sorted(set(facts) - set(_KEYS))
    if unknown:
        return f"unknown key {unknown[0]!r}; known keys: {', '.join(_KEYS)}"
    return (
        _problem_of_texts(facts)
        or _problem_of_numbers(facts)
        or _problem_of_search(facts)
        or _problem_of_lists(facts)
    )


def _problem_of_texts(facts: Mapping[str, Any]) -> str | None:
    for key in ("name", "kind", "factory", "description"):
        if key in facts and not isinstance(facts[key], str):
            return f"{key} must be a text in quotes"
    if not facts.get("name"):
        return 'a recipe needs a name, such as name = "mine"'
    kind = facts.get("kind", "faiss")
    if kind not in get_args(Kind):
        return f'kind must be "exact", "faiss" or "auto", not {kind!r}'
    if kind == "faiss" and not facts.get("factory"):
        return 'a recipe of kind "faiss" needs a factory string, such as factory = "HNSW32"'
    return None


def _problem_of_numbers(facts: Mapping[str, Any]) -> str | None:
    for key in ("train_size", "overfetch"):
        if key in facts and not _is_count(facts[key]):
            return f"{key} must be a whole number above 0"
    if facts.get("overfetch", 1) > MAX_OVERFETCH:
        return f"overfetch must be at most {MAX_OVERFETCH:,}"
    for key in ("on_disk", "gpu"):
        if not isinstance(facts.get(key, False), bool):
            return f"{key} must be true or false"
    memory, recall = facts.get("memory", 0), facts.get("recall", 0.0)
    if memory != 0 and not _is_count(memory):
        return "memory must be a whole number of bytes, or 0 for no limit"
    if isinstance(recall, bool) or not isinstance(recall, int | float) or not 0 <= recall < 1:
        return (
            "recall must be from 0 (as it comes) to below 1, such as 0.95; "
            "for 1 take the recipe flat"
        )
    return None


def _problem_of_search(facts: Mapping[str, Any]) -> str | None:
    search = facts.get("search", {})
    if not isinstance(search, Mapping):
        return "search must be a table, such as [search] with nprobe = 16 below it"
    for key, value in search.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII):
            return f"search parameter {key!r} is not a name"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            return f"search parameter {key} must be a number"
        least = 1 if key.endswith(_COUNTS) else 0
        if not least <= value <= MAX_SEARCH:
            return f"search parameter {key} must be from {least} to {MAX_SEARCH:,}"
    return None


def _problem_of_lists(facts: Mapping[str, Any]) -> str | None:
    needs_lists = "{lists}" in (facts.get("factory") or "")
    if needs_lists != ("lists" in facts):
        return (
            'lists and {lists} in the factory string go together: lists = "auto" with factory '
            '= "IVF{lists},Flat"'
        )
    if needs_lists and facts["lists"] != "auto" and not _is_count(facts["lists"]):
        return 'lists must be "auto" or a whole number above 0'
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _shown(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

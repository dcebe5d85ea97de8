"""Indexes over unit vectors: they propose candidates, the stored vectors decide. What every index
does, what a library behind one has to provide, and the factory strings of FAISS (arXiv:2401.08281),
parsed and bounded before FAISS is given one.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import RecipeError
from vitsearch.index.recipe import Recipe

MAX_LENGTH = 200  # letters
MAX_NESTING = 3  # brackets in each other
MIN_LISTS, MAX_LISTS = 4096, 1 << 21  # of any string, whatever the number of rows
MAX_TERMS = 64  # codebooks of an additive quantiser
MAX_BITS = 16
MAX_LINKS = 512  # of a node of a graph
MIN_ALLOWED = 256_000_000  # bytes, whatever the number of rows
ALLOWED_PER_BYTE = 8  # bytes for each byte of the rows in float32
LIST_BYTES = 64  # of an empty list

_PQ = r"PQ(?P<pq>\d{1,7})(x(?P<pq_bits>\d{1,3}))?(np|fsr?)?(_\d{1,4})?"
_PART = re.compile(  # one part of a string, outside brackets
    "|".join(
        [
            r"IDMap2?|L2norm|RFlat|Flat|FlatDedup|LSHr?t?",
            r"SQ(?:4|6|8|fp16|bf16|8_direct(?:_signed)?)",
            r"(?:PCA|PCAR|PCAW|PCAWR|RR|Pad|ITQ)(?P<out>\d{1,12})?",
            r"OPQ(?P<opq>\d{1,7})(?:_(?P<opq_out>\d{1,12}))?",
            r"IVF(?P<lists>\d{1,12})(?:_HNSW(?P<list_links>\d{0,7})|(?P<inner>\(.*\)))?",
            r"RCQ(?P<rcq>\d{1,3})x(?P<rcq_bits>\d{1,3})",
            _PQ,
            r"(?:RQ|LSQ)(?P<terms>\d{1,7})x(?P<bits>\d{1,3})(?:_N?\w{1,12})?",
            r"P(?:RQ|LSQ)(?P<splits>\d{1,7})x(?P<split_terms>\d{1,7})x(?P<split_bits>\d{1,3})"
            r"(?:fs)?(?:_N?\w{1,12})?",
            r"(?:HNSW|NSG)(?P<links>\d{0,7})(?:_(?:Flat|SQ8|PQ\d{1,4}(?:x\d{1,2})?(?:np)?))?",
            r"RaBitQ\d?(?:fs)?(?:_\d{1,4})?",
            r"FlatPanorama\d{1,4}",
            r"Refine(?P<refine>\(.*\))",
        ]
    ),
    re.ASCII,
)


_ZERO = re.compile(r"(?<!\d)0+(?!\d)")


@dataclass(frozen=True, slots=True)
class Factory:
    """What a factory string asks for: its inverted lists (0: none), and the bytes that its index
    takes whatever the number of its rows.
    """

    lists: int
    fixed_bytes: int


def parse_factory(factory: str, dim: int) -> Factory:
    """Return what a factory string asks for at ``dim`` dimensions.

    Raises RecipeError for one that is not of the known grammar, or whose numbers are out of all
    bounds.
    """
    try:
        if len(factory) > MAX_LENGTH:
            raise ValueError(f"it has more than {MAX_LENGTH} letters")
        return _parsed(factory, dim, MAX_NESTING)
    except ValueError as error:
        shown = factory if len(factory) <= 60 else f"{factory[:60]}..."
        raise RecipeError(
            f"FAISS does not take the factory string {shown!r} for {dim} dimensions: {error}"
        ) from error


def check_size(factory: str, dim: int, count: int) -> None:
    """Raise RecipeError where the index of a factory string, over ``count`` rows, would take far
    more memory than the rows themselves, or has many more inverted lists than there are rows.
    """
    needed = parse_factory(factory, dim)
    allowed = MIN_ALLOWED + ALLOWED_PER_BYTE * 4 * dim * count
    if needed.fixed_bytes > allowed or needed.lists > max(count, MIN_LISTS):
        raise RecipeError(
            f"the factory string {factory!r} asks for {needed.fixed_bytes / 1e6:,.0f} MB and "
            f"{needed.lists:,} lists whatever the number of photos, too much for {count:,}: use "
            'smaller numbers, or lists = "auto" with {lists} in the recipe'
        )


def smallest(factory: str) -> str:
    """Return a factory string with a single inverted list, which FAISS takes where it takes the
    given one, at no cost.
    """
    return re.sub(r"IVF\d+", "IVF1", factory)


def _parsed(factory: str, dim: int, nesting: int) -> Factory:
    """Return what the parts of a string ask for in all; raises ValueError."""
    if nesting < 0:
        raise ValueError(f"more than {MAX_NESTING} brackets in each other")
    lists = fixed = 0
    for part in _parts(factory):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"could not parse {part[:40]!r}")
        if _ZERO.search(part):  # FAISS divides by some of them
            raise ValueError(f"a number of {part[:40]!r} is 0")
        numbers = {name: int(text) for name, text in match.groupdict().items() if _is_number(text)}
        for inner in filter(None, (match["inner"], match["refine"])):
            needed = _parsed(inner[1:-1], dim, nesting - 1)
            fixed += needed.fixed_bytes
            lists += needed.lists
        out = numbers.get("out", numbers.get("opq_out", dim))
        _check(out, max(1024, 4 * dim), "dimensions")
        fixed += 4 * dim * out if part.startswith(("PCA", "RR", "ITQ", "OPQ")) else 0
        dim = out
        here = _lists(numbers)
        lists += here
        fixed += here * (LIST_BYTES + 4 * dim + 8 * numbers.get("list_links", 0))
        fixed += _codebook_bytes(numbers, dim)
    return Factory(lists, fixed)


def _is_number(text: str | None) -> bool:
    return bool(text) and str(text).isdigit()


def _lists(numbers: dict[str, int]) -> int:
    """Return the inverted lists of one part; raises ValueError for too many."""
    _check(numbers.get("links", 0), MAX_LINKS, "links")
    _check(numbers.get("list_links", 0), MAX_LINKS, "links")
    _check(numbers.get("rcq", 0) * numbers.get("rcq_bits", 0), MAX_LISTS.bit_length() - 1, "bits")
    count = numbers.get("lists", 0)
    if "rcq" in numbers:
        count = 1 << (numbers["rcq"] * numbers["rcq_bits"])
    _check(count, MAX_LISTS, "lists")
    return count


def _codebook_bytes(numbers: dict[str, int], dim: int) -> int:
    """Return the bytes of the codebooks of one part, with the products of their words."""
    _check(numbers.get("pq", 0), dim, "codes")
    _check(numbers.get("opq", 0), dim, "codes")
    bits = max(numbers.get(name, 0) for name in ("pq_bits", "bits", "split_bits"))
    _check(bits, MAX_BITS, "bits")
    if "pq" in numbers:
        return 4 * dim << numbers.get("pq_bits", 8)
    terms = numbers.get("terms", numbers.get("split_terms", 0))
    splits = numbers.get("splits", 1)
    _check(terms, MAX_TERMS, "codebooks")
    _check(splits, dim, "parts")
    words = terms << bits
    return 4 * words * dim + 2 * splits * words * words


def _check(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise ValueError(f"{number:,} {what} are more than {limit:,}")


def _parts(factory: str) -> Iterator[str]:
    """Yield what lies between the commas outside brackets; raises ValueError."""
    depth = start = 0
    for position, letter in enumerate(factory):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if not 0 <= depth <= MAX_NESTING:
            raise ValueError("its brackets do not match, or are too many in each other")
        if letter == "," and not depth:
            yield factory[start:position]
            start = position + 1
    if depth:
        raise ValueError("its brackets do not match")
    yield factory[start:]


# -- Indexes ---------------------------------------------------------------------------------------


# the files of an index folder beside its manifest
VECTORS = "vectors.f16"
IDS = "ids.i64"
FAISS = "index.faiss"
GENERATIONS = "generations.u32"  # the generation of each row, its low 32 bits
REMOVED = "removed.i64"  # in an index of changes: the ids that are no longer in the collection
LISTS = "lists.ivfdata"  # the inverted lists of a recipe with on_disk


class Candidates(NamedTuple):
    """The rows proposed for one query, best first.

    ``scores`` is ``(n,)`` float32 and ``ids`` ``(n,)`` int64, never -1.
    """

    scores: NDArray[np.float32]
    ids: Ids


@runtime_checkable
class VectorIndex(Protocol):
    """An index that proposes candidates by inner product of unit rows.

    The scores of an approximate index only order its proposals; the caller computes exact scores
    from the stored vectors.
    """

    dim: int

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def search(self, query: NDArray[Any], k: int) -> Candidates:
        """Return at most ``min(k, len(self))`` candidates for one ``(dim,)`` unit query.

        An approximate index may return fewer.
        """
        ...

    def search_batch(self, queries: NDArray[Any], k: int) -> list[Candidates]:
        """Return the candidates of each of the ``(m, dim)`` unit queries, in their order."""
        ...


class SelectiveIndex(VectorIndex, Protocol):
    """An index that may find its candidates among some rows; those on GPUs cannot."""

    def search_among(
        self, queries: NDArray[Any], k: int, allowed: NDArray[np.uint8], share: float
    ) -> list[Candidates] | None:
        """Return at most ``k`` candidates for each query among the rows whose bits, by id, are set
        in ``allowed``, a ``share`` of all; None for an index that cannot select.
        """
        ...


class IndexBackend(Protocol):
    """A library that builds, writes and opens the indexes of one kind of recipe.

    `vitsearch.index.backends` holds one for each kind.
    """

    def check(self, recipe: Recipe, dim: int) -> None:
        """Raise RecipeError where an index of ``dim`` dimensions cannot be built here."""
        ...

    def write(self, folder: Path, recipe: Recipe, vectors: Halves, ids: Ids) -> None:
        """Build the index over ``(n, dim)`` rows and their ``(n,)`` ids, and write it to a folder.

        The rows themselves are in the folder already. Raises RecipeError and OSError.
        """
        ...

    def open(self, folder: Path, recipe: Recipe) -> SelectiveIndex:
        """Return the index that `write` left in a folder.

        Raises RecipeError where it cannot be read here, so that the search has to be exact.
        """
        ...


def query_rows(queries: NDArray[Any], dim: int) -> NDArray[np.float32]:
    """Return queries as float32 rows ``(m, dim)``; raises ValueError for another shape."""
    rows = np.ascontiguousarray(queries, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ValueError(f"expected (m, {dim}) queries, got shape {rows.shape}")
    return rows

"""An index of inverted lists built in parts, each with no more memory than its codes, and merged in
files (FAISS).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import faiss as _faiss

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import RecipeError
from vitsearch.index.base import LISTS
from vitsearch.index.faiss_index import add, few_rows, make_index, named, silenced, train
from vitsearch.index.recipe import Recipe, training_rows

faiss: Any = _faiss  # its type stubs lack half of what is used here

_MAPPED_AT_ONCE = 67_108_864  # bytes of the parts that are read before their pages are let go
_GROWTH = 2  # lists in memory are vectors that double


def trains_on(recipe: Recipe, count: int, dim: int) -> int:
    """Return how many rows train the index of a recipe over ``count`` rows, 0 where so few rows are
    searched exactly.

    Raises RecipeError for a recipe that is not of inverted lists: only these can be merged.
    """
    index = make_index(recipe.factory_for(max(count, 1), dim), dim)
    if not isinstance(index, faiss.IndexIVF):
        raise RecipeError(
            f"recipe {recipe.name!r} cannot be built in parts: only inverted lists can, such "
            "as "
            "ivf-sq8 or ivf-pq"
        )
    return 0 if few_rows(count) else min(count, training_rows(int(index.nlist), recipe.train_size))


def part_bytes(recipe: Recipe, count: int, dim: int) -> int:
    """Return the bytes of memory that one row of a part takes while it is built."""
    return _GROWTH * (int(make_index(recipe.factory_for(count, dim), dim).code_size) + 8)


def train_index(file: Path, recipe: Recipe, count: int, sample: Halves) -> None:
    """Write the trained and empty index of a recipe for ``count`` rows; ``sample`` is ``(m, dim)``
    float16 unit rows.

    The file appears whole or not at all. Raises RecipeError where FAISS cannot train it.
    """
    factory = recipe.factory_for(count, sample.shape[1])
    index = make_index(factory, sample.shape[1])
    try:
        train(index, sample, len(sample))
    except RuntimeError as error:
        raise RecipeError(
            f"FAISS could not train {factory!r} on {len(sample):,} rows: "
            f"{' '.join(str(error).split())[-200:]}"
        ) from error
    _write(file, index)


def write_part(file: Path, trained: Path, batches: Iterable[tuple[Ids, Halves]]) -> int:
    """Write the trained index with the rows of some batches in it, ``(b,)`` ids and ``(b, dim)``
    float16, and return how many they are.
    """
    with named(trained) as name:
        index = faiss.read_index(name)
    for ids, rows in batches:
        add(index, rows, ids)
    _write(file, index)
    return int(index.ntotal)


def merge_parts(file: Path, trained: Path, parts: list[Path]) -> int:
    """Write the index of all parts into a file, its lists beside it, and return the number of rows.

    Each list is that of the parts, one after the other. The lists are written straight on, so that
    neither of what is read nor of what is written more than some pages are in memory.
    """
    with named(trained) as name:
        index = faiss.read_index(name)
    lists = file.parent / LISTS
    with named(lists) as name, open(lists, "wb") as out:
        merged = faiss.OnDiskInvertedLists(index.nlist, index.code_size, name)
        index.ntotal = _copy_lists(merged, parts, out)
        merged.totsize = out.tell()
        out.flush()
        os.fsync(out.fileno())
    merged.filename = (
        LISTS  # not the name by which it was opened here: the folder is the index's own
    )
    index.replace_invlists(merged, True)
    merged.this.disown()
    _write(file, index)
    return int(index.ntotal)


def _copy_lists(merged: Any, parts: list[Path], out: BinaryIO) -> int:
    """Write the codes and then the ids of each list, and note in ``merged`` where they are."""
    merged.lists.clear()
    opened: list[Any] = []
    total, copied = 0, _MAPPED_AT_ONCE
    for number in range(merged.nlist):
        if copied >= _MAPPED_AT_ONCE:
            opened, copied = [_mapped(part) for part in parts], 0
        start = out.tell()
        kept = [(part.invlists, int(part.invlists.list_size(number))) for part in opened]
        for lists, size in kept:
            out.write(
                faiss.rev_swig_ptr(lists.get_codes(number), size * merged.code_size).data
                if size
                else b""
            )
        for lists, size in kept:
            out.write(faiss.rev_swig_ptr(lists.get_ids(number), size).data if size else b"")
        one = faiss.OnDiskOneList()
        one.size = one.capacity = sum(size for _, size in kept)
        one.offset = start
        merged.lists.push_back(one)
        total, copied = total + one.size, copied + out.tell() - start
    return total


def _mapped(part: Path) -> Any:
    with named(part) as name, silenced():
        return faiss.read_index(name, faiss.IO_FLAG_MMAP)


def _write(file: Path, index: Any) -> None:
    aside = file.with_name(f"{file.name}.new")
    with open(aside, "wb") as out:
        faiss.write_index(index, faiss.PyCallbackIOWriter(out.write))
        out.flush()
        os.fsync(out.fileno())
    os.replace(aside, file)

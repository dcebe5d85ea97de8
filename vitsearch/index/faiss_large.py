"""Inverted lists of FAISS larger than the memory, built in parts and merged on disk."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import faiss as _faiss

from vitsearch.arrays import Halves, Ids
from vitsearch.errors import RecipeError
from vitsearch.index import LISTS
from vitsearch.index.faiss_files import named, silenced
from vitsearch.index.faiss_index import add, few_rows, make_index, train
from vitsearch.index.recipe import Recipe, training_rows
from vitsearch.records import atomic_file, flush

faiss: Any = _faiss  # its type stubs lack half of what is used here
_MAPPED_AT_ONCE = 67_108_864  # bytes of the parts to read before their pages are dropped
SHARD_BYTES = 268_435_456  # bytes of codes in memory while building
_GROWTH = 2  # lists in memory grow by doubling


def write_disk_index(
    folder: Path, file_name: str, recipe: Recipe, vectors: Halves, ids: Ids
) -> None:
    """Write an index of inverted lists, its lists in a file of their own beside it.

    ``vectors`` is ``(n, d)`` float16 rows, which may be memory-mapped, ``ids`` ``(n,)``; at most
    `SHARD_BYTES` of codes are in memory. Raises RecipeError for an index without inverted lists and
    OSError where the disk is full.
    """
    factory = recipe.factory_for(len(ids), vectors.shape[1])
    index = make_index(factory, vectors.shape[1], len(ids))
    if not isinstance(index, faiss.IndexIVF):
        raise RecipeError(
            f"recipe {recipe.name!r} cannot be kept on disk: only inverted lists can, such as "
            f"IVF{{lists}},SQ8"
        )
    train(index, vectors, recipe.train_size)
    step = max(1, SHARD_BYTES // (int(index.code_size) + 8))
    starts = range(0, len(ids), step)
    shards = [folder / f"shard-{number}.faiss" for number in range(len(starts))]
    for start, shard in zip(starts, shards, strict=True):
        part = faiss.clone_index(index)
        add(part, vectors[start : start + step], ids[start : start + step])
        with named(shard) as name:
            faiss.write_index(part, name)
    _merge(folder, index, shards)
    with named(folder / file_name) as name:
        faiss.write_index(index, name)
    for shard in shards:
        shard.unlink()


def _merge(folder: Path, index: Any, shards: list[Path]) -> None:
    """Concatenate the lists of all shards in one file, from which the index then reads them."""
    opened, lists = [], faiss.InvertedListsPtrVector()
    for shard in shards:
        with named(shard) as name, mapping(shard):
            part = faiss.read_index(name, faiss.IO_FLAG_MMAP)
        opened.append(part)  # owns the lists below
        lists.push_back(part.invlists)
    with named(folder / LISTS) as name, silenced(), mapping(folder / LISTS):
        merged = faiss.OnDiskInvertedLists(index.nlist, index.code_size, name)
        index.ntotal = merged.merge_from_multiple(lists.data(), lists.size())
    index.replace_invlists(merged, True)
    merged.this.disown()


@contextmanager
def mapping(file: Path) -> Iterator[None]:
    """Raise RecipeError where FAISS cannot map a file in the block, with the reason."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-120:]
        raise RecipeError(
            f"the lists of recipe disk in {file.parent} cannot be mapped ({reason}): choose "
            "another recipe, free some space, or put the collection elsewhere with --collection DIR"
        ) from error


def trains_on(recipe: Recipe, count: int, dim: int) -> int:
    """Return how many rows train a recipe's index over ``count`` rows, 0 for an exact search.

    Few rows are searched exactly. Raises RecipeError for a recipe without inverted lists: only
    these can be merged.
    """
    index = make_index(recipe.factory_for(max(count, 1), dim), dim, count)
    if not isinstance(index, faiss.IndexIVF):
        raise RecipeError(
            f"recipe {recipe.name!r} cannot be built in parts: only inverted lists can, such as "
            "ivf-sq8 or ivf-pq"
        )
    return 0 if few_rows(count) else min(count, training_rows(int(index.nlist), recipe.train_size))


def part_bytes(recipe: Recipe, count: int, dim: int) -> int:
    """Return the bytes of memory for each row of a part while it is built."""
    return _GROWTH * (int(make_index(recipe.factory_for(count, dim), dim, count).code_size) + 8)


def train_index(file: Path, recipe: Recipe, count: int, sample: Halves) -> None:
    """Write the empty index of a recipe for ``count`` rows, trained on a sample.

    ``sample`` is ``(m, dim)`` float16 unit rows. The file is written atomically. Raises RecipeError
    where FAISS cannot train the index.
    """
    factory = recipe.factory_for(count, sample.shape[1])
    index = make_index(factory, sample.shape[1], count)
    try:
        train(index, sample, len(sample))
    except RuntimeError as error:
        raise RecipeError(
            f"FAISS could not train {factory!r} on {len(sample):,} rows: "
            f"{' '.join(str(error).split())[-200:]}"
        ) from error
    _write(file, index)


def write_part(file: Path, trained: Path, batches: Iterable[tuple[Ids, Halves]]) -> int:
    """Write the trained index with the rows of all batches, and return the number of rows.

    A batch is ``(b,)`` ids and ``(b, dim)`` float16 rows.
    """
    with named(trained) as name:
        index = faiss.read_index(name)
    for ids, rows in batches:
        add(index, rows, ids)
    _write(file, index)
    return int(index.ntotal)


def merge_lists(file: Path, trained: Path, parts: list[Path]) -> int:
    """Write the index of all parts, its lists beside it, and return the number of rows.

    Each list is the concatenation of those of the parts. The lists are copied sequentially, so that
    only a few pages of what is read and written are in memory.
    """
    with named(trained) as name:
        index = faiss.read_index(name)
    lists = file.parent / LISTS
    with named(lists) as name, open(lists, "wb") as out:
        merged = faiss.OnDiskInvertedLists(index.nlist, index.code_size, name)
        index.ntotal = _copy_lists(merged, parts, out)
        merged.totsize = out.tell()
        out.flush()
        flush(out.fileno())
    merged.filename = LISTS  # relative to the index, not the path by which it was opened here
    index.replace_invlists(merged, True)
    merged.this.disown()
    _write(file, index)
    return int(index.ntotal)


def _copy_lists(merged: Any, parts: list[Path], out: BinaryIO) -> int:
    """Write codes, then ids of each list, record in ``merged`` where, and return the row count."""
    merged.lists.clear()
    opened: list[Any] = []
    total, copied = 0, _MAPPED_AT_ONCE
    for number in range(merged.nlist):
        if copied >= _MAPPED_AT_ONCE:
            opened, copied = [_mapped(part) for part in parts], 0
        start = out.tell()
        pieces = [(part.invlists, int(part.invlists.list_size(number))) for part in opened]
        pieces = [(lists, size) for lists, size in pieces if size]
        for lists, size in pieces:
            out.write(faiss.rev_swig_ptr(lists.get_codes(number), size * merged.code_size).data)
        for lists, size in pieces:
            out.write(faiss.rev_swig_ptr(lists.get_ids(number), size).data)
        entry = faiss.OnDiskOneList()
        entry.size = entry.capacity = sum(size for _, size in pieces)
        entry.offset = start
        merged.lists.push_back(entry)
        total, copied = total + entry.size, copied + out.tell() - start
    return total


def _mapped(part: Path) -> Any:
    with named(part) as name, silenced():
        return faiss.read_index(name, faiss.IO_FLAG_MMAP)


def _write(file: Path, index: Any) -> None:
    with atomic_file(file) as aside, open(aside, "wb") as out:
        faiss.write_index(index, faiss.PyCallbackIOWriter(out.write))

"""Inverted lists in a file of their own, memory-mapped: an index larger than the memory (FAISS's OnDiskInvertedLists)."""

from pathlib import Path
from typing import Any

import faiss as _faiss

from vitsearch.errors import RecipeError
from vitsearch.index.faiss_index import add, make_index, named, silenced, train
from vitsearch.index.protocol import LISTS, Halves, Ids
from vitsearch.recipes import Recipe

faiss: Any = _faiss  # its type stubs lack half of what is used here

SHARD_BYTES = 268_435_456  # of the codes that are in memory while building


def write_disk_index(folder: Path, file_name: str, recipe: Recipe, vectors: Halves, ids: Ids) -> None:
    """Write an index of a recipe of inverted lists, and its lists beside it, with one shard of the codes in memory at a time.

    ``vectors`` is ``(n, d)`` float16 rows, which may be memory-mapped. Raises RecipeError for an index without inverted lists, OSError
    where the disk is full.
    """
    factory = recipe.factory_for(len(ids), vectors.shape[1])
    index = make_index(factory, vectors.shape[1])
    if not isinstance(index, faiss.IndexIVF):
        raise RecipeError(f"recipe {recipe.name!r} cannot be kept on disk: only inverted lists can, such as IVF{{lists}},SQ8")
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
    """Put the lists of all shards one after the other into one file, and let the index read them there."""
    opened, lists = [], faiss.InvertedListsPtrVector()
    for shard in shards:
        with named(shard) as name:
            part = faiss.read_index(name, faiss.IO_FLAG_MMAP)
        opened.append(part)  # the lists below are its own
        lists.push_back(part.invlists)
    with named(folder / LISTS) as name, silenced():
        merged = faiss.OnDiskInvertedLists(index.nlist, index.code_size, name)
        index.ntotal = merged.merge_from_multiple(lists.data(), lists.size())
    index.replace_invlists(merged, True)
    merged.this.disown()

"""Puts encoded rows, which come in any order, together to whole shards."""

from collections.abc import Iterator

import numpy as np
import pyarrow
import pyarrow.compute

from vitsearch.errors import CollectionError


class Gather:
    """Holds the rows of shards that are not whole yet; only those that are being worked on, for pieces of work begin in order."""

    def __init__(self, shard_size: int, rows: int) -> None:
        self._shard_size, self._rows = shard_size, rows
        self._parts: dict[int, list[pyarrow.Table]] = {}

    def add(self, table: pyarrow.Table) -> Iterator[tuple[int, pyarrow.Table]]:
        """Take rows, and yield each shard that they complete: its number, and its rows in order without ``row`` and ``begun``."""
        shards = np.asarray(table.column("row").to_numpy()) // self._shard_size
        for shard in np.unique(shards).tolist():
            parts = self._parts.setdefault(shard, [])
            parts.append(table if (shards == shard).all() else table.filter(pyarrow.array(shards == shard)))
            if sum(part.num_rows for part in parts) >= self._wanted(shard):
                yield shard, self._whole(shard)

    def check_empty(self) -> None:
        """Raise CollectionError where rows of a shard never came."""
        if self._parts:
            raise CollectionError(f"rows of {len(self._parts)} shards never came (the first is {min(self._parts)}): run it again")

    def _wanted(self, shard: int) -> int:
        return min(self._shard_size, self._rows - shard * self._shard_size)

    def _whole(self, shard: int) -> pyarrow.Table:
        table = pyarrow.concat_tables(self._parts.pop(shard)).sort_by("row").combine_chunks()
        start = shard * self._shard_size
        if not np.array_equal(table.column("row").to_numpy(), np.arange(start, start + self._wanted(shard))):
            raise CollectionError(f"the rows of shard {shard} came twice or not at all: run `vitsearch embed` again")
        return table.drop_columns(["row", "begun"])

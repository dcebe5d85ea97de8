"""The columns of a shard (Apache Parquet)."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow
from numpy.typing import NDArray

from vitsearch.errors import CollectionError

Half = NDArray[np.float16]
INFO = ("width", "height", "taken_at", "camera", "latitude", "longitude")  # what PhotoInfo holds, in its order


def schema_of(dim: int) -> pyarrow.Schema:
    """Return the columns of a shard with vectors of ``dim`` numbers."""
    return pyarrow.schema(
        [
            pyarrow.field("id", pyarrow.int64(), nullable=False),
            pyarrow.field("path", pyarrow.string(), nullable=False),
            ("path_bytes", pyarrow.binary()),
            ("fingerprint", pyarrow.binary(16)),
            ("vector", pyarrow.list_(pyarrow.float16(), dim)),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("taken_at", pyarrow.string()),
            ("camera", pyarrow.string()),
            ("latitude", pyarrow.float64()),
            ("longitude", pyarrow.float64()),
            pyarrow.field("size", pyarrow.int64(), nullable=False),
            pyarrow.field("mtime_ns", pyarrow.int64(), nullable=False),
            ("label", pyarrow.string()),
            ("label_score", pyarrow.float64()),
            ("error", pyarrow.string()),
        ]
    )


def check_schema(found: pyarrow.Schema, dim: int, name: str) -> None:
    """Raise CollectionError unless the columns are those of a shard with vectors of ``dim`` numbers."""
    wanted = schema_of(dim)
    for field in wanted:
        place = found.get_field_index(field.name)
        if place < 0 or not found.field(place).type.equals(field.type):
            kind = "no such column" if place < 0 else f"it is {found.field(place).type}"
            raise CollectionError(f"{name} is no shard of this set: its column {field.name} should be {field.type} ({kind}); remove it")


@contextmanager
def errors(name: str) -> Iterator[None]:
    """Turn what is wrong with a Parquet file into one line."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        words = " ".join(str(error).split())[:160]
        raise CollectionError(f"{name} cannot be read as a shard ({words}): remove it, and run `vitsearch embed` again") from error

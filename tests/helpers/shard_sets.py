"""Small shard sets of the encoder `colour`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vitsearch.encoders.colour import DIM, ColourEncoder
from vitsearch.shards import Manifest, ShardRow, create_shards, photo_id
from vitsearch.types import PhotoInfo


def manifest(source: str, rows: int, **given: Any) -> Manifest:
    golden = ColourEncoder().encode_images([])[:0].tolist()
    facts_of = {
        "encoder": "colour",
        "encoder_fingerprint": ColourEncoder.fingerprint,
        "dtype": "float32",
        "dim": DIM,
        "golden": golden,
    }
    return Manifest(
        **facts_of
        | {"source": source, "decoding": "scaled", "shard_size": 100, "rows": rows, "shards": 1}
        | given
    )


def vector(number: int) -> Any:
    raw = np.random.default_rng(number).standard_normal(DIM)
    return (raw / np.linalg.norm(raw)).astype(np.float16)


def row(path: str, number: int = 0, **given: Any) -> ShardRow:
    info = PhotoInfo(
        3,
        2,
        {
            "taken_at": "2020-01-02T03:04:05",
            "camera": "A camera",
            "latitude": 1.5,
            "longitude": -2.5,
        },
    )
    return replace(
        ShardRow(photo_id(path), path, 9, 1000 + number, bytes([number]) * 16, info), **given
    )


def write_set(
    output: Path, rows: Sequence[ShardRow], source: str = "s3://photos/none", **given: Any
) -> Path:
    writer = create_shards(output, manifest(source, len(rows), **given))
    good = [vector(one.mtime_ns) for one in rows if one.error is None]
    writer.write(0, rows, np.stack(good) if good else np.empty((0, DIM), np.float16))
    return output

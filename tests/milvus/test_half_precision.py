"""Vectors in half precision, by the core of Milvus 2.4, which Milvus Lite 2.5 serves; it has
neither nulls nor the properties that a push needs, so that a connection is tried alone.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from vitsearch.arrays import cosine_scores, top_k, unit_rows
from vitsearch.milvus import client, connect, parse_uri
from vitsearch.milvus.schema import FIELDS, CollectionMetadata, row_of
from vitsearch.photos.columns import METADATA
from vitsearch.types import Photo, PhotoInfo

pytestmark = [pytest.mark.engines, pytest.mark.slow]

ROWS, DIM = 2_000, 64
VALUES = {"text": "Ä", "date": "2019-07-14T18:30:05", "number": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("lite")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    if subprocess.run([*pip, "--target", folder, "milvus-lite==2.5.1"], check=False).returncode:
        pytest.skip("milvus-lite 2.5.1 cannot be installed here")
    libraries = folder / "milvus_lite" / "lib"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [libraries / "milvus", folder / "lite.db", f"localhost:{port}", "ERROR"],
        env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
        cwd=folder,
    )
    for _ in range(100):
        with socket.socket() as tried:
            if not tried.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    yield f"milvus://localhost:{port}"
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("index", "precision"),
    [("FLAT", DataType.FLOAT16_VECTOR), ("IVF_FLAT", DataType.FLOAT_VECTOR)],
)
def test_what_is_written_is_read_and_found(
    server: str, index: str, precision: DataType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its index IVF_FLAT has no half precision: the collection is made without it."""
    fields = {name: (kind, False) for name, (kind, _) in FIELDS.items()}
    monkeypatch.setattr(client, "FIELDS", fields)
    monkeypatch.setattr(MilvusClient, "get_server_version", lambda *_, **__: "v2.4.15")
    random = np.random.default_rng(0)
    spread = random.standard_normal((ROWS + 20, DIM)) * np.exp(-np.arange(DIM) / 12)
    unit = unit_rows(spread.astype(np.float32))
    halves, queries = unit[:ROWS].astype(np.float16), unit[ROWS:]
    info = PhotoInfo(640, 480, {name: VALUES[column.kind] for name, column in METADATA.items()})
    rows = [
        row_of(Photo(number, f"{number}.jpg", 10, 0, b"f" * 16, info, "cat", 0.5), half)
        for number, half in enumerate(halves)
    ]
    metadata = CollectionMetadata("none", "0" * 32, "float32", DIM, "", "", "scaled")
    with closing(connect(parse_uri(f"{server}/{index}"))) as connection:
        connection.create(metadata, index, {"nlist": 16} if index == "IVF_FLAT" else {})
        assert connection._types()["vector"] == precision
        connection.load()
        connection.upsert(rows)
        for pages in (
            [connection.among(range(ROWS), ["id", "vector"])],
            connection.pages(["id", "vector"]),
            [connection.at_most(ROWS, ["id", "vector"], "")],
        ):
            held = {row["id"]: row["vector"] for page in pages for row in page}
            assert np.array([held[number] for number in range(ROWS)]).dtype == np.float16
            assert (np.array([held[number] for number in range(ROWS)]) == halves).all()
        hits = connection.search(queries, 10, condition="", params={"nprobe": 16})
        best = [set(top_k(cosine_scores(halves, query), 10).tolist()) for query in queries]
        assert [set(ids.tolist()) for ids in hits] == best
        (first,) = connection.search(queries[:1], 100, condition="", params={"nprobe": 16})
        nearest = connection.nearest(queries[0], 100, condition="", params={"nprobe": 16})
        assert set(nearest.tolist()) == set(first.tolist())

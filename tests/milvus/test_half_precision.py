"""Vectors in half precision, by the core of Milvus 2.4, which Milvus Lite 2.5 serves; it has
neither nulls nor the properties that a push needs, so that a connection is tried alone.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from helpers.milvus_server import COMPLETE, like_photos
from helpers.processes import free_port, running
from vitsearch.arrays import cosine_scores, top_k
from vitsearch.milvus import client, connect, parse_uri
from vitsearch.milvus.schema import FIELDS, CollectionMetadata, row_of
from vitsearch.types import Photo, PhotoInfo

pytestmark = [pytest.mark.engines, pytest.mark.slow]

ROWS, DIM = 2_000, 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("lite")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    if subprocess.run([*pip, "--target", folder, "milvus-lite==2.5.1"], check=False).returncode:
        pytest.skip("milvus-lite 2.5.1 cannot be installed here")
    libraries = folder / "milvus_lite" / "lib"
    port = free_port()
    command = [str(libraries / "milvus"), str(folder / "lite.db"), f"localhost:{port}", "ERROR"]
    with running(command, folder, port, LD_LIBRARY_PATH=str(libraries)):
        yield f"milvus://localhost:{port}"


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
    halves = like_photos(ROWS, DIM)
    queries = like_photos(20, DIM, seed=1).astype(np.float32)
    info = PhotoInfo(640, 480, COMPLETE)
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
            by_id = {row["id"]: row["vector"] for page in pages for row in page}
            held = np.array([by_id[number] for number in range(ROWS)])
            assert held.dtype == np.float16
            assert (held == halves).all()
        hits = connection.search(queries, 10, condition="", params={"nprobe": 16})
        best = [set(top_k(cosine_scores(halves, query), 10).tolist()) for query in queries]
        assert [set(ids.tolist()) for ids in hits] == best
        (first,) = connection.search(queries[:1], 100, condition="", params={"nprobe": 16})
        nearest = connection.nearest(queries[0], 100, condition="", params={"nprobe": 16})
        assert set(nearest.tolist()) == set(first.tolist())

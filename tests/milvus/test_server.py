"""A real Milvus server: what is pushed is found again, also after the server was killed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.milvus_server import COMPLETE, Server, like_photos
from vitsearch import Progress
from vitsearch.arrays import cosine_scores, top_k
from vitsearch.cluster.push import push
from vitsearch.errors import CollectionError
from vitsearch.filters import parse_filter
from vitsearch.milvus import connect, parse_uri
from vitsearch.milvus import store as milvus_store
from vitsearch.milvus.store import Candidates, MilvusStore
from vitsearch.shards import Manifest, ShardRow, create_shards, photo_id
from vitsearch.types import PhotoInfo

pytestmark = [pytest.mark.engines, pytest.mark.slow]

ROWS, DIM, SHARD = 6_000, 64, 1_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


def vectors(seed: int = 0) -> np.ndarray:
    return like_photos(ROWS, DIM, seed)


def row(number: int, **facts: Any) -> ShardRow:
    """Return a photo that lacks no value: this server has no nulls."""
    path = f"{number % 7}/{number:05d}.jpg"
    info = PhotoInfo(640 + number % 200, 480, COMPLETE | facts)
    return ShardRow(photo_id(path), path, 10, 0, number.to_bytes(16), info, "cat", 0.5)


def shards_of(folder: Path, halves: np.ndarray, **facts: Any) -> Path:
    parts = range(0, ROWS, SHARD)
    golden: list[list[float]] = []
    manifest = Manifest(
        "none", "0" * 32, "float32", DIM, golden, "", "scaled", SHARD, ROWS, len(parts)
    )
    writer = create_shards(folder, manifest)
    for number, start in enumerate(parts):
        stop = start + SHARD
        writer.write(
            number, [row(each, **facts) for each in range(start, stop)], halves[start:stop]
        )
    return folder


def stored(uri: str) -> list[tuple[int, bytes]]:
    """Return the ids and vectors of a collection, in order of id."""
    with closing(connect(parse_uri(uri))) as connection:
        pages = connection.pages(["id", "vector"])
        rows = [
            (each["id"], np.float16(each["vector"]).tobytes()) for page in pages for each in page
        ]
    return sorted(rows)


def expected(halves: np.ndarray) -> list[tuple[int, bytes]]:
    return sorted((row(number).photo_id, halves[number].tobytes()) for number in range(ROWS))


def test_what_is_pushed_is_there_once_and_found(server: Server, tmp_path: Path) -> None:
    halves, uri = vectors(), server.uri("photos")
    shards = shards_of(tmp_path / "shards", halves)
    first = push(shards, uri, index="FLAT", workers=2)
    assert (first.written, first.unchanged, first.total, first.verified) == (ROWS, 0, ROWS, 6)
    again = push(shards, uri)
    assert (again.written, again.unchanged, again.total, again.index) == (0, ROWS, ROWS, "FLAT")
    assert stored(uri) == expected(halves)
    ids = np.array([row(number).photo_id for number in range(ROWS)])
    queries = vectors(seed=1)[:20].astype(np.float32)
    with closing(MilvusStore.open(parse_uri(uri))) as store:
        proposed = Candidates(store.connection).candidates_for(queries, 10)
    best = [set(ids[top_k(cosine_scores(halves, query), 10)].tolist()) for query in queries]
    assert [set(found.tolist()) for found, _ in proposed] == best


def test_rows_that_changed_are_written_and_no_other(server: Server, tmp_path: Path) -> None:
    halves, uri = vectors(), server.uri("changed")
    push(shards_of(tmp_path / "shards", halves), uri)
    halves[5] = halves[6]
    report = push(shards_of(tmp_path / "vector", halves), uri)
    assert (report.written, report.unchanged, report.total) == (1, ROWS - 1, ROWS)
    assert stored(uri) == expected(halves)
    report = push(shards_of(tmp_path / "fact", halves, camera="Nikon"), uri, workers=2)
    assert (report.written, report.unchanged, report.total) == (ROWS, 0, ROWS)


def test_a_server_without_nulls_says_so(server: Server, tmp_path: Path) -> None:
    shards = shards_of(tmp_path / "shards", vectors(), camera=None)
    with pytest.raises(CollectionError, match=r"no empty values.*camera.*Milvus 2.5 or later"):
        push(shards, server.uri("empty"))


def test_a_server_that_is_killed_in_the_middle(server: Server, tmp_path: Path) -> None:
    halves, uri = vectors(), server.uri("killed")
    shards = shards_of(tmp_path / "shards", halves)

    def kill(step: Progress) -> None:
        if step.done == 2 * SHARD:
            server.kill()

    with pytest.raises(CollectionError, match=r"no Milvus answers at .*: start it"):
        push(shards, uri, progress=kill)
    server.start()
    uri = server.uri("killed")  # of another port, if that of before is not free yet
    report = push(shards, uri)
    assert report.written + report.unchanged == report.total == ROWS
    assert (report.verified, report.checked) == (6, 6)
    assert stored(uri) == expected(halves)


def test_more_results_than_one_search_gives(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_store, "MAX_RESULTS", 1_000)
    halves, uri = vectors(), server.uri("many")
    push(shards_of(tmp_path / "shards", halves), uri, index="FLAT")
    ids = np.array([row(number).photo_id for number in range(ROWS)])
    query = vectors(seed=1)[0].astype(np.float32)
    best = ids[top_k(cosine_scores(halves, query), ROWS)].tolist()
    narrow = {row(number).photo_id for number in range(ROWS) if number % 200 < 60}
    with closing(MilvusStore.open(parse_uri(uri))) as store:
        few = store.condition(parse_filter("width < 700"))
        cases = [
            ("", 4_000, best),
            ("", ROWS + 1, best),
            (few, ROWS, [*filter(narrow.__contains__, best)]),
        ]
        for condition, count, expected in cases:
            proposed = Candidates(store.connection, condition)
            [(found, more)] = proposed.candidates_for(query[None], count)
            # the order of rows whose scores differ by rounding may be another
            assert len({*found.tolist()} ^ {*expected[:count]}) <= 2
            assert more == (count < ROWS)

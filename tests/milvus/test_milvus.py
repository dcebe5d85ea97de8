"""A collection in Milvus Lite: the same answers as the same vectors on disk, and pushes that may be
repeated.
"""

import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from helpers.cli import vitsearch, vitsearch_process
from helpers.photos import paint, shade
from helpers.web_client import fetch, serving
from vitsearch import Collection, Progress, SearchResult, index_folder, search_all
from vitsearch.cluster.push import PushReport, prepare, push, push_blocks
from vitsearch.encoders.base import golden_vectors
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import (
    CollectionError,
    CollectionNotFound,
    EncoderMismatch,
    PhotoError,
    QueryError,
    UnknownPhoto,
    VitsearchError,
)
from vitsearch.filters import parse_filter
from vitsearch.milvus import client, connect, milvus_filter, parse_uri
from vitsearch.milvus.store import MAX_RESULTS, Candidates
from vitsearch.shards import Manifest, ShardRow, create_shards, open_shards, photo_id
from vitsearch.storage.metadata import positions, towns
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app
from vitsearch.web.privacy import key_cookie
from vitsearch.web.service import PhotoService

MOMENTS = [None, "2018-12-31T23:59:59", "2019-07-14T18:30:05", "2020-02-29T00:00:00"]
CAMERAS = [None, "NIKON Z6", "Apple iPhone 12", "50% _Ä"]


def manifest_of(
    dim: int, *, source: str = "", shards: int = 1, encoder: ColourEncoder | None = None
) -> Manifest:
    golden = golden_vectors(encoder).tolist() if encoder else []
    fingerprint = encoder.fingerprint if encoder else "f" * 32
    return Manifest(
        "colour", fingerprint, "float32", dim, golden, source, "scaled", 100, 100, shards
    )


def shards_of(root: Path, output: Path, *, size: int = 100) -> Path:
    """Write the photos and vectors of an indexed folder as a shard set."""
    with Collection.open(root, encoder=ColourEncoder()) as found:
        photos = list(found.photos())
        halves = np.stack([found.store.vector(photo.photo_id) for photo in photos])
    parts = [slice(start, start + size) for start in range(0, len(photos), size)]
    manifest = manifest_of(
        halves.shape[1], source=str(root), shards=len(parts), encoder=ColourEncoder()
    )
    writer = create_shards(output, manifest)
    for number, part in enumerate(parts):
        writer.write(number, [row_of(photo) for photo in photos[part]], halves[part])
    return output


def row_of(photo: Photo) -> ShardRow:
    own = (
        photo.size,
        photo.mtime_ns,
        photo.fingerprint,
        photo.info,
        photo.label,
        photo.label_score,
    )
    return ShardRow(photo_id(photo.path), photo.path, *own)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 pictures in folders, many alike and some the same, indexed; their facts are made up in
    the database.
    """
    root = tmp_path_factory.mktemp("shelf") / "photos"
    for number in range(150):
        paint(
            root / f"year{number % 3}" / f"{number:03d}.png", shade(number % 119), shade(number % 7)
        )
    index_folder(root, encoder=ColourEncoder())
    store = PhotoStore(root / ".vitsearch" / "photos.db")
    with store.writing():
        for number, photo in enumerate(list(store.photos())):
            facts = (
                MOMENTS[number % 4],
                CAMERAS[number // 4 % 4],
                *((None, None) if number % 5 else (number / 7, number / 9)),
            )
            changed = "taken_at = ?, camera = ?, latitude = ?, longitude = ?"
            store._rows.update(store._db, photo.photo_id, changed, facts)
        store.put_labels(
            [
                (photo.photo_id, f"label {photo.photo_id % 4}", 0.5)
                for photo in list(store.photos())[::2]
            ]
        )
    store.close()
    return root


@pytest.fixture(scope="module")
def shards(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards_of(shelf, tmp_path_factory.mktemp("shards") / "out", size=40)


@pytest.fixture(scope="module")
def uri(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shelf in Milvus Lite, with its exact index."""
    place = f"milvus://{tmp_path_factory.mktemp('milvus') / 'a.db'}/photos"
    report = push(shards, place, index="FLAT", batch=33)
    assert (
        report.written,
        report.unchanged,
        report.left_out,
        report.missing_shards,
        report.total,
    ) == (
        150,
        0,
        0,
        0,
        150,
    )
    assert (
        report.verified == report.checked == 7
    )  # the first of each block: of shards of 40, 40, 40 and 30 rows
    return place


@pytest.fixture
def both(shelf: Path, uri: str) -> Iterator[tuple[Collection, Collection]]:
    with (
        Collection.open(shelf, encoder=ColourEncoder()) as local,
        Collection.open(uri, encoder=ColourEncoder()) as remote,
    ):
        yield local, remote


def shown(hits: Sequence[SearchResult]) -> list[tuple[str, float]]:
    return [(hit.path, hit.score) for hit in hits]


# -- search ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_top_10_for_200_queries(both: tuple[Collection, Collection]) -> None:
    local, remote = both
    queries = list(np.random.default_rng(5).normal(size=(200, local.dim)))
    expected = [shown(hits) for hits in local.search_batch(queries)]
    assert [len(hits) for hits in expected] == [10] * 200
    assert [shown(hits) for hits in remote.search_batch(queries)] == expected
    assert [shown(remote.search(query)) for query in queries[:20]] == expected[:20]


WISHES: list[dict[str, Any]] = [
    {"offset": 7},
    {"min_score": 0.5},
    {"diverse": 0.5},
    {"collapse": True},
    {"collapse": 0.9, "diverse": 0.3, "offset": 3},
    {"where": "taken_at >= '2019' and not camera like '%nikon%'"},
    {"where": "path like 'year1/%' or label = 'label 2'", "min_score": 0.2},
    {"where": "latitude > 3.5", "collapse": True, "diverse": 0.7},
    {"where": "year = 1900"},
]


@pytest.mark.parametrize("options", WISHES, ids=str)
@pytest.mark.parametrize("query", ["red", "2:blue + green - red", "picture"])
def test_every_wish_is_answered_alike(
    both: tuple[Collection, Collection], shelf: Path, query: str, options: dict[str, Any]
) -> None:
    local, remote = both
    asked = str(shelf / "year0" / "003.png") if query == "picture" else query
    ask = "similar" if query == "picture" else "search"
    for top_k in (1, 10, 60, *([None] if "min_score" in options else [])):
        assert shown(getattr(remote, ask)(asked, top_k, **options)) == shown(
            getattr(local, ask)(asked, top_k, **options)
        )


@pytest.mark.parametrize(
    "query",
    ["red in 2019", "2019", "since 2018", "folder year1", "labelled label 2", "nikon z6", "red"],
)
def test_words_filter_alike(both: tuple[Collection, Collection], query: str) -> None:
    local, remote = both
    assert remote.understand(query) == local.understand(query)
    assert shown(remote.search(query, 20)) == shown(local.search(query, 20))


@pytest.mark.slow
def test_a_folder_and_milvus_are_searched_together(
    both: tuple[Collection, Collection], shelf: Path
) -> None:
    hits = search_all(both, "red in 2019", 10)
    assert [hit.collection for hit in hits[:2]] == [both[0].backend.name, both[1].backend.name]
    assert {Path(hit.file) for hit in hits} <= set(shelf.rglob("*.png"))
    assert shown(hits[::2]) == shown(hits[1::2]) == shown(both[0].search("red in 2019", 5))
    assert [hit.photo.path for hit in hits[:2]] == [hit.path for hit in hits[:2]]
    assert hits[0].image().tobytes() == hits[1].image().tobytes()
    assert hits._repr_html_().count("<img ") == len(hits)


@pytest.mark.slow
def test_filters_of_the_same_photos(both: tuple[Collection, Collection]) -> None:
    local, remote = both
    paths = {photo.photo_id: photo.path for photo in [*local.photos(), *remote.photos()]}
    for text in [
        f"{column} {sign} {value}"
        for column, value in VALUES
        for sign in ("=", "!=", "<", "<=", ">", ">=")
    ]:
        for where in (text, f"not ({text} and path > 'year1')", f"{text} or label is null"):
            tree = parse_filter(where)
            found = [
                {paths[one] for one in store.ids_where(tree).tolist()}
                for store in (local.store, remote.store)
            ]
            assert found[0] == found[1], (where, milvus_filter(tree))


VALUES = [
    ("taken_at", "'2019-07'"),
    ("mtime", "'2020'"),
    ("year", "2019"),
    ("latitude", "4"),
    ("camera", "'NIKON Z6'"),
    ("score", "0.5"),
]


@pytest.mark.slow
def test_photos_labels_and_facts(both: tuple[Collection, Collection]) -> None:
    local, remote = both
    assert [replace(one, photo_id=0) for one in remote.photos()] == [
        replace(one, photo_id=0) for one in local.photos()
    ]
    assert [one.photo_id for one in remote.photos()] == [
        photo_id(one.path) for one in local.photos()
    ]
    assert len(remote) == len(local) == 150
    assert (remote.dim, remote.config.encoder, remote.root) == (local.dim, "colour", local.root)
    labels = ["red", "blue", "green"]
    assert [(one.path, one.label, one.score) for one in remote.label(labels)] == [
        (one.path, one.label, one.score) for one in local.label(labels)
    ]
    assert [[one.path for one in group] for group in remote.duplicates()] == [
        [one.path for one in group] for group in local.duplicates()
    ]
    assert remote.info() | {"place": ""} == {
        "photos": 150,
        "encoder": "colour",
        "encoder_fingerprint": ColourEncoder().fingerprint,
        "dtype": "float32",
        "dim": local.dim,
        "index": "FLAT",
        "metric": "COSINE",
        "decoding": "scaled",
        "source": str(local.root),
        "place": "",
        "pushes": 1,
    }


def test_photos_stand_at_the_same_places(both: tuple[Collection, Collection]) -> None:
    paths = []
    for collection in both:
        where = parse_filter("taken_at >= '2019' or taken_at is null")
        standing = positions(collection.store, where)
        path_of = {photo.photo_id: photo.path for photo in collection.photos()}
        paths.append(
            {
                path_of[photo_id]: (latitude, longitude)
                for photo_id, latitude, longitude in zip(
                    standing.ids.tolist(), standing.latitudes, standing.longitudes, strict=True
                )
            }
        )
        assert sum(count for _, count in towns(collection.store, where).counts) == len(standing.ids)
    assert paths[0] == paths[1]
    assert len(paths[0]) > 20


def test_a_photo_is_looked_up_where_its_file_is_not_here(
    both: tuple[Collection, Collection], uri: str
) -> None:
    local, _ = both
    expected = shown(local.similar("year1/004.png"))
    with Collection.open(uri, root="/nowhere", encoder=ColourEncoder()) as remote:
        assert shown(remote.similar("year1/004.png")) == expected
        with pytest.raises(PhotoError, match="the query's photo 'year1/none.png'"):
            remote.similar("year1/none.png")


def test_another_encoder_is_refused(uri: str) -> None:
    class Other(ColourEncoder):
        fingerprint = "0" * 32

    with pytest.raises(
        EncoderMismatch,
        match=r"was made with colour \(fingerprint .{8}\), not with this colour \(00000000\)",
    ):
        Collection.open(uri, encoder=Other())
    with Collection.open(uri) as found:  # by its name
        assert found.encoder.fingerprint == ColourEncoder().fingerprint


def test_more_than_milvus_proposes_is_told(
    both: tuple[Collection, Collection], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = both
    query = np.random.default_rng(3).normal(
        size=local.dim
    )  # words of a colour have many photos of score 0, which are equal
    monkeypatch.setattr(Candidates, "limit", 100)
    assert shown(remote.search(query, 80)) == shown(local.search(query, 80))
    with pytest.raises(
        QueryError,
        match=(
            "these results take more than the 100 candidates that can be asked for here: ask "
            "for fewer"
        ),
    ):
        remote.search(query, 120)
    few = {"where": "path < 'year1/100.png'"}
    assert shown(remote.search(query, 120, **few)) == shown(local.search(query, 120, **few))
    assert MAX_RESULTS == 16_384


@pytest.mark.slow
@pytest.mark.parametrize("index", ["HNSW", "IVF_FLAT", "IVF_SQ8", "AUTOINDEX"])
def test_an_approximate_index_gives_every_photo_when_all_are_asked_for(
    both: Any, shards: Path, tmp_path: Path, index: str
) -> None:
    local, _ = both
    place = f"milvus://{tmp_path}/a.db/{index}"
    assert push(shards, place, index=index).index == index
    with Collection.open(place, encoder=ColourEncoder()) as found:
        assert shown(found.search("red", 500)) == shown(local.search("red", 500))
        assert shown(found.search("red", 50, where="path like '%3%'")) == shown(
            local.search("red", 50, where="path like '%3%'")
        )


# -- push ------------------------------------------------------------------------------------------


def counts(report: PushReport) -> tuple[int, int, int, int]:
    return report.written, report.unchanged, report.left_out, report.total


@pytest.mark.slow
def test_a_push_may_be_repeated_and_goes_on(shards: Path, tmp_path: Path) -> None:
    place = f"milvus://{tmp_path / 'a.db'}"
    seen: list[tuple[int, int]] = []

    class Stop(Exception):
        pass

    def stop(step: Progress) -> None:
        seen.append((step.done, step.total))
        if step.done >= 80:
            raise Stop

    with pytest.raises(Stop):
        push(shards, place, "photos", batch=40, progress=stop)
    assert seen == [(40, 150), (80, 150)]
    assert counts(push(shards, place, "photos", batch=40)) == (70, 80, 0, 150)
    with Collection.open(f"{place}/photos") as found:
        before = list(found.photos())
    assert counts(push(shards, f"{place}/photos")) == (0, 150, 0, 150)
    with Collection.open(f"{place}/photos") as found:
        assert (list(found.photos()), found.store.generation()) == (before, 1)


@pytest.mark.slow
def test_a_changed_row_is_written_again_and_two_sets_share_a_collection(
    shelf: Path, shards: Path, tmp_path: Path
) -> None:
    place = parse_uri(f"milvus://{tmp_path / 'a.db'}/photos")
    push(shards, str(place))
    more = paint(tmp_path / "more" / "extra.png", "red").parent
    index_folder(more, encoder=ColourEncoder())
    report = push(shards_of(more, tmp_path / "out"), str(place))
    assert counts(report) == (1, 0, 0, 151)
    assert report.notes == [
        (
            f"the collection's photos are in {shelf}, these in {more}: its paths now belong to "
            "several places"
        )
    ]
    rows, halves = next(open_shards(shards).blocks())
    connection = connect(place)
    report = prepare(connection, open_shards(shards).manifest)
    push_blocks(connection, [([replace(rows[0], label="new"), *rows[1:]], halves)], report)
    assert counts(report) == (1, len(rows) - 1, 0, 151)
    assert [row["label"] for row in connection.among([rows[0].photo_id], ["label"])] == ["new"]
    connection.close()


def test_what_milvus_cannot_hold_is_counted_and_named(shards: Path, tmp_path: Path) -> None:
    rows, halves = next(open_shards(shards).blocks())
    odd = [
        replace(rows[0], path=os.fsdecode(b"caf\xe9.png"), photo_id=1),
        rows[1],
        replace(rows[2], photo_id=rows[1].photo_id),
    ]
    connection = connect(parse_uri(f"milvus://{tmp_path / 'a.db'}/photos"))
    report = prepare(connection, open_shards(shards).manifest)
    push_blocks(
        connection,
        [(odd, halves[:3]), ([replace(rows[3], photo_id=rows[1].photo_id)], halves[3:4])],
        report,
    )
    connection.close()
    assert counts(report) == (1, 0, 3, 1)
    assert report.notes == [
        "Milvus cannot hold caf\udce9.png: the name is not UTF-8",
        f"Milvus cannot hold {rows[2].path}: its number is that of {rows[1].path}",
        f"Milvus cannot hold {rows[3].path}: its number is that of {rows[1].path}",
    ]


@pytest.mark.slow
def test_other_vectors_are_refused_before_anything_is_written(shards: Path, tmp_path: Path) -> None:
    place = f"milvus://{tmp_path / 'a.db'}/photos"
    push(shards, place)
    halves = np.eye(3, 8, dtype=np.float16)
    rows = [
        replace(row, photo_id=number)
        for number, row in enumerate(next(open_shards(shards).blocks())[0][:3], 1)
    ]
    small = create_shards(tmp_path / "small", manifest_of(8))
    small.write(0, rows, halves)
    dim = open_shards(shards).manifest.dim
    other = create_shards(tmp_path / "other", manifest_of(dim))
    other.write(0, rows, np.eye(3, dim, dtype=np.float16))
    for output, words in (
        (
            tmp_path / "small",
            r"was made with colour \(fingerprint \w{8}\), not with this colour",
        ),
        (tmp_path / "other", r"\(ffffffff\): use that encoder and version, or push into another"),
    ):
        with pytest.raises(EncoderMismatch, match=words):
            push(output, place)
    with pytest.raises(
        CollectionError, match="has the index AUTOINDEX, not FLAT: leave out --index"
    ):
        push(shards, place, index="flat")
    with Collection.open(place) as found:
        assert (len(found), found.store.generation()) == (150, 1)
        assert found.store.rows([1, 2, 3]) == []


def test_an_index_that_milvus_has_not_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CollectionError, match="there is no index 'NOTHING': one of AUTOINDEX, FLAT, "
    ):
        push(shards, f"milvus://{tmp_path / 'a.db'}/photos", index="nothing")
    connection = connect(parse_uri(f"milvus://{tmp_path / 'a.db'}/photos"))
    assert not connection.exists()
    connection.close()


def test_a_damaged_block_is_refused(shards: Path, tmp_path: Path) -> None:
    rows, halves = next(open_shards(shards).blocks())
    connection = connect(parse_uri(f"milvus://{tmp_path / 'a.db'}/photos"))
    report = prepare(connection, open_shards(shards).manifest)
    for block in (
        (rows[:2], halves[:1]),
        (rows[:1], halves[:1] * 2),
        (rows[:1], halves[:1] * np.nan),
        ([replace(rows[0], info=None)], halves[:1]),
    ):
        with pytest.raises(CollectionError, match="is damaged"):
            push_blocks(connection, [block], report)
    assert connection.count() == 0
    connection.close()


# -- what goes wrong -------------------------------------------------------------------------------


def one_line(caught: pytest.ExceptionInfo[VitsearchError]) -> str:
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_dead_server_is_told_soon() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(CollectionError) as caught:
        Collection.open(f"milvus://127.0.0.1:{port}/photos")
    assert one_line(caught) == (
        f"no Milvus answers at http://127.0.0.1:{port}: start it, or check host and port after "
        "milvus://"
    )


def test_a_server_that_is_no_milvus_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECTING", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(CollectionError) as caught:
            Collection.open(f"milvus://127.0.0.1:{port}/photos")
    assert one_line(caught).startswith(f"no Milvus answers at http://127.0.0.1:{port}")


def test_what_is_not_there(uri: str, tmp_path: Path) -> None:
    with pytest.raises(
        CollectionNotFound,
        match="there is no file .*none.db of Milvus Lite: push a shard set into it",
    ):
        Collection.open(f"milvus://{tmp_path}/none.db/photos")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        CollectionNotFound, match="there is no collection other at .*a.db: push a shard set there"
    ):
        Collection.open(uri.removesuffix("photos") + "other")
    with pytest.raises(CollectionError, match="there is no folder .*none"):
        connect(parse_uri(f"milvus://{tmp_path}/none/a.db/photos"))


def test_a_collection_of_somebody_else_is_refused(shards: Path, tmp_path: Path) -> None:
    place = parse_uri(f"milvus://{tmp_path / 'a.db'}/photos")
    connection = connect(place)
    connection._client.create_collection("photos", dimension=4)
    for call in (
        connection.metadata,
        lambda: push(shards, str(place)),
        lambda: Collection.open(str(place)),
    ):
        with pytest.raises(
            CollectionError,
            match="was not made by vitsearch: push a shard set into another --collection NAME",
        ):
            call()
    connection.close()


@pytest.mark.slow
def test_a_file_that_another_process_has_open(uri: str, both: Any) -> None:
    found = vitsearch_process("search", uri, "red")
    assert (found.returncode, found.stdout) == (1, b"")
    assert found.stderr.decode().startswith("vitsearch: Milvus Lite cannot open ")
    assert len(found.stderr.splitlines()) == 1


def test_candidates_know_how_many_there_are(both: tuple[Collection, Collection]) -> None:
    _, remote = both
    candidates = Candidates(remote.store.connection, "id < 0")
    assert candidates.count == 0
    ids, more = candidates.candidates_for(np.ones((1, remote.dim), dtype=np.float32), 5)[0]
    assert (ids.tolist(), more) == ([], False)


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_before_anything_is_pushed_says_so(shards: Path, tmp_path: Path) -> None:
    uri = f"milvus://{tmp_path / 'a.db'}/photos"
    with closing(connect(parse_uri(uri))) as connection:
        prepare(connection, open_shards(shards).manifest, index="FLAT")
    done = vitsearch("search", uri, "red")
    why = "nothing found: no photo is in it yet: `vitsearch push` writes those of shards"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", f"vitsearch: {why}\n")


def test_push_and_search_from_the_command_line(shelf: Path, shards: Path, tmp_path: Path) -> None:
    place = f"milvus://{tmp_path / 'a.db'}"
    pushed = vitsearch(
        "push", shards, "--milvus", place, "--collection", "photos", "--index", "flat", "--json"
    )
    assert pushed.returncode == 0, pushed.stderr
    report = json.loads(pushed.stdout)
    assert {
        name: report[name]
        for name in ("place", "index", "written", "total", "checked", "found", "notes")
    } == {
        "place": f"{place}/photos",
        "index": "FLAT",
        "written": 150,
        "total": 150,
        "checked": 4,
        "found": 4,
        "notes": [],
    }
    again = vitsearch("push", shards, "--milvus", f"{place}/photos")
    assert again.stdout.decode().startswith(
        f"{place}/photos holds 150 photos (0 written, 150 unchanged; FLAT) in "
    )
    for arguments in (
        ["search", "red", "-k", "7"],
        ["similar", "year1/004.png", "--where", "camera like '%nikon%'"],
        ["search", "red", "--paths"],
    ):
        found = [
            vitsearch(arguments[0], where, *arguments[1:]) for where in (shelf, f"{place}/photos")
        ]
        assert found[1].returncode == 0, found[1].stderr
        assert (found[1].stdout, found[1].stderr) == (found[0].stdout, b"")
    labels = [
        vitsearch("label", where, "--labels", "red,blue", "--json")
        for where in (shelf, f"{place}/photos")
    ]
    assert labels[1].stdout == labels[0].stdout != b""
    info = json.loads(vitsearch("info", f"{place}/photos", "--json").stdout)
    assert (info["photos"], info["encoder"], info["index"]) == (150, "colour", "FLAT")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["failures"],
            1,
            (
                "is a collection in Milvus, and `vitsearch failures` works on a folder of photos: "
                "name the folder; search, similar"
            ),
        ),
        (["index"], 1, "`vitsearch index` works on a folder of photos"),
        (
            ["search", "red", "--collection", "x"],
            2,
            "--collection DIR goes with a folder of photos",
        ),
        (
            ["label", "--labels", "a", "--store"],
            2,
            "--store writes into a collection on disk: label that one, and push it again",
        ),
        (["label", "--labels", "a", "--xmp"], 2, "--xmp writes beside the photos"),
        (["label", "--labels", "a", "--sort-into", "x"], 2, "--sort-into takes a folder of photos"),
        (["search", "red"], 1, "there is no file "),
    ],
)
def test_what_milvus_is_not_for_is_told(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = vitsearch(arguments[0], f"milvus://{tmp_path}/none.db/photos", *arguments[1:])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, b"", 1)
    assert words in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_push_that_cannot_be_is_told_in_one_line(shards: Path, tmp_path: Path) -> None:
    cases = [
        (
            [shards, "--milvus", "http://localhost:1", "--collection", "a"],
            "names nothing in Milvus: write milvus://HOST:PORT/NAME",
        ),
        (
            [shards, "--milvus", "milvus://localhost:1", "--collection", "a"],
            "no Milvus answers at http://localhost:1: start it",
        ),
        ([tmp_path / "none", "--milvus", f"milvus://{tmp_path}/a.db/photos"], "none"),
    ]
    for arguments, words in cases:
        done = vitsearch("push", *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, b"", 1), (
            done.stderr
        )
        assert words in done.stderr.decode()
    assert not (tmp_path / "a.db").exists()


# -- the web page ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(uri: str) -> Iterator[TestClient]:
    settings = ServeSettings()
    service = PhotoService.open(uri, encoder=ColourEncoder(), settings=settings)
    with TestClient(
        make_app(service, settings),
        base_url="http://127.0.0.1:8765",
        client=("127.0.0.1", 50_000),
        cookies=dict([key_cookie(settings)]),
    ) as client:
        yield client
    service.close()


@pytest.mark.slow
def test_the_page_shows_a_collection_in_milvus(
    site: TestClient, both: tuple[Collection, Collection]
) -> None:
    local, _ = both
    answer = site.get("/api/search", params={"q": "red", "k": 7, "where": "year >= 2019"})
    assert answer.status_code == 200, answer.text
    found = answer.json()["results"]
    expected = local.search("red", 7, where="year >= 2019")
    assert [(one["path"], one["score"]) for one in found] == [
        (hit.path, pytest.approx(hit.score, abs=1e-6)) for hit in expected
    ]
    one = photo_id("year1/004.png")
    alike = site.get(f"/api/similar/{one}", params={"k": 5}).json()["results"]
    assert [hit["path"] for hit in alike] == [
        hit.path for hit in local.similar(local.root / "year1" / "004.png", 5)
    ]
    assert site.get(f"/api/photos/{one}").json()["path"] == "year1/004.png"
    assert (
        site.get(f"/api/photos/{one}/thumbnail", params={"size": 160}).headers["content-type"]
        == "image/webp"
    )
    info = site.get("/api/info").json()
    assert {name: info[name] for name in ("photos", "encoder", "index", "recall", "failed")} == {
        "photos": 150,
        "encoder": "colour",
        "index": "FLAT",
        "recall": 1.0,
        "failed": None,
    }


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/", "150"),
        ("/?q=red", "year"),
        (f"/photos/{photo_id('year1/004.png')}", "004.png"),
        ("/labels", "label 1"),
        ("/labels?labels=red%0Ablue", "blue"),
        ("/duplicates", "is a copy|are copies"),
        ("/duplicates?kind=alike", "group|No photo looks like"),
        (
            "/failures",
            (
                "Milvus holds photos only: the files that could not be read are listed in the "
                "shards "
                "that were pushed"
            ),
        ),
        ("/map/list", "150 photos in"),
    ],
)
def test_the_pages_of_a_collection_in_milvus(site: TestClient, address: str, words: str) -> None:
    page = site.get(address)
    assert page.status_code == 200
    assert re.search(words, page.text)


@pytest.mark.slow
def test_the_map_names_photos_whose_numbers_have_63_bits(
    site: TestClient, both: tuple[Collection, Collection]
) -> None:
    body = site.get("/map/places").content
    ids = np.frombuffer(body[: 150 * 8], dtype="<u8").tolist()
    assert len(body) == 150 * 16
    assert ids == sorted(photo.photo_id for photo in both[1].photos())


def test_a_photo_that_is_not_here_says_what_to_do(uri: str) -> None:
    service = PhotoService.open(uri, encoder=ColourEncoder(), root="/nowhere")
    try:
        with pytest.raises(
            UnknownPhoto, match="is not there any more: say with --photos ROOT where the photos are"
        ):
            service.open_photo(photo_id("year1/004.png"))
        with pytest.raises(QueryError, match="Milvus holds photos only"):
            service.failures()
    finally:
        service.close()


@pytest.mark.slow
def test_serve_reads_from_milvus(shards: Path, shelf: Path, tmp_path: Path) -> None:
    place = f"milvus://{tmp_path / 'a.db'}/photos"
    push(shards, place)
    with serving(place, "--photos", str(shelf)) as (_, port):  # type: ignore[arg-type]
        status, body = fetch(port, "/api/search?q=red&k=3")
        assert (status, len(json.loads(body)["results"])) == (200, 3)
        assert fetch(port, f"/api/photos/{photo_id('year1/004.png')}/thumbnail?size=160")[0] == 200
        status, body = fetch(port, "/index")
        assert (status, b"is filled by `vitsearch push`, not from here" in body) == (403, True)
    refused = vitsearch("serve", shelf, "--photos", shelf)
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"--photos ROOT goes with a collection in Milvus" in refused.stderr

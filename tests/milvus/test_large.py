"""A large collection in Milvus: numbers that are counted by Milvus are those of SQLite, a page of
the newest is read alone, and what takes all photos is answered from a sample, which is said.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from helpers.cli import vitsearch
from helpers.web_client import HERE, client_of
from vitsearch import Collection
from vitsearch.arrays import unit_rows
from vitsearch.cluster.push import push
from vitsearch.collection.backend import positions, towns
from vitsearch.collection.map import current_map
from vitsearch.encoders.base import golden_vectors
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.filters import parse_filter
from vitsearch.interop import import_shards
from vitsearch.milvus import store as milvus_store
from vitsearch.milvus.client import Connection
from vitsearch.milvus.store import MilvusStore
from vitsearch.shards import Manifest, ShardRow, create_shards, photo_id
from vitsearch.storage import metadata as stored
from vitsearch.types import PhotoInfo
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app
from vitsearch.web.service import PhotoService

ROWS, SAMPLE = 300, 60
DATES = [
    "2019-07-14T18:30:05", "2019-07-14T09:00", "2019-07-02", "2019-07", "2019", None,
    "2020-01-31T00:00:00", "2020-12", "1987-03-05",
]  # fmt: skip
TOWNS = [(None, None), ("Bern", "Switzerland"), ("Oslo", "Norway"), (None, "Norway")]
EVERY = parse_filter("path is not null")
FILTERS = ["path is not null", "camera = 'Nikon'", "year = 2019", "month = 7", "year is null"]


def row(number: int) -> ShardRow:
    city, country = TOWNS[number % 4]
    path, later = f"{number % 5}/{number:03d}.jpg", number % 50 == 49
    if number % 50 >= 48:  # a video of two moments
        path = f"0/{number // 50}.mp4{'#t=2.000' * later}"
    facts: dict[str, Any] = {
        "taken_at": DATES[number * 7 % 9],
        "camera": "Nikon" if number % 3 else None,
        "description": "red" if number % 3 else None,
        "city": city,
        "country": country,
        "latitude": number / 10 if number % 4 else None,
        "longitude": -number / 2 if number % 4 else None,
        "time": 2.0 if later else None,
    }
    info = PhotoInfo(640, 480, facts)
    fingerprint = number.to_bytes(16)
    label = ("cat", 0.5) if number % 2 else (None, None)
    return ShardRow(photo_id(path), path, 10, 10**9 * number, fingerprint, info, *label)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder = ColourEncoder()
    random = np.random.default_rng(0)
    halves = unit_rows(random.random((ROWS, encoder.dim), dtype=np.float32)).astype(np.float16)
    golden = golden_vectors(encoder).tolist()
    output = tmp_path_factory.mktemp("shards") / "out"
    facts = ("float32", encoder.dim, golden, str(output.parent), "scaled", ROWS, ROWS, 1)
    writer = create_shards(output, Manifest("colour", encoder.fingerprint, *facts))
    writer.write(0, [row(number) for number in range(ROWS)], halves)
    return output


@pytest.fixture(scope="module")
def uri(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    place = f"milvus://{tmp_path_factory.mktemp('milvus') / 'a.db'}/photos"
    assert push(shards, place, index="FLAT").total == ROWS
    return place


def test_rows_are_seen_before_the_generation_is_raised(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers remember what they see of a generation, and may see rows late that no count with
    "Strong" has waited for.
    """
    steps: list[str] = []
    for name in ("flush", "count", "raise_generation"):
        step = getattr(Connection, name)

        def noted(self: Connection, *args: Any, name: str = name, step: Any = step) -> Any:
            steps.append(name)
            return step(self, *args)

        monkeypatch.setattr(Connection, name, noted)
    push(shards, f"milvus://{tmp_path / 'b.db'}/photos", index="FLAT")
    assert steps[steps.index("flush") :] == ["flush", "count", "raise_generation"]


@pytest.fixture
def large(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    """The collection, which is taken to be large."""
    monkeypatch.setattr(milvus_store, "LARGE", 100)
    monkeypatch.setattr(milvus_store, "SAMPLE", SAMPLE)
    monkeypatch.setattr(milvus_store, "MANY", 20)
    with Collection.open(uri, encoder=ColourEncoder()) as collection:
        yield collection


@pytest.fixture(scope="module")
def folder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local") / "collection"
    import_shards(shards, collection=folder, encoder=ColourEncoder())
    return folder


@pytest.fixture
def local(folder: Path) -> Iterator[Collection]:
    """The same photos on disk."""
    with Collection.open(folder.parent, collection=folder, encoder=ColourEncoder()) as collection:
        yield collection


def store_of(collection: Collection) -> MilvusStore:
    assert isinstance(collection.store, MilvusStore)
    return collection.store


def paths_of(collection: Collection, ids: Any) -> list[str]:
    paths = {row[0]: row[1] for row in collection.store.rows([int(each) for each in ids])}
    return [paths[each] for each in ids]


@pytest.mark.slow
@pytest.mark.parametrize("text", FILTERS)
def test_months_and_numbers_are_those_of_sqlite(
    large: Collection, local: Collection, text: str
) -> None:
    where = parse_filter(text)
    first = store_of(large).first_moments(where)
    assert first is not None
    assert large.store.months_where(first) == local.store.months_where(first)
    assert large.store.count_where(first) == local.store.count_where(first) > 0
    assert large.store.distinct(["year"]) == local.store.distinct(["year"])
    assert (len(large), large.store.count()) == (len(local), ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("text", FILTERS)
def test_any_part_of_the_newest_is_read_alone(
    large: Collection, local: Collection, text: str
) -> None:
    where = store_of(large).first_moments(parse_filter(text))
    assert where is not None
    expected = paths_of(local, local.store.ids_where(where, order="newest").tolist())
    months, store = large.store.months_where(where), store_of(large)
    for start, stop in [(0, 7), (3, 55), (50, 60), (0, ROWS), (290, 320), (ROWS, ROWS + 5)]:
        part = store.newest(where, months, start, stop)
        assert paths_of(large, part) == expected[start:stop]
    highest = sorted(store.ids_where(where).tolist(), reverse=True)
    assert [store.last_ids(where, count) for count in (1, 20, 400)] == [
        highest[:count] for count in (1, 20, 400)
    ]


@pytest.mark.slow
def test_search_by_a_date_alone_gives_the_newest(large: Collection, local: Collection) -> None:
    for query in ("2019", "since 2019"):
        answers = [[hit.path for hit in each.search(query, 12)] for each in (large, local)]
        assert answers[0] == answers[1]
        assert len(answers[0]) == 12


@pytest.mark.slow
def test_labels_map_and_places_are_those_of_a_sample(large: Collection, local: Collection) -> None:
    size = large.sample_size()
    assert size is not None
    assert SAMPLE / 2 < size < 2 * SAMPLE
    assert local.sample_size() is None
    every = {each.path: each for each in large.label(["red", "blue"])}
    sampled = large.label(["red", "blue"], sampled=True)
    assert len(sampled) == size
    photos = [each for each in sampled if each.path.endswith("jpg")]
    assert photos == [every[each.path] for each in photos]
    assert local.label(["red", "blue"], sampled=True) == local.label(["red", "blue"])
    ids = [photo.photo_id for photo in store_of(large).sampled_photos()]
    assert current_map(large).ids.tolist() == sorted(ids)
    located, here = positions(large.store, EVERY), stored.positions(local.store, EVERY)
    assert located.total == len(here.ids)
    assert len(located.ids) < len(here.ids)
    assert {*zip(located.latitudes, located.longitudes, strict=True)} < {
        *zip(here.latitudes, here.longitudes, strict=True)
    }
    few = parse_filter("latitude between 3 and 8")
    assert (positions(large.store, few).total, towns(large.store, few)) == (
        None,
        towns(local.store, few),
    )
    assert {town for town, _ in towns(large.store, EVERY).counts} <= {
        town for town, _ in towns(local.store, EVERY).counts
    }


def test_of_a_filter_the_sample_has_no_later_moments(
    large: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_store, "SAMPLE", ROWS - 1)
    store = store_of(large)
    assert store.sampled_ids(EVERY) == {row[0] for row in store.sampled_rows()}


@pytest.fixture
def site(large: Collection, uri: str) -> Iterator[TestClient]:
    settings = ServeSettings()
    service = PhotoService.open(uri, encoder=ColourEncoder(), settings=settings)
    with client_of(make_app(service, settings), settings, HERE) as client:
        yield client


def test_the_interface_says_of_how_many_photos_labels_are(site: TestClient) -> None:
    answer = site.get("/api/labels", params={"labels": "red,blue"}).json()
    assert sum(label["photos"] for label in answer["labels"]) == answer["sample"] < ROWS
    where = {"labels": "red,blue", "where": "camera = 'Nikon'"}
    narrowed = site.get("/api/labels", params=where).json()
    assert narrowed["sample"] == sum(label["photos"] for label in narrowed["labels"])
    assert narrowed["sample"] < answer["sample"]
    stored_ones = site.get("/api/labels").json()
    [cat] = stored_ones["labels"]
    assert cat["photos"] + stored_ones["unlabelled"] == stored_ones["sample"] == answer["sample"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "address", ["/", "/labels", "/labels?labels=red%0Ablue", "/map", "/map/list", "/places/list"]
)
def test_the_pages_say_that_they_show_a_sample(site: TestClient, address: str) -> None:
    page = site.get(address)
    assert page.status_code == 200
    assert "a sample of" in page.text


@pytest.mark.slow
def test_the_pages_of_the_newest(site: TestClient, local: Collection) -> None:
    first = site.get("/").text
    assert f"{len(local)} photos" in first
    assert "2020" in first
    ids = [int(part.partition('"')[0]) for part in first.split('name="id" value="')[1:]]
    files = local.store.ids_where(parse_filter("time is null"), order="newest").tolist()
    newest = [photo_id(path) for path in paths_of(local, files)]
    assert ids == newest[: len(ids)]
    following = site.get("/?page=2").text
    more = [int(part.partition('"')[0]) for part in following.split('name="id" value="')[1:]]
    assert more == newest[len(ids) : len(ids) + len(more)]
    assert more


def test_the_map_of_places_says_of_how_many_photos_a_view_is(
    site: TestClient, local: Collection
) -> None:
    total = len(stored.positions(local.store, EVERY).ids)
    world = {"west": -180, "south": -90, "east": 180, "north": 90, "zoom": 2}
    answer = site.get("/places/clusters", params=world).json()
    assert (answer["total"], answer["sampled"]) == (total, total)
    assert sum(cluster[0] for cluster in answer["clusters"]) == answer["photos"] < total
    part = world | {"south": 3, "north": 8}
    few = site.get("/places/clusters", params=part).json()
    inside = stored.positions(local.store, parse_filter("latitude between 3 and 8"))
    assert (few["total"], few["photos"], "sampled" in few) == (total, len(inside.ids), False)


@pytest.mark.slow
def test_ids_of_63_bits_are_strings_in_json(site: TestClient) -> None:
    hits = site.get("/api/search", params={"q": "red", "k": 3}).json()["results"]
    assert all(isinstance(hit["id"], str) for hit in hits)
    assert [hit["id"] for hit in hits] == [str(photo_id(hit["path"])) for hit in hits]
    one = hits[0]["id"]
    assert site.get(f"/api/photos/{one}").json()["id"] == one
    alike = site.get(f"/api/similar/{one}", params={"k": 3}).json()["results"]
    answer = site.post("/api/search", json={"terms": [{"photo": one}], "k": 3})
    assert answer.json()["results"] == alike


def test_captions_in_milvus_measure_retrieval(uri: str) -> None:
    done = vitsearch("eval", uri, "--captions", "descriptions", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    described = sum(
        row(number).path.endswith(("jpg", "mp4")) and number % 3 > 0 for number in range(ROWS)
    )
    assert (facts["photos"], facts["captions"], facts["unknown_captions"]) == (described,) * 2 + (
        0,
    )
    low, high = facts["image_retrieval_recall@5_low"], facts["image_retrieval_recall@5_high"]
    assert low <= facts["image_retrieval_recall@5"] <= high

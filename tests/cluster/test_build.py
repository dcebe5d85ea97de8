"""An index from shards: every photo once and in order, exact scores, paths by ids, one answer
however it was built.
"""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import environment, vitsearch
from helpers.remarks import logged_remarks, on_remark
from vitsearch.arrays import unit_rows
from vitsearch.cluster.build import build_index, draw_sample
from vitsearch.cluster.shard_index import FACTS, ShardIndex, make_part, write_order
from vitsearch.errors import CollectionError, CollectionLocked, IndexDamaged, RecipeError
from vitsearch.index.backends import ExactIndex
from vitsearch.index.manifest import read_manifest
from vitsearch.index.snapshot import verify_snapshot
from vitsearch.shards import Manifest, ShardRow, create_shards, open_shards, photo_id
from vitsearch.storage.filesystem import writer_lock
from vitsearch.types import PhotoInfo

pytestmark = pytest.mark.slow

DIM = 16
MANY = 12_000  # enough for inverted lists
PIECE = 1500
ODD = "sub/caf\udce9 \u00e9.jpg"  # a name that is not UTF-8


def path_of(number: int) -> str:
    return ODD if number == 3 else f"{number // 100:03d}/{number}.jpg"


@cache
def clustered(count: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = unit_rows(np.random.default_rng(9).standard_normal((40, DIM)))
    return unit_rows(
        centres[rng.integers(0, 40, count)]
        + 0.25 * rng.standard_normal((count, DIM)).astype(np.float32)
    ).astype(np.float16)


def write_shards(
    folder: Path, count: int, *, skip: tuple[int, ...] = (), finish: bool = True
) -> np.ndarray:
    """Write shards of so many photos, with a file that is none in each, and return the vectors."""
    vectors = clustered(count)
    numbers = -(-count // PIECE)
    manifest = Manifest(
        "colour",
        "f" * 32,
        "float32",
        DIM,
        [[1.0] + [0.0] * (DIM - 1)],
        "/photos",
        "scaled",
        PIECE + 1,
        count + numbers,
        numbers,
    )
    writer = create_shards(folder, manifest)
    for number in range(numbers):
        if number in skip:
            continue
        block = range(number * PIECE, min(count, (number + 1) * PIECE))
        rows = [
            ShardRow(photo_id(path_of(i)), path_of(i), 10, 20, b"f" * 16, PhotoInfo(640, 480))
            for i in block
        ]
        rows.insert(
            1, ShardRow(photo_id(f"bad{number}"), f"bad{number}.jpg", 1, 2, error="not a picture")
        )
        writer.write(number, rows, vectors[block.start : block.stop])
    if finish:
        writer.finish()
    return vectors


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "shards"
    write_shards(folder, MANY)
    return folder


@pytest.fixture(scope="module")
def built(shards: Path) -> Path:
    index = shards.parent / "index"
    build_index(shards, index, memory=400_000_000)
    return index


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of an index by name; of the manifest, what does not depend on the time."""
    files = {
        file.name: file.read_bytes() for file in folder.iterdir() if file.name != "manifest.json"
    }
    manifest = json.loads((folder / "manifest.json").read_bytes())
    facts = {name: value for name, value in manifest.items() if name not in ("files", "checksum")}
    return files | {"manifest": json.dumps(facts).encode()}


def test_every_photo_is_in_it_once_and_in_order(built: Path) -> None:
    index = ShardIndex.open(built)
    names = [path_of(number) for number in range(MANY)]
    assert (len(index), index.dim) == (MANY, DIM)
    assert index.ids.tolist() == [photo_id(name) for name in names]
    assert index.paths(index.ids) == names
    assert index.vectors.tobytes() == clustered(MANY).tobytes()
    assert index.ids[index.order].tolist() == sorted(index.ids.tolist())
    assert sorted(file.name for file in built.iterdir()) == sorted(
        [
            "index.faiss",
            "lists.ivfdata",
            "vectors.f16",
            "ids.i64",
            "order.i64",
            "paths.bin",
            "paths.i64",
            "shards.json",
            "manifest.json",
        ]
    )
    facts = json.loads((built / FACTS).read_bytes())
    assert (facts["encoder"], facts["source"], facts["shards"]) == (
        "colour",
        "/photos",
        -(-MANY // PIECE),
    )


def test_scores_are_exact_and_recall_is_what_was_measured(built: Path) -> None:
    index, queries = ShardIndex.open(built), clustered(50, seed=5).astype(np.float32)
    ids, scores = index.search(queries, 10)
    truth = ExactIndex(index.vectors, np.arange(MANY)).search_batch(queries, 10)
    rows = {int(one): row for row, one in enumerate(index.ids)}
    for place, query in enumerate(queries):
        own = index.vectors[[rows[int(one)] for one in ids[place]]].astype(np.float64)
        exact = own @ query / np.linalg.norm(own, axis=1) / np.linalg.norm(query)
        np.testing.assert_allclose(scores[place], exact, atol=1e-6)
        assert (np.diff(scores[place]) <= 0).all()
    shares = [
        len({*index.ids[one.ids].tolist()} & {*ids[place].tolist()}) / 10
        for place, one in enumerate(truth)
    ]
    measured = read_manifest(built).measured
    assert measured is not None
    assert (measured.k, measured.texts, measured.queries, measured.count) == (10, None, 200, MANY)
    assert measured.recall >= 0.95
    assert np.mean(shares) == pytest.approx(measured.recall, abs=0.05)


def test_the_measured_recall_is_that_of_a_plain_count(built: Path) -> None:
    index = ShardIndex.open(built)
    own = np.sort(np.random.default_rng(0).choice(MANY, 200, replace=False))
    queries = index.vectors[own].astype(np.float32)
    _, found = index.search(queries, 11)
    everything = np.asarray(index.vectors, dtype=np.float64)
    everything /= np.linalg.norm(everything, axis=1, keepdims=True)
    scores = unit_rows(queries).astype(np.float64) @ everything.T
    scores[np.arange(200), own] = -2
    bars = -np.sort(-scores, axis=1)[:, 9]
    share = np.mean(
        [(row[1:11] >= bar - 2e-6).sum() / 10 for row, bar in zip(found, bars, strict=True)]
    )
    measured = read_manifest(built).measured
    assert measured is not None
    assert share == pytest.approx(measured.recall, abs=0.01)


def test_a_stricter_recall_is_tuned_for(shards: Path, tmp_path: Path) -> None:
    report = build_index(shards, tmp_path / "index", recipe="ivf", recall=1.0)
    assert report.measured is not None
    assert report.measured.recall == 1.0
    queries = clustered(20, seed=6).astype(np.float32)
    index = ShardIndex.open(tmp_path / "index")
    ids, _ = index.search(queries, 5)
    truth = ExactIndex(index.vectors, np.arange(MANY)).search_batch(queries, 5)
    assert (
        np.mean(
            [
                len({*index.ids[one.ids].tolist()} & {*row.tolist()}) / 5
                for one, row in zip(truth, ids, strict=True)
            ]
        )
        > 0.97
    )


@pytest.mark.parametrize("recipe", ["ivf-pq", "rabitq", "ivf"])
def test_recipes_of_inverted_lists(shards: Path, tmp_path: Path, recipe: str) -> None:
    report = build_index(shards, tmp_path / "index", recipe=recipe)
    assert (report.rows, report.shards, report.recipe.name) == (MANY, 8, recipe)
    index = ShardIndex.open(tmp_path / "index")
    queries = index.vectors[:30].astype(np.float32)
    ids, scores = index.search(queries, 1)
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-6)
    assert (ids[:, 0] == index.ids[:30]).mean() > 0.9


@pytest.mark.engines
def test_ray_builds_the_same_index(cluster: Any, shards: Path, built: Path, tmp_path: Path) -> None:
    with logged_remarks() as notes:
        report = build_index(shards, tmp_path / "index", memory=400_000_000, address="local")
    assert report.parts == 8
    assert "8 of 8 parts" in notes
    one, other = ShardIndex.open(built), ShardIndex.open(tmp_path / "index")
    queries = clustered(30, seed=4).astype(np.float32)
    for mine, theirs in zip(one.search(queries, 10), other.search(queries, 10), strict=True):
        assert mine.tolist() == theirs.tolist()
    assert content(tmp_path / "index") == content(built)


@pytest.mark.engines
def test_an_error_on_the_cluster_is_ours(cluster: Any, shards: Path, tmp_path: Path) -> None:
    broken = tmp_path / "shards"
    write_shards(broken, 600)
    (broken / "shards" / "000000.parquet").write_bytes(
        (shards / "shards" / "000000.parquet").read_bytes()[:-500] + b"x" * 500
    )
    with pytest.raises(CollectionError, match=r"000000\.parquet cannot be read as a shard"):
        build_index(broken, tmp_path / "index", address="local")
    assert not (tmp_path / "index").exists()


class Stopped(Exception):
    """What ends a run in the middle."""


def test_a_stopped_run_goes_on_and_gives_the_same(
    shards: Path, built: Path, tmp_path: Path
) -> None:
    def stop(note: str) -> None:
        if note.startswith("3 of"):
            raise Stopped

    with pytest.raises(Stopped), on_remark(stop):
        build_index(shards, tmp_path / "index", memory=400_000_000)
    assert not (tmp_path / "index").exists()
    report = build_index(shards, tmp_path / "index", memory=400_000_000)
    assert (report.reused_parts, report.parts) == (3, 8)
    assert content(tmp_path / "index") == content(built)
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


def test_one_builds_at_a_time(shards: Path, tmp_path: Path) -> None:
    with writer_lock(tmp_path / "index.new"):
        with pytest.raises(CollectionLocked, match="another vitsearch is writing"):
            build_index(shards, tmp_path / "index")
    build_index(shards, tmp_path / "index")
    assert [file.name for file in tmp_path.iterdir()] == ["index"]


def test_a_full_disk_is_one_line_and_keeps_the_index(
    shards: Path, built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "index")
    before = content(tmp_path / "index")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "from vitsearch.cli import main; sys.argv[0] = 'vitsearch'; main()"
    )
    command = [sys.executable, "-c", code, "build", str(shards), str(tmp_path / "index")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    said = (
        f"vitsearch: cannot write to {tmp_path / 'index.new'} (File too large): free some "
        "space, and run the same command to go on\n"
    )
    assert done.stderr == said
    assert content(tmp_path / "index") == before


def test_another_recipe_does_not_go_on_with_what_was_begun(shards: Path, tmp_path: Path) -> None:
    def stop(note: str) -> None:
        if note.startswith("3 of"):
            raise Stopped

    with pytest.raises(Stopped), on_remark(stop):
        build_index(shards, tmp_path / "index", recipe="ivf")
    report = build_index(shards, tmp_path / "index", recipe="ivf-sq8")
    assert (report.reused_parts, report.recipe.name) == (0, "ivf-sq8")


def test_an_index_is_replaced_and_kept_where_that_fails(
    shards: Path, built: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(built, tmp_path / "index"))
    before = content(place)
    with pytest.raises(RecipeError):
        build_index(shards, place, recipe="hnsw")
    assert content(place) == before
    build_index(shards, place, recipe="ivf")
    assert ShardIndex.open(place).manifest.recipe.name == "ivf"


def test_a_part_made_twice_is_the_same(
    shards: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitsearch.cluster import build

    def twice(part: Any) -> int:
        make_part(part)
        part.file("done").unlink()  # as where a task is lost after its work and run again
        return make_part(part)

    monkeypatch.setattr(build, "make_part", twice)
    build_index(shards, tmp_path / "index", memory=400_000_000)
    assert content(tmp_path / "index") == content(built)


@pytest.mark.parametrize("count", [1, 7, 1600])
def test_few_photos_are_searched_exactly(tmp_path: Path, count: int) -> None:
    vectors = write_shards(tmp_path / "shards", count)
    report = build_index(tmp_path / "shards", tmp_path / "index")
    assert (report.measured, report.recipe.name) == (None, "exact")
    index = ShardIndex.open(tmp_path / "index")
    queries = clustered(5, seed=1).astype(np.float32)
    ids, scores = index.search(queries, 10)
    truth = ExactIndex(vectors, np.arange(count)).search_batch(queries, 10)
    found = min(count, 10)
    assert ids[:, :found].tolist() == [index.ids[one.ids].tolist() for one in truth]
    np.testing.assert_allclose(scores[:, :found], [one.scores for one in truth], atol=1e-7)
    assert (ids[:, found:] == -1).all()
    assert np.isneginf(scores[:, found:]).all()
    assert index.search(queries, 0)[0].shape == (5, 0)


def test_an_id_that_is_not_there(built: Path) -> None:
    index = ShardIndex.open(built)
    for missing in (0, 1, 2**63 - 1, int(index.ids[5]) + 1):
        with pytest.raises(KeyError):
            index.paths([missing])
    assert index.paths([]) == []
    with pytest.raises(ValueError, match="expected"):
        index.search(np.zeros((1, DIM + 1), dtype=np.float32))


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=60), st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_rows_in_order_of_ids_however_many_are_sorted_at_once(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], most: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    np.array(ids, dtype="<i8").tofile(folder / "ids.i64")
    write_order(folder, len(ids), batch=most)
    assert np.fromfile(folder / "order.i64", "<i8").tolist() == sorted(
        range(len(ids)), key=lambda row: ids[row]
    )


@given(st.integers(1, 3000), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_a_sample_is_of_different_rows_of_all_shards(shards: Path, size: int, seed: int) -> None:
    found = open_shards(shards)
    counts = {number: found.counts([number])[0] for number in found.finished()}
    sample = draw_sample(found, counts, size, seed=seed)
    assert sample.tobytes() == draw_sample(found, counts, size, seed=seed).tobytes()
    rows = {row.tobytes(): place for place, row in enumerate(clustered(MANY))}
    places = [rows[row.tobytes()] for row in sample]
    assert len(places) == size
    assert (np.diff(places) > 0).all()
    if size > 1000:
        assert {place // PIECE for place in places} == set(range(8))


@pytest.fixture(
    params=[
        "vectors.f16",
        "ids.i64",
        "order.i64",
        "paths.bin",
        "paths.i64",
        "index.faiss",
        "lists.ivfdata",
        "shards.json",
    ]
)
def harmed(request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "index")
    file = tmp_path / "index" / request.param
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    return file


def test_a_cut_file_is_noticed(harmed: Path) -> None:
    with pytest.raises(IndexDamaged, match=harmed.name):
        ShardIndex.open(harmed.parent)


def test_the_folder_is_whole_by_its_own_checksums(built: Path) -> None:
    assert read_manifest(built).count == MANY
    with pytest.raises(
        IndexDamaged, match="is not in order"
    ):  # ids are in the order of the shards here, unlike in a collection
        verify_snapshot(built)


def test_what_cannot_be_built(shards: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "half", 4000, skip=(1,), finish=False)
    (tmp_path / "mine").mkdir()
    shutil.copytree(shards, tmp_path / "other")
    (tmp_path / "other" / "manifest.json").write_text(
        "{}"
    )  # as in the folder of a collection's index
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    cases: list[tuple[Path, Path, dict[str, Any], type[Exception], str]] = [
        (tmp_path / "none", tmp_path / "index", {}, CollectionError, "no shards in"),
        (
            tmp_path / "half",
            tmp_path / "index",
            {},
            CollectionError,
            "lacks 1 shards: run the same `vitsearch embed` again",
        ),
        (shards, tmp_path / "mine", {}, CollectionError, "is no index that could be replaced"),
        (shards, tmp_path / "other", {}, CollectionError, "is no index that could be replaced"),
        (
            shards,
            tmp_path / "index",
            {"memory": 100_000_000},
            CollectionError,
            "allow 400 MB or more",
        ),
        (
            shards,
            tmp_path / "index",
            {"recall": 1.5},
            CollectionError,
            "a recall is above 0 and at most 1",
        ),
        (shards, tmp_path / "index", {"recipe": "hnsw"}, RecipeError, "cannot be built in parts"),
        (shards, tmp_path / "index", {"recipe": "nope"}, RecipeError, "unknown recipe"),
    ]
    for output, index, options, error, says in cases:
        with pytest.raises(error, match=says):
            build_index(output, index, **options)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["half", "mine", "other"]


def test_the_command(shards: Path, built: Path, tmp_path: Path) -> None:
    done = vitsearch("build", shards, tmp_path / "index", "--memory", "400MB", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["shards"], report["parts"], report["recipe"]["name"]) == (
        MANY,
        8,
        8,
        "ivf-sq8",
    )
    assert sorted(report["seconds"]) == ["add", "finish", "measure", "merge", "train"]
    assert b"vitsearch: 8 of 8 parts\n" in done.stderr
    assert content(tmp_path / "index") == content(built)
    again = vitsearch("build", shards, tmp_path / "index")
    assert again.returncode == 0
    assert again.stdout.decode().startswith("12,000 photos of 8 shards are in ")
    assert "recall@10 " in again.stdout.decode()
    wrong = vitsearch("build", tmp_path, tmp_path / "other")
    assert (wrong.returncode, wrong.stdout) == (1, b"")
    assert (
        wrong.stderr
        == f"vitsearch: no shards in {tmp_path}: "
        f"`vitsearch embed SOURCE {tmp_path}` makes them\n".encode()
    )

"""The life of an index: what is chosen, what goes into the delta, when everything is built again,
and that nothing is lost on the way.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.cli import vitsearch
from helpers.photos import paint, shade
from helpers.remarks import logged_remarks, on_remark
from vitsearch import Collection, index_folder
from vitsearch.arrays import cosine_scores, unit_rows
from vitsearch.cli.index import bytes_of
from vitsearch.collection.maintain import TuneReport, is_stale
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError, CollectionNotFound, IndexDamaged
from vitsearch.index import recipe as choose
from vitsearch.index.manifest import Manifest
from vitsearch.index.recipe import Recipe, load_recipe
from vitsearch.index.snapshot import build_snapshot, open_snapshot, verify_snapshot
from vitsearch.storage import indexes

pytest.importorskip("faiss", reason="needs the extra vitsearch[faiss]")

from vitsearch.index import faiss_large

COUNT = 150


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 150 photos of different colours, each in two stripes; collections of 100 are
    large here.
    """
    monkeypatch.setattr(indexes, "DELTA_FROM", 100)
    monkeypatch.setattr(indexes, "TRIED", ("ivf-sq8",))  # which is fastest is chance
    monkeypatch.setattr(choose, "EXACT_UP_TO", 100)
    for number in range(COUNT):
        two_shades(tmp_path / "photos", number)
    return tmp_path / "photos"


def two_shades(folder: Path, number: int) -> Path:
    return paint(folder / f"{number:03}.png", shade(number), shade(number * 7 + 3))


def tune(folder: Path, recall: float = 0.95) -> TuneReport:
    with Collection.open(folder) as found:
        return found.tune(recall)


def run(folder: Path, **options: Any) -> list[str]:
    """Index and return what the run said about the index."""
    with logged_remarks() as lines:
        index_folder(folder, encoder=ColourEncoder(), **options)
    return lines


def manifest(folder: Path, name: str = "index") -> Manifest:
    return verify_snapshot(folder / ".vitsearch" / name)


def check(folder: Path) -> None:
    """Every photo of the collection is found by its own vector, nothing else is, and every check is
    sound.
    """
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        photos, vectors = found.vectors()
        paths = [photo.path for photo in photos]
        assert sorted(paths) == sorted(file.name for file in folder.glob("*.png"))
        for place in range(0, len(photos), 17):
            scores = cosine_scores(vectors, vectors[place])
            hits = found.search(vectors[place], len(photos))
            assert sorted(hit.path for hit in hits) == sorted(paths)
            assert [hit.score for hit in hits] == pytest.approx(
                sorted(scores, reverse=True), abs=1e-3
            )
        assert [one.detail for one in found.verify() if not one.ok] == []


@pytest.mark.slow
def test_auto_is_exact_for_few_photos_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "EXACT_UP_TO", 30_000)
    assert run(folder) == []  # too few photos to speak of it
    text = indexes.describe_choice(indexes.choose(load_recipe("auto"), 20_000, 640), 20_000)
    assert re.fullmatch(
        (
            r"index of 20,000 photos by recipe flat \(up to 30,000 .*\): about 51 MB in memory, "
            r"\d+ s "
            r"to build, 3.\d ms .*"
        ),
        text,
    )
    built = manifest(folder)
    assert (built.recipe, dict(built.requested), built.measured) == (
        load_recipe("flat"),
        load_recipe("auto").to_dict(),
        None,
    )
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        facts = found.info()
    assert {name: facts[name] for name in ("recipe", "index", "recall", "recall_is_old")} == {
        "recipe": "auto",
        "index": "flat",
        "recall": 1.0,
        "recall_is_old": False,
    }
    check(folder)


@pytest.mark.slow
def test_auto_builds_and_tunes_an_index_for_many(folder: Path) -> None:
    chosen, measured = run(folder)
    assert re.match(
        r"index of 150 photos by recipe [\w-]+ \(the fastest of 1 measured on a sample of your "
        r"photos\)",
        chosen,
    )
    built = manifest(folder)
    assert (built.recipe.name in indexes.TRIED, built.recipe.recall) == (True, 0.95)
    assert built.measured is not None
    assert measured == (
        f"recall@10 on {built.measured.queries} queries of your photos: "
        f"{built.measured.photos:.3f}, of words {built.measured.texts:.3f}"
    )
    assert (built.measured.count, built.measured.queries) == (COUNT, COUNT + 400)
    assert built.measured.recall >= 0.95
    assert run(folder) == []  # nothing to do
    check(folder)


@pytest.mark.slow
def test_a_smaller_memory_chooses_a_smaller_index(folder: Path) -> None:
    recipe = Recipe.from_dict(load_recipe("auto").to_dict() | {"memory": 1})
    assert "recipe disk (no index fits into 0 MB" in run(folder, recipe=recipe)[0]
    assert manifest(folder).recipe.on_disk
    check(folder)


@pytest.mark.slow
def test_changes_go_into_a_delta_until_they_are_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder)
    first = manifest(folder)
    for number in range(COUNT, COUNT + 5):
        two_shades(folder, number)
    (folder / "003.png").unlink()
    paint(folder / "004.png", "red", "blue")
    assert run(folder) == []
    delta = manifest(folder, "delta")
    assert (manifest(folder), delta.count, delta.since) == (first, 6, first.generation)
    check(folder)
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        [index] = [one for one in found.verify() if one.name == "index"]
    assert (
        index.detail
        == "154 vectors, 6 of them in the index of changes, the same as in the database"
    )
    (folder / "005.png").unlink()
    monkeypatch.setattr(indexes, "EXACT_DELTA", 1)
    run(folder)
    later = manifest(folder, "delta")
    # only a removal: the delta says up to where it goes; one of many is like the main index
    assert later.generation > delta.generation
    assert (delta.recipe.is_exact, later.recipe) == (True, first.recipe)
    check(folder)
    for number in range(COUNT + 5, COUNT + 20):
        two_shades(folder, number)
    assert "index of 168 photos" in run(folder)[0]
    assert manifest(folder).count == 168
    assert not (folder / ".vitsearch" / "delta").exists()
    check(folder)


@pytest.mark.slow
def test_another_recipe_builds_anew(folder: Path) -> None:
    run(folder)
    assert "recipe hnsw" in run(folder, recipe="hnsw")[0]
    assert (manifest(folder).recipe, dict(manifest(folder).requested)) == (load_recipe("hnsw"), {})
    assert run(folder) == []
    check(folder)


@pytest.mark.slow
def test_a_lost_index_or_delta_loses_nothing(folder: Path) -> None:
    run(folder)
    two_shades(folder, COUNT)
    run(folder)
    collection = folder / ".vitsearch"
    shutil.copytree(collection, folder.parent / "kept")
    shutil.rmtree(collection / "delta")
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        assert len(found.search("red", 400)) == COUNT + 1
    run(folder)
    check(folder)
    shutil.rmtree(collection / "index")  # the delta alone goes on from nothing
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        assert len(found.search("red", 400)) == COUNT + 1
    run(folder)
    assert not (collection / "delta").exists()
    shutil.copytree(
        folder.parent / "kept" / "delta", collection / "delta"
    )  # one that an interrupted run left behind
    two_shades(folder, 7).unlink()
    paint(folder / "150.png", "blue", "blue")
    run(folder)
    check(folder)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "altered", "foreign"])
def test_a_damaged_index_is_noted_and_built_again_or_refused(
    folder: Path, tmp_path: Path, damage: str, remarks: list[str]
) -> None:
    run(folder)
    file = folder / ".vitsearch" / "index" / "index.faiss"
    whole = file.read_bytes()
    changed = {
        "truncated": whole[:-9],
        "altered": whole[:30] + bytes([whole[30] ^ 1]) + whole[31:],
        "foreign": b"IxF2" + bytes(len(whole) - 4),
    }
    file.write_bytes(changed[damage])
    remarks.clear()
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        assert len(found.search("red", 400)) == COUNT
        [note] = remarks
    assert note.endswith("searching every stored vector, the next `vitsearch index` rebuilds it")
    with (
        Collection.open(folder, encoder=ColourEncoder(), read_only=True) as found,
        pytest.raises(IndexDamaged, match=r"index\.faiss"),
    ):
        found.search("red", 400)
    refused = vitsearch("search", folder, "red", "--read-only")
    assert (refused.returncode, refused.stdout, refused.stderr.count(b"\n")) == (1, b"", 1)
    told = run(folder)
    assert re.fullmatch(
        (
            r"index file .*index\.faiss (was altered|has \d+ bytes, not \d+); it is built again "
            r"from "
            r"the stored vectors"
        ),
        told[0],
    )
    check(folder)


@pytest.mark.slow
def test_a_build_that_is_stopped_leaves_the_old_index_and_the_delta(folder: Path) -> None:
    run(folder)
    first = manifest(folder)
    for number in range(COUNT, COUNT + 40):
        two_shades(folder, number)

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), on_remark(stop):
        index_folder(folder, encoder=ColourEncoder())
    assert (manifest(folder), manifest(folder, "delta").count) == (first, 40)
    check(folder)
    run(folder)
    assert manifest(folder).count == COUNT + 40
    check(folder)


@pytest.mark.slow
def test_tuning_by_hand(folder: Path) -> None:
    run(folder, recipe="ivf")
    assert manifest(folder).measured is None
    report = tune(folder, recall=0.5)
    low = manifest(folder)
    assert (report.recipe, report.measured) == (low.recipe, low.measured)
    high = tune(folder, recall=1.0)
    assert high.measured is not None
    assert high.measured.recall == 1.0
    assert low.recipe.search["nprobe"] <= high.recipe.search["nprobe"]
    check(folder)
    for number in range(COUNT, COUNT + 14):  # few enough for the delta
        two_shades(folder, number)
    run(folder)
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        assert (found.info()["recall"], found.info()["recall_is_old"]) == (
            1.0,
            False,
        )
    assert is_stale(manifest(folder), 180) is False
    assert is_stale(manifest(folder), 181) is True


def test_tuning_what_is_exact_or_not_there(folder: Path) -> None:
    with pytest.raises(CollectionNotFound):
        tune(folder)
    run(folder, recipe="flat")
    assert tune(folder).measured is None
    shutil.rmtree(folder / ".vitsearch" / "index")
    assert tune(folder) == TuneReport(load_recipe("flat"), None)  # built where it is missing
    assert manifest(folder).count == COUNT
    with pytest.raises(CollectionError, match="a recall is above 0 and at most 1"):
        tune(folder, recall=1.5)


@pytest.mark.slow
def test_the_command(folder: Path) -> None:
    run(folder, recipe="ivf")
    done = vitsearch("tune", folder, "--recall", "0.9", "--json")
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["measured"]["k"], facts["recipe"]["name"]) == (0, 10, "ivf")
    assert vitsearch("tune", folder).stdout.startswith(b"recall@10 ")
    assert vitsearch("tune", folder, "--recall", "2").returncode == 1
    again = vitsearch("index", folder, "--recipe", "flat")
    assert (again.returncode, again.stderr) == (0, b"")
    assert (
        vitsearch("tune", folder).stdout
        == b"recipe flat compares every photo: there is nothing to tune\n"
    )
    sized = vitsearch("index", folder, "--memory", "1kb", "--recall", "0.8")
    assert sized.returncode == 0
    asked = json.loads((folder / ".vitsearch" / "collection.json").read_bytes())["recipe"]
    assert {key: asked[key] for key in ("name", "memory", "recall")} == {
        "name": "auto",
        "memory": 1000,
        "recall": 0.8,
    }
    wrong = vitsearch("index", folder, "--memory", "lots")
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert b"'lots' is no size: write it as 2GB or 500MB" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("500 mb", 5 * 10**8),
        ("1.5GiB", 3 * 2**29),
        ("7", 7),
        ("3k", 3000),
        (" 1 TB ", 10**12),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


# -- lists on disk ---------------------------------------------------------------------------------


def rows(count: int, dim: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    centres = rng.standard_normal((50, dim))
    vectors = unit_rows(
        centres[rng.integers(0, 50, count)] + 0.5 * rng.standard_normal((count, dim))
    ).astype(np.float16)
    return np.arange(count, dtype=np.int64) * 2 + 1, vectors


def test_lists_on_disk_are_the_lists_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faiss_large, "SHARD_BYTES", 100_000)  # five shards
    ids, vectors = rows(12_000)
    for name in ("disk", "ivf-sq8"):
        build_snapshot(
            tmp_path / name,
            [(ids, vectors)],
            recipe=load_recipe(name),
            dim=32,
            generation=1,
            fingerprint="x",
        )
    assert sorted(file.name for file in (tmp_path / "disk").iterdir()) == [
        "ids.i64",
        "index.faiss",
        "lists.ivfdata",
        "manifest.json",
        "vectors.f16",
    ]
    disk, memory = open_snapshot(tmp_path / "disk"), open_snapshot(tmp_path / "ivf-sq8")
    assert (disk.degraded, type(disk.index), len(disk.index)) == (None, type(memory.index), 12_000)
    for query in vectors[::700].astype(np.float32):
        ours, theirs = disk.search(query, 20), memory.search(query, 20)
        assert ours.scores.tolist() == theirs.scores.tolist()
        assert set(ours.ids.tolist()) == set(theirs.ids.tolist())
    assert capfd.readouterr() == ("", "")
    moved = tmp_path / "elsewhere"
    (tmp_path / "disk").rename(moved)
    assert open_snapshot(moved).search(vectors[5].astype(np.float32), 1).ids.tolist() == [ids[5]]


def test_damaged_lists_on_disk_are_found_out(tmp_path: Path) -> None:
    ids, vectors = rows(12_000)
    build_snapshot(
        tmp_path / "disk",
        [(ids, vectors)],
        recipe=load_recipe("disk"),
        dim=32,
        generation=1,
        fingerprint="x",
    )
    lists = tmp_path / "disk" / "lists.ivfdata"
    whole = lists.read_bytes()
    for damage in (whole[:-1], b"\0" * 100 + whole[100:], whole + b"x"):
        lists.write_bytes(damage)
        with pytest.raises(IndexDamaged, match=r"lists\.ivfdata"):
            open_snapshot(tmp_path / "disk")
    lists.unlink()
    with pytest.raises(IndexDamaged, match="lists.ivfdata is missing"):
        open_snapshot(tmp_path / "disk")

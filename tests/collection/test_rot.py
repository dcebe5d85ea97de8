"""What has rotted on the disk is not shown, is said, and is mended by the next run of indexing."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.cli import environment
from helpers.collections import CountingEncoder, content
from helpers.paths import ROOT
from helpers.photos import paint, shade
from helpers.remarks import logged_remarks
from vitsearch import Collection, index_folder
from vitsearch.collection import maintain
from vitsearch.collection.map import current_map
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError, IndexDamaged
from vitsearch.index import snapshot
from vitsearch.index.recipe import load_recipe
from vitsearch.index.snapshot import build_snapshot, open_snapshot, verify_snapshot
from vitsearch.storage import indexes
from vitsearch.storage.store import PhotoStore

COUNT = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(COUNT):
        paint(tmp_path / "photos" / f"{number:02}.png", shade(number), shade(number * 7 + 3))
    index_folder(tmp_path / "photos", encoder=ColourEncoder())
    return tmp_path / "photos"


def change(folder: Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / ".vitsearch" / "photos.db")) as db, db:
        db.execute(sql, values)


def all_hits(folder: Path) -> tuple[list[tuple[str, float]], list[str]]:
    """What a search for all photos finds, and what is remarked."""
    with (
        logged_remarks() as remarks,
        Collection.open(folder, encoder=ColourEncoder()) as opened,
    ):
        hits = opened.search("red", COUNT + 9)
        opened.search("red", 3)
    return [(hit.path, hit.score) for hit in hits], remarks


def bad(folder: Path) -> dict[str, str]:
    with Collection.open(folder, encoder=ColourEncoder()) as opened:
        return {check.name: check.detail for check in opened.verify() if not check.ok}


def run(folder: Path) -> tuple[int, list[str]]:
    """Index, and return how many photos were embedded and what was remarked."""
    encoder = CountingEncoder()
    with logged_remarks() as remarks:
        index_folder(folder, encoder=encoder)
    return encoder.embedded, remarks


def flip_vector(folder: Path, photo_id: int) -> None:
    database = folder / ".vitsearch" / "photos.db"
    with closing(sqlite3.connect(database)) as db, db:
        sql = "SELECT vector FROM vectors WHERE photo_id = ?"
        raw = bytearray(db.execute(sql, (photo_id,)).fetchone()[0])
        raw[7] ^= 4
        db.execute("UPDATE vectors SET vector = ? WHERE photo_id = ?", (bytes(raw), photo_id))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "vector": lambda folder: flip_vector(folder, 4),
    "path": lambda folder: change(folder, "UPDATE photos SET path = '03.pnG' WHERE id = 4"),
    "date": lambda folder: change(folder, "UPDATE photos SET taken_at = '2020' WHERE id = 4"),
    "fingerprint": lambda folder: change(
        folder, "UPDATE photos SET fingerprint = x'00' WHERE id = 4"
    ),
    "lost vector": lambda folder: change(folder, "DELETE FROM vectors WHERE photo_id = 4"),
    "lost row": lambda folder: change(folder, "DELETE FROM photos WHERE id = 4"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_row_leaves_the_results_and_is_embedded_again(folder: Path, name: str) -> None:
    sound, whole = all_hits(folder)[0], content(folder)
    DAMAGES[name](folder)
    hits, remarks = all_hits(folder)
    assert hits == [hit for hit in sound if hit[0] != "03.png"]
    [remark] = remarks
    assert "photos.db is damaged: 1 photos (" in remark
    assert remark.endswith(") left out: run `vitsearch index` to embed again what is in the folder")
    assert bad(folder)  # verify lists it
    embedded, remarks = run(folder)
    assert embedded == 1
    if name != "lost row":  # a file that is not in the collection is simply new
        assert "photos.db was damaged: 1 photos (" in remarks[0]
    assert (all_hits(folder), content(folder), bad(folder)) == ((sound, []), whole, {})
    assert run(folder) == (0, [])


def test_a_filter_that_a_damaged_row_no_longer_passes_is_remarked(folder: Path) -> None:
    change(folder, "UPDATE photos SET width = 2 WHERE id = 4")
    with logged_remarks() as remarks, Collection.open(folder, encoder=ColourEncoder()) as opened:
        hits = opened.search("red", COUNT, where="width > 4")
        assert opened.search("red", COUNT, where="width > 4") == hits
    assert ("03.png" in [hit.path for hit in hits], len(hits)) == (False, COUNT - 1)
    assert len(remarks) == 1


def test_a_damaged_vector_is_never_copied_into_an_index(folder: Path) -> None:
    whole = content(folder)
    flip_vector(folder, 4)
    shutil.rmtree(folder / ".vitsearch" / "index")
    (folder / "03.png").unlink()  # so that it cannot be embedded again
    paint(folder / "new.png", "red", "blue")
    embedded, remarks = run(folder)
    assert embedded == 1
    assert "1 photos ('03.png') removed" in remarks[0]
    indexed = open_snapshot(folder / ".vitsearch" / "index")
    assert 4 not in indexed.ids.tolist()
    kept = {path: vector for path, vector in content(folder).items() if path != "new.png"}
    assert kept == {path: vector for path, vector in whole.items() if path != "03.png"}


def test_recipes_are_tried_on_the_rows_that_are_sound(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "ROWS", 4)  # read at a time, of which all are damaged
    monkeypatch.setattr(indexes, "TRIED", ("flat",))
    change(folder, "UPDATE vectors SET vector = zeroblob(length(vector)) WHERE photo_id < 9")
    with closing(PhotoStore(folder / ".vitsearch" / "photos.db", read_only=True)) as store:
        dim = len(store.vector(COUNT))
        no_texts = np.empty((0, dim), np.float32)
        keeper = indexes.IndexMaintainer(
            folder, store, dim, "", load_recipe("auto"), texts=lambda: no_texts
        )
        (trial,) = keeper.trials(COUNT)
    assert (trial.recipe.name, trial.photos) == ("flat", 1.0)


def test_a_file_most_of_whose_rows_are_damaged_is_not_emptied(folder: Path) -> None:
    change(folder, "UPDATE photos SET width = width + 1 WHERE id > 5")
    with pytest.raises(
        CollectionError, match=r"photos\.db is damaged \(of 30 rows 25\): restore it from a backup"
    ):
        run(folder)
    with closing(PhotoStore(folder / ".vitsearch" / "photos.db", read_only=True)) as store:
        assert store.count() == COUNT


def test_many_rows_are_checked_once_a_day_or_after_a_reader_met_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintain, "_SMALL", 10)
    assert run(folder) == (0, [])
    flip_vector(folder, 4)
    assert run(folder) == (0, [])  # checked already today
    with logged_remarks() as remarks, Collection.open(folder, encoder=ColourEncoder()) as opened:
        opened.search("red", COUNT)
    assert len(remarks) == 1
    assert run(folder)[0] == 1
    assert not (folder / ".vitsearch" / "damaged").exists()
    flip_vector(folder, 5)
    monkeypatch.setattr("time.time", lambda: 4e9)  # another day
    assert run(folder)[0] == 1
    assert bad(folder) == {}


@pytest.mark.parametrize("name", ["golden", "lookalike", "decode"])
def test_a_damaged_fact_is_one_line_and_written_anew(folder: Path, name: str) -> None:
    sound = all_hits(folder)[0]
    change(folder, "UPDATE facts SET value = x'6e6f6e73656e7365' WHERE name = ?", name)
    assert f"the facts {name} are damaged" in bad(folder)["database"]
    _, remarks = run(folder)
    assert remarks == [
        f"{folder / '.vitsearch' / 'photos.db'} was damaged: its facts {name} are written anew"
    ]
    assert (all_hits(folder), bad(folder)) == ((sound, []), {})


# -- states ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_database_from_a_backup_is_not_answered_from_a_later_index(folder: Path) -> None:
    database = folder / ".vitsearch" / "photos.db"
    backup = database.read_bytes()
    paint(folder / "00.png", "red", "red")
    run(folder)
    with Collection.open(folder, encoder=ColourEncoder()) as opened:
        drawn = current_map(opened)
    later = shutil.copytree(folder / ".vitsearch" / "index", folder.parent / "later")
    database.write_bytes(backup)
    paint(folder / "00.png", "blue", "blue")
    run(folder)  # as many changes as the later one had
    truth = all_hits(folder)
    shutil.rmtree(folder / ".vitsearch" / "index")
    shutil.copytree(later, folder / ".vitsearch" / "index")
    with closing(PhotoStore(database, read_only=True)) as store:
        assert verify_snapshot(folder / ".vitsearch" / "index").generation == store.generation()
    hits, remarks = all_hits(folder)
    assert hits == truth[0]
    assert remarks == [
        "the index is of another state of photos.db; searching every stored vector, the next "
        "`vitsearch index` rebuilds it"
    ]
    assert list(bad(folder)) == ["index"]
    with Collection.open(folder, encoder=ColourEncoder()) as opened:
        assert current_map(opened).state != drawn.state
    run(folder)
    assert (all_hits(folder), bad(folder)) == (truth, {})


# -- index files -----------------------------------------------------------------------------------


def damage_middle(file: Path) -> None:
    """Flip a bit in the middle of a file, and keep its size and time."""
    status, data = file.stat(), bytearray(file.read_bytes())
    assert len(data) > 2 * 65_536  # longer than its two ends
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def large(folder: Path) -> Path:
    """A collection whose index files are longer than their two ends, made of random vectors."""
    database = folder / ".vitsearch" / "photos.db"
    with closing(PhotoStore(database)) as store:
        [halves] = [rows for _, rows in store.vector_batches()]
        infos = {photo.photo_id: photo for photo in store.photos()}
        rng = np.random.default_rng(0)
        with store.writing():
            for number in range(2500):
                photo = infos[1]
                row = rng.standard_normal(halves.shape[1])
                store.put_photo(
                    photo_file(folder, number),
                    rng.bytes(16),
                    photo.info,
                    vector=np.asarray(row / np.linalg.norm(row), dtype=np.float16),
                    generation=store.generation() + 1,
                )
            store.raise_generation(True)
    index_folder(folder, encoder=ColourEncoder())
    return folder


def photo_file(folder: Path, number: int) -> Any:
    from vitsearch.types import Found

    file = folder / "many" / f"{number:04}.png"
    file.parent.mkdir(exist_ok=True)
    file.touch()
    os.utime(file, ns=(1, 1))
    return Found(f"many/{number:04}.png", 0, 1)


@pytest.mark.parametrize("name", ["vectors.f16", "index.faiss"])
@pytest.mark.slow
def test_damage_in_the_middle_of_an_index_file_is_seen_and_mended(large: Path, name: str) -> None:
    pytest.importorskip("faiss")
    index_folder(large, encoder=ColourEncoder(), recipe="ivf")
    file = large / ".vitsearch" / "index" / name
    whole, stamp = file.read_bytes(), (file.parent / "manifest.json").read_bytes()
    assert run(large) == (0, [])
    assert (file.parent / "manifest.json").read_bytes() == stamp  # nothing was built
    damage_middle(file)
    assert f"{name} was altered" in bad(large)["index"]
    embedded, remarks = run(large)
    assert embedded == 0
    assert remarks[0] == (
        f"index file {file} was altered; it is built again from the stored vectors"
    )
    assert file.read_bytes() == whole
    assert bad(large) == {}


def test_a_search_checks_the_blocks_of_vectors_that_it_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4000, 64))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    ids = np.arange(4000, dtype=np.int64)
    for recipe in ("exact", "flat"):
        folder = tmp_path / recipe
        kind = {"exact": {"name": "exact", "kind": "exact"}}.get(recipe)
        chosen = load_recipe(recipe) if kind is None else type(load_recipe("flat")).from_dict(kind)
        build_snapshot(
            folder,
            [(ids, vectors)],
            recipe=chosen,
            dim=64,
            generation=1,
            fingerprint="f",
        )
        damage_middle(folder / "vectors.f16")
        opened = open_snapshot(folder)
        assert opened.rows(np.arange(500)).shape == (500, 64)  # the first block is sound
        with pytest.raises(
            IndexDamaged, match=r"vectors\.f16 was altered at byte 196,608 or after"
        ):
            opened.rows(np.array([3, 2000]))
        with pytest.raises(IndexDamaged, match=r"vectors\.f16 was altered"):
            opened.exact()
        if recipe == "exact":
            with pytest.raises(IndexDamaged, match=r"vectors\.f16 was altered"):
                opened.search(vectors[0].astype(np.float32), 3)


def test_a_large_index_is_checked_in_full_by_verify_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4000, 64)).astype(np.float16)
    build_snapshot(
        tmp_path / "index",
        [(np.arange(4000, dtype=np.int64), vectors)],
        recipe=load_recipe("flat"),
        dim=64,
        generation=1,
        fingerprint="f",
    )
    damage_middle(tmp_path / "index" / "index.faiss")
    with pytest.raises(IndexDamaged, match=r"index\.faiss was altered"):
        open_snapshot(tmp_path / "index")
    monkeypatch.setattr(snapshot, "WHOLE", 100_000)
    open_snapshot(tmp_path / "index")
    with pytest.raises(IndexDamaged, match=r"index\.faiss was altered"):
        verify_snapshot(tmp_path / "index")


def test_a_delta_says_what_was_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "DELTA_FROM", 10)
    (folder / "05.png").unlink()
    run(folder)
    delta = open_snapshot(folder / ".vitsearch" / "delta")
    assert delta.removed is not None
    assert delta.removed.tolist() == [6]
    hits, remarks = all_hits(folder)
    assert (len(hits), remarks) == (COUNT - 1, [])
    change(folder, "DELETE FROM photos WHERE id = 4")
    hits, remarks = all_hits(folder)
    assert (len(hits), len(remarks)) == (COUNT - 2, 1)


# -- anything at all -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_random_damage_is_never_silent(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    seed = random.randrange(10**6)
    command = [sys.executable, "benchmarks/damage.py", "--damages", "12", "--seed", str(seed)]
    done = subprocess.run(
        [*command, "--json"],
        cwd=ROOT,
        env=environment() | {"TMPDIR": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    counts = json.loads(done.stdout)
    promised = ("crashes", "tracebacks", *(name for name in counts if "silently" in name))
    assert {name: counts[name] for name in promised} == dict.fromkeys(promised, 0), seed

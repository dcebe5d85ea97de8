"""Collections on disks that lack something or fail, by a library preloaded between this package and
the files below one folder.
"""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from helpers.cli import environment
from helpers.faults import Disk, FaultyDisk, faulty_disk
from helpers.photos import paint
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.storage.filesystem import HELD, LockFile
from vitsearch.storage.store import PhotoStore

LACKS = {
    "flock": errno.ENOLCK,
    "fcntl": errno.ENOLCK,
    "mmap": errno.ENODEV,
    "fsync": errno.EINVAL,
    "link": errno.EPERM,
    "symlink": errno.EPERM,
}
CASES = {name: {name: number} for name, number in LACKS.items()} | {
    "all": LACKS,
    "none supported": dict.fromkeys(LACKS, errno.EOPNOTSUPP),
}
NO_LOCKS = {"flock": errno.ENOLCK, "fcntl": errno.ENOLCK}
RED = "1.0000\tred.png\n0.0000\tblue.png\n"


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyDisk]:
    with faulty_disk() as disk:
        yield disk


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder of two photos; not indexed."""
    for colour in ("red", "blue"):
        paint(tmp_path / "photos" / f"{colour}.png", colour)
    return tmp_path / "photos"


def disk_of(folder: Path, **options: object) -> Disk:
    return Disk(str(folder), **options)  # type: ignore[arg-type]


def journal_mode(folder: Path) -> str:
    with closing(sqlite3.connect(folder / ".vitsearch" / "photos.db")) as db:
        return str(db.execute("PRAGMA journal_mode").fetchone()[0])


def names(folder: Path) -> set[str]:
    return {file.name for file in (folder / ".vitsearch").iterdir()} - {
        *("collection.json", "lock", "index", "photos.db", "photos.db-wal", "photos.db-shm"),
        *("walked", "words.json"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_file_system_that_lacks_calls(faulty: FaultyDisk, two: Path, case: str) -> None:
    disk = disk_of(two, refuse=CASES[case])
    assert faulty.run(disk, "index", two, "--encoder", "colour").code == 0
    assert faulty.run(disk, "search", two, "red").out == RED
    assert faulty.run(disk, "verify", two).code == 0
    paint(two / "green.png", "green")
    (two / "blue.png").unlink()
    updated = faulty.run(disk, "index", two, "--recipe", "flat")
    assert (updated.code, "1 indexed" in updated.out) == (0, True), updated
    assert faulty.run(disk, "search", two, "red").out == RED.replace("blue", "green")
    assert faulty.run(disk, "verify", two).code == 0
    assert names(two) == set()


@pytest.mark.parametrize("case", ["mmap", "fcntl", "all"])
def test_a_collection_of_a_local_disk_on_one_that_lacks_calls(
    faulty: FaultyDisk, two: Path, case: str
) -> None:
    """Its log is read, and given up by the next run."""
    index_folder(two, encoder=ColourEncoder())
    assert journal_mode(two) == "wal"
    disk = disk_of(two, refuse=CASES[case])
    assert faulty.run(disk, "search", two, "red").out == RED
    assert faulty.run(disk, "index", two).code == 0
    assert journal_mode(two) == "delete"
    assert faulty.run(disk, "search", two, "red").out == RED


def test_without_locks_a_writer_keeps_others_out(faulty: FaultyDisk, two: Path) -> None:
    disk = disk_of(two, refuse=NO_LOCKS)
    assert faulty.run(disk, "index", two, "--encoder", "colour").code == 0
    with LockFile(two / ".vitsearch").held():
        writing, reading = (faulty.run(disk, word, two) for word in ("index", "info"))
        assert (writing.code, reading.code) == (1, 1)
        assert f"(process {os.getpid()} on " in writing.err
        assert "is writing to" in writing.err
        assert "has no locks to read beside it" in reading.err
        assert "--collection DIR" in reading.err
    assert faulty.run(disk, "info", two).code == 0
    assert not (two / ".vitsearch" / HELD).exists()


def test_rows_are_read_where_they_cannot_be_mapped(faulty: FaultyDisk, two: Path) -> None:
    disk = disk_of(two, refuse={"mmap": errno.ENODEV})
    index_folder(two, encoder=ColourEncoder())
    whole = faulty.run(disk, "search", two, "red", "--json")
    assert (whole.code, whole.err) == (0, "")


@pytest.mark.slow
def test_lists_on_disk_need_maps_and_say_so(faulty: FaultyDisk, tmp_path: Path) -> None:
    """The recipe disk is searched exactly, and not built; a graph is read instead of mapped."""
    code = f"""
import ctypes, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import vitsearch.index.faiss_index
from vitsearch.errors import RecipeError
from vitsearch.index.snapshot import build_snapshot, open_snapshot
from vitsearch.index.recipe import load_recipe
vitsearch.index.faiss_index.few_rows = lambda count: False
rows = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float16)
folder = Path(sys.argv[1], "index")
def build(name):
    recipe = replace(load_recipe(name), recall=0.0)
    batches = [(np.arange(1, 501), rows)]
    build_snapshot(folder, batches, recipe=recipe, dim=16, generation=1, fingerprint="f")
def first():
    snapshot = open_snapshot(folder)
    ids = snapshot.search(rows[5].astype(np.float32), 1).ids
    print(snapshot.degraded, type(snapshot.index).__name__, ids)
faults = ctypes.CDLL(sys.argv[2])
for name in ("disk", "hnsw"):
    faults.fault_folder(b"")
    build(name)
    faults.fault_folder(sys.argv[1].encode())
    faults.fault_refuse(b"mmap", {errno.ENODEV})
    first()
    try:
        build(name)
    except RecipeError as error:
        print(error)
"""
    faults = faulty.preload
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(faults)],
        env=environment() | {"LD_PRELOAD": str(faults)},
        capture_output=True,
        text=True,
        check=True,
    )
    exact, refused, graph = done.stdout.splitlines()
    assert exact.startswith(f"the file system of {tmp_path}/index cannot map the lists of recipe")
    assert exact.endswith("another --collection DIR ExactIndex [6]")
    assert refused.startswith(f"the lists of recipe disk in {tmp_path}/index.new cannot be mapped")
    assert "No such device" in refused
    assert graph == "None FaissIndex [6]"


# -- a log on a disk that cannot be written --------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    """The content of the files of a collection, but for SQLite's shared memory and for the names
    that a slow first search keeps.
    """
    return {
        file.name: file.read_bytes()
        for file in (folder / ".vitsearch").iterdir()
        if file.is_file() and not file.name.endswith("-shm") and file.name != "words.json"
    }


def with_log(folder: Path) -> None:
    """Change a photo's label in the log alone, as a killed process leaves it, without its -shm."""
    file = folder / ".vitsearch" / "photos.db"
    with closing(PhotoStore(file)) as store:
        store.checkpoint()
        photo = store.photo_at("red.png")
        assert photo is not None
        with store.writing():
            store.put_labels([(photo.photo_id, "sunset", 1.0)])
        log, before = Path(f"{file}-wal").read_bytes(), file.read_bytes()
    file.write_bytes(before)
    Path(f"{file}-wal").write_bytes(log)
    Path(f"{file}-shm").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "disk",
    [
        {"stop_at": 1, "error": errno.EROFS},
        {"refuse": {"mmap": errno.ENODEV}},
        {"refuse": NO_LOCKS},
    ],
    ids=["read-only", "no maps", "no locks"],
)
def test_commits_in_a_log_are_read_where_it_cannot_be_shared(
    faulty: FaultyDisk, two: Path, disk: dict[str, object]
) -> None:
    index_folder(two, encoder=ColourEncoder())
    with_log(two)
    before = files(two)
    for _ in range(2):
        labelled = faulty.run(
            disk_of(two, **disk), "search", two, "red", "--where", "label = 'sunset'"
        )
        assert (labelled.code, labelled.out, labelled.err) == (0, "1.0000\tred.png\n", "")
    assert files(two) == before


def test_a_read_only_disk_is_read_where_there_is_no_log(faulty: FaultyDisk, two: Path) -> None:
    index_folder(two, encoder=ColourEncoder())
    before = files(two)
    assert not [name for name in before if name.startswith("photos.db-")]
    ended = faulty.run(disk_of(two, stop_at=1, error=errno.EROFS), "search", two, "red", "-k", 1)
    assert (ended.code, ended.out, ended.err) == (0, "1.0000\tred.png\n", "")
    assert files(two) == before


def test_a_read_only_disk_is_named_by_a_run_that_writes(faulty: FaultyDisk, two: Path) -> None:
    index_folder(two, encoder=ColourEncoder())
    ended = faulty.run(disk_of(two, stop_at=1, error=errno.EROFS), "index", two)
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "Read-only file system): the disk is mounted read-only" in ended.err


# -- an error in the middle of a run ---------------------------------------------------------------

WORDS = {
    errno.EIO: ("Input/output error", "check the disk"),
    errno.ENOSPC: ("No space left on device", "free some space"),
    errno.EDQUOT: ("Disk quota exceeded", "free some space"),
    errno.EROFS: ("Read-only file system", "mounted read-only"),
}


@pytest.mark.slow
@pytest.mark.parametrize("error", WORDS, ids=errno.errorcode.get)
def test_a_disk_that_fails_during_a_run_is_named_in_one_line(
    faulty: FaultyDisk, two: Path, tmp_path: Path, error: int
) -> None:
    fresh = faulty.run(disk_of(two), "index", two, "--encoder", "colour").changes
    for at in range(1, fresh, max(1, fresh // 12)):
        shutil.rmtree(two / ".vitsearch", ignore_errors=True)
        ended = faulty.run(
            disk_of(two, stop_at=at, error=error), "index", two, "--encoder", "colour"
        )
        if ended.code == 0:
            continue  # only what need not be written was refused
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1), (at, ended)
        reason, advice = WORDS[error]
        assert reason in ended.err, (at, ended)
        assert advice in ended.err, (at, ended)
        assert str(two / ".vitsearch") in ended.err, (at, ended)

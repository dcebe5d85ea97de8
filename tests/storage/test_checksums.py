"""Rows that are not what was stored are seen, left out and remarked."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.remarks import logged_remarks
from vitsearch.errors import CollectionError
from vitsearch.storage import schema
from vitsearch.storage.connections import connect
from vitsearch.storage.schema import MIGRATIONS, migrate
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, PhotoInfo

INFO = PhotoInfo(640, 480, {"camera": "Acme X1", "latitude": 45, "rating": 3})
NAMES = ["a.jpg", "b.jpg", os.fsdecode(b"caf\xe9.jpg")]


def filled(file: Path) -> Path:
    """A store of three photos, one of them labelled, and two failures."""
    with closing(PhotoStore(file)) as store:
        for place, name in enumerate(NAMES):
            with store.writing():
                store.put_photo(
                    Found(name, 10, 20 + place),
                    bytes([place]) * 16,
                    INFO,
                    vector=np.array([place, 1, 0, -1], dtype=np.float16),
                    generation=store.generation() + 1,
                )
                store.raise_generation(True)
        with store.writing():
            store.put_labels([(1, "dog", 0.75)])
            store.put_failure(Found("x.jpg", 1, 2), "failed", "not a photo")
            store.put_failure(Found("y.jpg", 1, 2), "failed", "not a photo")
            store.set_meta("golden", b"1234")
        store.checkpoint()
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return filled(tmp_path / "photos.db")


@pytest.fixture
def reader(file: Path) -> Iterator[PhotoStore]:
    with closing(PhotoStore(file, read_only=True)) as store:
        yield store


def change(file: Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(sql, values)


def everything(store: PhotoStore) -> dict[str, Any]:
    """What each way of reading gives of the photos, as ids."""
    return {
        "photos": [photo.photo_id for photo in store.photos()],
        "photo_at": [bool(store.photo_at(name)) for name in NAMES],
        "photos_with": [len(store.photos_with(bytes([place]) * 16)) for place in range(3)],
        "rows": sorted(row[0] for row in store.rows([1, 2, 3])),
        "vectors": [int(i) for ids, _ in store.vector_batches() for i in ids],
        "since": [int(i) for ids, _ in store.vector_batches(since=1) for i in ids],
    }


SOUND = {
    "photos": [1, 2, 3],
    "photo_at": [True, True, True],
    "photos_with": [1, 1, 1],
    "rows": [1, 2, 3],
    "vectors": [1, 2, 3],
    "since": [2, 3],
}
FACTS = {**SOUND, "photos": [1, 3], "photo_at": [True, False, True], "photos_with": [1, 0, 1]}
FACTS["rows"] = [1, 3]
VECTOR = {**SOUND, "rows": [1, 3], "vectors": [1, 3], "since": [3]}
DAMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "size": ("UPDATE photos SET size = 11 WHERE id = 2", FACTS),
    "time": ("UPDATE photos SET mtime_ns = mtime_ns + 1 WHERE id = 2", FACTS),
    "width": ("UPDATE photos SET width = 641 WHERE id = 2", FACTS),
    "camera": ("UPDATE photos SET camera = 'Acme X2' WHERE id = 2", FACTS),
    "latitude": ("UPDATE photos SET latitude = 45.00000000000001 WHERE id = 2", FACTS),
    "another type": ("UPDATE photos SET width = 'many' WHERE id = 2", FACTS),
    "label": ("UPDATE photos SET label = 'cat' WHERE id = 2", FACTS),
    "vector": (
        "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE photo_id = 1) "
        "WHERE photo_id = 2",
        VECTOR,
    ),
    "generation": ("UPDATE vectors SET generation = 3 WHERE photo_id = 2", VECTOR),
    "no vector": ("DELETE FROM vectors WHERE photo_id = 2", VECTOR),
    "no checksum": (
        "UPDATE photos SET checksum = NULL WHERE id = 2",
        {**FACTS, "vectors": [1, 3], "since": [3]},
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_left_out_and_remarked_once(
    file: Path, reader: PhotoStore, damage: str
) -> None:
    assert everything(reader) == SOUND
    sql, expected = DAMAGES[damage]
    change(file, sql)
    with logged_remarks() as remarks:
        found = [everything(reader), everything(reader)]
    assert found == [expected, expected]
    if damage != "no vector":  # a row that is not there cannot be read
        assert remarks == [
            f"{file} is damaged: 1 photos ('b.jpg') left out: run `vitsearch index` to embed "
            "again what is in the folder"
        ]
    assert reader.damaged_photos() == [2]
    assert reader.check() == ["the rows of 1 photos ('b.jpg') are damaged"]
    with pytest.raises(CollectionError, match="photo 2 has no vector"):
        reader.vector(2)


def test_a_damaged_path_is_left_out(file: Path, reader: PhotoStore) -> None:
    change(file, "UPDATE photos SET path = 'B.jpg' WHERE id = 2")
    with logged_remarks() as remarks:
        assert [photo.path for photo in reader.photos()] == ["a.jpg", NAMES[2]]
    assert remarks[0].startswith(f"{file} is damaged: 1 photos ('B.jpg') left out: run")


def test_a_damaged_failure_is_no_failure(file: Path, reader: PhotoStore) -> None:
    change(file, "UPDATE failures SET size = 3 WHERE path = 'x.jpg'")
    assert [failure.path for failure in reader.failures()] == ["y.jpg"]
    assert [path for path, *_ in reader.failure_stats()] == ["y.jpg"]
    assert reader.check() == ["the rows of 1 failures are damaged"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE facts SET value = x'31323335' WHERE name = 'golden'",
        "UPDATE facts SET value = 5 WHERE name = 'golden'",
        "UPDATE facts SET checksum = NULL WHERE name = 'golden'",
    ],
)
def test_a_damaged_fact_is_one_clear_line(file: Path, reader: PhotoStore, sql: str) -> None:
    change(file, sql)
    with pytest.raises(
        CollectionError,
        match=r"photos\.db is damaged \(its fact 'golden' cannot be read\): run",
    ):
        reader.get_meta("golden")


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_without_a_state_is_one_clear_line(file: Path, read_only: bool) -> None:
    change(file, "DELETE FROM states")
    with pytest.raises(
        CollectionError, match=r"photos\.db is damaged \(the count of its changes .*\): restore"
    ):
        PhotoStore(file, read_only=read_only)


def test_a_damaged_row_stays_damaged_when_it_is_changed(file: Path) -> None:
    change(file, "UPDATE photos SET camera = 'Acme X2' WHERE id = 2")
    with closing(PhotoStore(file)) as store:
        with store.writing():
            store.put_labels([(1, "cat", 0.5), (2, "cat", 0.5)])
            store.touch_photo(2, Found("c.jpg", 1, 1))
        assert store.damaged_photos() == [2]
        with store.writing():
            store.remove_ids([2])
        assert (store.damaged_photos(), store.count()) == ([], 2)


def test_a_new_metadata_column_leaves_the_rows_sound(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("ALTER TABLE photos ADD COLUMN later TEXT")
    with closing(PhotoStore(file)) as store:
        assert everything(store) == SOUND
        with store.writing():
            store.put_labels([(2, "cat", 0.5)])
        assert everything(store) == SOUND


# -- states ----------------------------------------------------------------------------------------


def test_each_state_has_an_identity_of_its_own(tmp_path: Path) -> None:
    file = filled(tmp_path / "photos.db")
    backup = file.read_bytes()
    states = set()
    for _ in range(2):  # what is restored from a backup and changed again is another state
        file.write_bytes(backup)
        with closing(PhotoStore(file)) as store:
            before = (store.generation(), store.state())
            with store.writing():
                store.raise_generation(True)
            now = (store.generation(), store.state())
            assert (now[0], store.had_state(*before), store.had_state(*now)) == (4, True, True)
            states.add(now[1])
            assert [store.had_state(*now) for now in [(4, other) for other in states]] == [
                other == now[1] for other in states
            ]
            assert not store.had_state(5, now[1])
            assert not store.had_state(4, "")
    assert len(states) == 2


# -- files of before checksums ---------------------------------------------------------------------


def of_format_1(file: Path) -> Path:
    """A file as it was written before rows had checksums."""
    filled(file)
    with closing(sqlite3.connect(file)) as db:
        db.executescript(
            "BEGIN; INSERT INTO facts (name, value) SELECT 'generation', max(generation) "
            "FROM states; DROP TABLE states; PRAGMA user_version = 1;"
            + "".join(
                f"ALTER TABLE {table} DROP COLUMN checksum;"
                for table in ("photos", "failures", "facts")
            )
            + "ALTER TABLE failures DROP COLUMN transient;"
            + "".join(
                f"DROP TABLE {table};"
                for table in ("missing_photos", "missing_vectors", "left_out", "folders")
            )
            + "COMMIT;"
        )
    return file


def test_a_file_of_before_is_read_as_it_is_and_brought_up_to_date_by_a_writer(
    tmp_path: Path,
) -> None:
    file = of_format_1(tmp_path / "photos.db")
    before = file.read_bytes()
    with closing(PhotoStore(file, read_only=True)) as reader:
        photos, failures = list(reader.photos()), reader.failures()
        assert everything(reader) == SOUND
        assert (reader.generation(), reader.state(), reader.check()) == (3, "", [])
        assert [reader.had_state(*state) for state in [(3, ""), (2, ""), (4, ""), (3, "x")]] == [
            True,
            True,
            False,
            False,
        ]
    assert file.read_bytes() == before
    with closing(PhotoStore(file)) as store:
        assert (list(store.photos()), store.failures(), store.get_meta("golden")) == (
            photos,
            failures,
            b"1234",
        )
        assert everything(store) == SOUND
        assert (store.generation(), store.state(), store.check()) == (3, "", [])
        with store.writing():
            store.raise_generation(True)
        assert [store.had_state(*state) for state in [(3, ""), (2, ""), (4, ""), (3, "x")]] == [
            True,
            True,
            False,
            False,
        ]
        assert store.state() != ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("instructions", [1, 100, 300, 500, 700, 900, 1000, 1060])
def test_bringing_up_to_date_may_be_killed_at_any_moment(
    tmp_path: Path, instructions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "_BATCH", 1)
    file = of_format_1(tmp_path / "photos.db")
    killed = in_a_child(lambda: migrate_until(file, instructions))
    with closing(sqlite3.connect(file)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
    assert version == (1 if killed else len(MIGRATIONS))
    with closing(PhotoStore(file, read_only=True)) as reader:
        assert everything(reader) == SOUND
    with closing(PhotoStore(file)) as store:
        assert (everything(store), store.check(), len(store.failures())) == (SOUND, [], 2)


def migrate_until(file: Path, instructions: int) -> None:
    """Bring a file up to date in a process that dies after so many instructions of SQLite."""
    db = connect(file, read_only=False)
    left = iter(range(instructions))
    db.set_progress_handler(lambda: 0 if next(left, None) is not None else os._exit(9), 1)
    migrate(db, 1)


def in_a_child(function: Callable[[], None]) -> bool:
    """Call a function in a child process, and return whether that was killed."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

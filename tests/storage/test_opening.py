"""How photos.db is opened on a network share; tests/collection/test_disks.py has the disks that
lack something.
"""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from vitsearch.errors import CollectionError, CollectionLocked
from vitsearch.storage import connections, filesystem
from vitsearch.storage.filesystem import HELD, writer_lock
from vitsearch.storage.store import PhotoStore


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as a network share: none can be mounted in a test."""
    for module in (connections, filesystem):
        monkeypatch.setattr(module, "is_local", lambda folder: False)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_share_has_a_rollback_journal_and_a_lock_file(share: Path) -> None:
    with writer_lock(share):
        with closing(PhotoStore(share / "photos.db")) as store:
            with store.writing():
                store.set_meta("name", "value")
                assert names(share) == ["lock", HELD, "photos.db", "photos.db-journal"]
            assert names(share) == ["lock", HELD, "photos.db"]
        with closing(PhotoStore(share / "photos.db", read_only=True)) as reader:
            assert reader.get_meta("name") == "value"
    assert names(share) == ["lock", "photos.db"]


def test_a_log_is_left_when_its_collection_is_on_a_share(share: Path) -> None:
    with closing(sqlite3.connect(share / "photos.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    with writer_lock(share), closing(PhotoStore(share / "photos.db")):
        pass
    assert names(share) == ["lock", "photos.db"]
    with closing(sqlite3.connect(share / "photos.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_log_stays_while_somebody_reads_by_it(share: Path) -> None:
    with closing(sqlite3.connect(share / "photos.db")) as reader:
        reader.execute("PRAGMA journal_mode = WAL")
        reader.execute("CREATE TABLE held (x)")
        reader.execute("SELECT * FROM held").fetchall()
        with closing(sqlite3.connect(share / "photos.db")) as other:
            other.execute("BEGIN")
            other.execute("SELECT * FROM held").fetchall()
            with writer_lock(share), closing(PhotoStore(share / "photos.db")) as store:
                with store.writing():
                    store.set_meta("name", "value")
                assert store.get_meta("name") == "value"
    with closing(sqlite3.connect(share / "photos.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_writer_that_was_taken_over_stores_nothing_more(share: Path) -> None:
    with writer_lock(share), closing(PhotoStore(share / "photos.db")) as store:
        with store.writing():
            store.set_meta("name", "before")
        (share / HELD).write_text('{"host": "elsewhere", "process": 7, "token": "x"}')
        os.utime(share / HELD, (time.time(),) * 2)
        with (
            pytest.raises(CollectionLocked, match="process 7 on elsewhere has taken over"),
            store.writing(),
        ):
            store.set_meta("name", "after")
        assert store.get_meta("name") == "before"
    assert HELD in names(share)
    with pytest.raises(CollectionError, match="process 7 on elsewhere"), writer_lock(share):
        pass

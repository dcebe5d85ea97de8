"""A run of indexing makes room for a server that has much to do."""

import os
import time
from pathlib import Path

from vitsearch.storage.filesystem import ANSWERING, AnsweringNote, is_answering, make_room


def test_a_run_waits_while_a_server_has_much_to_do(tmp_path: Path) -> None:
    assert not is_answering(tmp_path)
    note = AnsweringNote(tmp_path)
    note.touch()
    assert is_answering(tmp_path)
    began = time.monotonic()
    make_room(tmp_path, 0.01)
    assert time.monotonic() - began >= 0.16
    hour_ago = time.time() - 3600
    os.utime(tmp_path / ANSWERING, (hour_ago, hour_ago))
    assert not is_answering(tmp_path)
    make_room(tmp_path, 1000)  # returns at once


def test_the_note_is_written_twice_a_second_at_most(tmp_path: Path) -> None:
    note = AnsweringNote(tmp_path)
    note.touch()
    (tmp_path / ANSWERING).unlink()
    note.touch()
    assert not is_answering(tmp_path)


def test_a_server_that_cannot_write_does_without(tmp_path: Path) -> None:
    AnsweringNote(tmp_path / "missing").touch()
    assert list(tmp_path.iterdir()) == []

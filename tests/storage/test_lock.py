"""One writer at a time: by the system's lock, and by a file where there is none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitsearch.errors import CollectionError, CollectionLocked
from vitsearch.storage.filesystem import HELD, LockFile, writer_lock


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with writer_lock(folder):
        with (
            pytest.raises(CollectionLocked, match="another vitsearch is writing to") as error,
            writer_lock(folder),
        ):
            pass
        assert "\n" not in str(error.value)
        with writer_lock(tmp_path / "other"):
            pass
    with pytest.raises(KeyError), writer_lock(folder):
        raise KeyError(1)
    with writer_lock(folder):
        pass


def test_a_lock_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CollectionError, match=r"cannot write to .*file"),
        writer_lock(tmp_path / "file"),
    ):
        pass


@pytest.mark.slow
def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vitsearch.storage.filesystem import "
        "writer_lock\n"
        "with writer_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CollectionLocked), writer_lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with writer_lock(tmp_path):
            assert (tmp_path / "lock").exists()


# -- a lock file -----------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def written(folder: Path, host: str, process: int, *, age: float = 0) -> Path:
    """A lock file of another process, last touched ``age`` seconds ago."""
    file = folder / HELD
    file.write_text(f'{{"host": "{host}", "process": {process}, "token": "x"}}')
    os.utime(file, (time.time() - age,) * 2)
    return file


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_lock_file_names_its_holder_and_goes_with_the_block(tmp_path: Path) -> None:
    lock_file = LockFile(tmp_path)
    with lock_file.held():
        assert LockFile(tmp_path).live_holder() == lock_file.holder
        with (
            pytest.raises(
                CollectionLocked, match=rf"another vitsearch \(process {os.getpid()} on .*\) is"
            ),
            LockFile(tmp_path).held(),
        ):
            pass
        assert names(tmp_path) == [HELD]
    assert names(tmp_path) == []


def test_a_lock_file_is_kept_fresh(tmp_path: Path) -> None:
    with LockFile(tmp_path, beat=0.01).held():
        os.utime(tmp_path / HELD, (1, 1))
        for _ in range(500):
            if (tmp_path / HELD).stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert (tmp_path / HELD).stat().st_mtime > 1


def test_a_lock_file_of_another_machine_counts_while_it_is_fresh(tmp_path: Path) -> None:
    written(tmp_path, "elsewhere", 1, age=30)
    for taking in (LockFile(tmp_path).held(), writer_lock(tmp_path)):
        with pytest.raises(CollectionLocked, match=r"process 1 on elsewhere"), taking:
            pass
    written(tmp_path, "elsewhere", 1, age=90)
    with LockFile(tmp_path).held():
        assert names(tmp_path) == ["lock", HELD]
    assert names(tmp_path) == ["lock"]


def test_a_lock_file_of_a_process_that_has_died_here_is_taken_at_once(tmp_path: Path) -> None:
    written(tmp_path, LockFile(tmp_path).holder.host, dead_process())
    with LockFile(tmp_path).held():
        assert names(tmp_path) == [HELD]
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_lock_file_that_says_nothing_counts_by_its_age(tmp_path: Path, content: bytes) -> None:
    (tmp_path / HELD).write_bytes(content)
    with (
        pytest.raises(CollectionLocked, match="another vitsearch is writing"),
        LockFile(tmp_path).held(),
    ):
        pass
    os.utime(tmp_path / HELD, (1, 1))
    with LockFile(tmp_path).held():
        pass
    assert names(tmp_path) == []


def test_a_lock_file_that_was_taken_over_is_left_to_its_new_holder(tmp_path: Path) -> None:
    with LockFile(tmp_path).held():
        written(tmp_path, "elsewhere", 1)
    assert names(tmp_path) == [HELD]

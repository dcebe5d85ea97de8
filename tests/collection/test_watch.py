"""A folder that is watched: what comes, changes and goes is found within seconds."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers.collections import found_paths
from helpers.photos import paint
from vitsearch import CollectionError
from vitsearch.collection import runs
from vitsearch.collection.runs import is_remote, watch_folder
from vitsearch.storage.filesystem import writer_lock
from vitsearch.types import IndexReport

pytestmark = pytest.mark.slow

SECONDS = 120  # that a step may take on a busy machine
QUIET = 1.5  # in which something would be seen
Reports = list[IndexReport]


@pytest.fixture
def following(
    photos: Path, remarks: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Reports]]:
    """Starts to watch the photos in a thread, and stops it in the end."""
    monkeypatch.setattr(runs, "_TICK", 0.2)
    if find_spec("watchfiles"):
        monkeypatch.setattr("vitsearch.collection.diff.QUIET", 0.3)
    stop, threads = threading.Event(), list[threading.Thread]()

    def start(**options: object) -> Reports:
        reports: Reports = []

        def follow() -> None:
            for report in watch_folder(photos, encoder="colour", stop=stop, **options):  # type: ignore[arg-type]
                reports.append(report)

        threads.append(threading.Thread(target=follow))
        threads[-1].start()
        wait_until(lambda: len(reports) == 1)
        return reports

    yield start
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end, "it has not come to pass"
        time.sleep(0.05)


@pytest.mark.parametrize("poll", [None, 0.2])
def test_what_comes_and_goes_is_followed(
    photos: Path, following: Callable[..., Reports], poll: float | None
) -> None:
    if poll is None:
        pytest.importorskip("watchfiles")
    reports = following(poll=poll)
    assert (reports[0].indexed, reports[0].total) == (4, 4)
    paint(photos / "new" / "cyan.png", "cyan")
    wait_until(lambda: sum(report.indexed for report in reports) == 5)
    assert found_paths(photos, "cyan", 1) == ["new/cyan.png"]
    (photos / "red.png").rename(photos / "crimson.png")
    wait_until(lambda: sum(report.moved for report in reports) == 1)
    shutil.rmtree(photos / "new")
    wait_until(lambda: sum(report.removed for report in reports) == 1)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    wait_until(lambda: reports[-1].failed == 1)
    count = len(reports)
    (photos / "notes.txt").write_text("no photo")
    (photos / ".hidden.png").write_bytes(b"")
    time.sleep(QUIET)
    assert len(reports) == count


def test_a_burst_is_indexed_together(photos: Path, following: Callable[..., Reports]) -> None:
    pytest.importorskip("watchfiles")
    reports = following()
    for number in range(20):
        paint(photos / f"burst-{number:02}.png", "cyan")
        time.sleep(0.02)
    wait_until(lambda: sum(report.indexed for report in reports) == 24)
    assert len(reports) <= 4


def test_a_collection_that_is_written_to_and_a_disk_that_is_away_are_waited_for(
    photos: Path, following: Callable[..., Reports], remarks: list[str]
) -> None:
    reports = following(poll=0.2)
    with writer_lock(photos / ".vitsearch"):
        paint(photos / "cyan.png", "cyan")
        time.sleep(QUIET)
        assert len(reports) == 1
    wait_until(lambda: len(reports) == 2)
    assert remarks == []
    away = photos.with_name("away")
    photos.rename(away)
    wait_until(lambda: bool(remarks))
    assert remarks[0].startswith(f"no such folder: {photos}")
    away.rename(photos)
    paint(photos / "teal.png", "teal")
    wait_until(lambda: len(reports) == 3)
    assert len(remarks) == 1


def test_what_the_first_run_cannot_do_is_raised(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="no such folder"):
        next(watch_folder(tmp_path / "none"))


def test_without_the_package_the_folder_is_walked(
    photos: Path,
    following: Callable[..., Reports],
    remarks: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object, **__: object) -> Iterator[bool]:
        raise ModuleNotFoundError("watchfiles")
        yield False

    monkeypatch.setattr(runs, "bursts", missing)
    reports = following()
    paint(photos / "cyan.png", "cyan")
    wait_until(lambda: len(reports) == 2)
    assert remarks == [
        f"{photos} is walked every 10 s, its changes not told (pip install 'vitsearch[watch]')"
    ]


def test_folders_of_other_machines_are_known(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    here = tmp_path.as_posix()
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nnas:/photos {here}/my\\040nas nfs4 rw 0 0\n"
        f"/dev/sdb1 {here}/my\\040nas/disk ext4 rw 0 0\n"
    )
    assert [
        is_remote(tmp_path / place, mounts) for place in ("", "my nas", "my nas/a", "my nas/disk/a")
    ] == [False, True, True, False]
    assert not is_remote(tmp_path, tmp_path / "no list")

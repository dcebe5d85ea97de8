"""Stops runs of indexing at every change of a file, or lets the disk fail from there on, and holds
what the next run makes of it against a run that nothing disturbed.
"""

import errno
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from helpers.faults import KILLED, Disk, Ended, FaultyDisk
from helpers.photos import paint, shade
from vitsearch.storage.store import PhotoStore

ERRORS = {0: "killed"} | {
    number: errno.errorcode[number]
    for number in (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT)
}
COLOUR = ("--encoder", "colour")
# what a run says of the index that it builds, and a search of folders after a run that was stopped
REMARKS = re.compile(r"vitsearch: (index of |.+ changed since `vitsearch index )")


@dataclass(frozen=True)
class Scenario:
    """A kind of run: what is there before, what happens to the photos then, and the run itself."""

    name: str
    before: Callable[[FaultyDisk, Path], None]
    change: Callable[[Path], None]
    arguments: tuple[str, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)


def _nothing(*_: object) -> None:
    pass


def _paint(folder: Path, numbers: range, offset: int = 0) -> None:
    for number in numbers:
        paint(folder / f"{number % 3}" / f"{number:03}.png", shade(number + offset))


def _indexed(disk: FaultyDisk, folder: Path) -> None:
    _paint(folder, range(24))
    (folder / "broken.jpg").write_bytes(b"words")
    ended = disk.run(Disk(str(folder)), "index", folder, *COLOUR, "--batch-size", "4")
    assert ended.code == 0, ended.err


REPLACED = [f"{number % 3}/{number:03}.png" for number in (0, 1, 4, 5)]  # or gone
DELTA = {
    "vitsearch.storage.indexes.DELTA_FROM": 1,
    "vitsearch.storage.indexes.DELTA_SHARE": 1.0,
}


def _changed(folder: Path) -> None:
    """Six photos more, two changed, two moved, two gone."""
    _paint(folder, range(24, 30))
    _paint(folder, range(2), offset=500)
    for number in (2, 3):
        (folder / f"{number % 3}" / f"{number:03}.png").rename(folder / f"moved {number}.png")
    for number in (4, 5):
        (folder / f"{number % 3}" / f"{number:03}.png").unlink()


def _without_index(folder: Path) -> None:
    shutil.rmtree(folder / ".vitsearch" / "index")


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("first run", lambda _, folder: _paint(folder, range(24)), _nothing, COLOUR),
        Scenario("incremental run", _indexed, _changed),
        Scenario("rebuild", _indexed, _without_index),
        Scenario("recipe change", _indexed, _changed, ("--recipe", "hnsw")),
        Scenario("delta", _indexed, _changed, constants=DELTA),
    )
}


@dataclass(frozen=True)
class Content:
    """What a collection holds and finds: rows without ids, vectors, failures, results."""

    photos: dict[str, tuple[object, ...]]
    failures: list[tuple[str, str]]
    found: list[str]
    checks: str


class Sweep:
    """One scenario in a folder of its own, to be stopped again and again."""

    def __init__(self, scenario: Scenario, disk: FaultyDisk, work: Path) -> None:
        self.scenario, self.disk = scenario, disk
        self.start, self.folder = work / "start", work / "photos"
        scenario.before(disk, self.folder)
        self.stored = stored_photos(self.folder)
        self.found_before = self._found() if self.stored else []
        scenario.change(self.folder)
        shutil.copytree(self.folder, self.start)
        ended = self._run()
        assert ended.code == 0, ended.err
        self.changes = ended.changes
        self.expected, self.names = self._content(), names(self.folder)

    def _run(self, stop_at: int = 0, error: int = 0) -> Ended:
        disk = Disk(str(self.folder / ".vitsearch"), stop_at=stop_at, error=error)
        arguments = ("index", self.folder, "--batch-size", "4", *self.scenario.arguments)
        return self.disk.run(disk, *arguments, constants=self.scenario.constants)

    def _content(self) -> Content:
        verify = self.disk.run(Disk(str(self.folder)), "verify", self.folder)
        with closing(PhotoStore(self.folder / ".vitsearch" / "photos.db", read_only=True)) as store:
            failures = [(each.path, each.reason) for each in store.failures()]
        return Content(stored_photos(self.folder), failures, self._found(), verify.out)

    def _found(self) -> list[str]:
        """Return paths and scores of a search, or its error."""
        search = self.disk.run(
            Disk(str(self.folder)), "search", self.folder, "red", "-k", "50", "--json"
        )
        if search.code or _without_remarks(search.err):
            return [search.err]
        return [f"{row['path']} {row['score']}" for row in map(json.loads, search.out.splitlines())]

    def problems_at(self, stop_at: int, error: int) -> list[str]:
        """Return what went wrong when a run was stopped at a change; nothing is as it should be."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.start, self.folder)
        stopped = self._run(stop_at, error)
        problems = list(self._of_the_stopped(stopped, error))
        problems += self._after_the_stop()
        again = self._run()
        if again.code or "Traceback" in again.err:
            return [*problems, f"the next run failed: {again.err}"]
        content = self._content()
        problems += [
            f"{name} differ: {getattr(content, name)} != {getattr(self.expected, name)}"
            for name in ("photos", "failures", "found", "checks")
            if getattr(content, name) != getattr(self.expected, name)
        ]
        return problems + [f"left over: {name}" for name in names(self.folder) - self.names]

    def _of_the_stopped(self, stopped: Ended, error: int) -> Iterator[str]:
        if "Traceback" in stopped.err:
            yield f"traceback: {stopped.err}"
        elif not error and stopped.code != KILLED:
            yield f"not killed: {stopped}"
        elif error and stopped.code == 1 and len(_without_remarks(stopped.err)) != 1:
            yield f"not one line: {stopped.err}"
        elif error and stopped.code not in (0, 1):
            yield f"exit code {stopped.code}: {stopped.err}"

    def _after_the_stop(self) -> Iterator[str]:
        """Yield what is lost or wrong in the state that the stopped run left."""
        if not self.stored:
            return
        vectors = {row[-1] for row in stored_photos(self.folder).values()}
        for path, row in self.stored.items():
            if row[-1] not in vectors and path not in REPLACED:
                yield f"lost {path}"
        if strange := set(self._found()) - {*self.found_before, *self.expected.found}:
            yield f"found {strange}"


def _without_remarks(err: str) -> list[str]:
    """Return the lines of an error without remarks."""
    return [line for line in err.splitlines() if not REMARKS.match(line)]


def stored_photos(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return (fingerprint, size, vector) of every photo of a collection by path."""
    file = folder / ".vitsearch" / "photos.db"
    if not file.exists():
        return {}
    with closing(PhotoStore(file, read_only=True)) as store:
        vectors = {
            int(photo_id): row.tobytes()
            for ids, rows in store.vector_batches()
            for photo_id, row in zip(ids, rows, strict=True)
        }
        return {
            photo.path: (photo.fingerprint, photo.size, vectors[photo.photo_id])
            for photo in store.photos()
        }


def names(folder: Path) -> set[str]:
    """Return the names in a collection's folder, but for SQLite's log and the names that a slow
    search keeps, which are there or not.
    """
    collection = folder / ".vitsearch"
    found = {str(file.relative_to(collection)) for file in collection.rglob("*")}
    return found - {"photos.db-wal", "photos.db-shm", "words.json"}

"""Photos whose files are gone: put aside, back again, or only out of reach; and what a walk passes
over.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.cli import one_line, vitsearch
from helpers.collections import CountingEncoder, content, counts, found_paths
from helpers.photos import paint, shade
from vitsearch import Collection, CollectionError, IndexReport, index_folder
from vitsearch.collection.absence import Reach
from vitsearch.collection.diff import FolderScan
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos import WalkOptions
from vitsearch.storage.schema import MIGRATIONS
from vitsearch.storage.store import PhotoStore
from vitsearch.types import LeftOut, SkippedPhoto

DISKS = (Path(tempfile.gettempdir()), Path("/dev/shm"))  # the tests' own folders are on one of them


def run(folder: Path, **options: Any) -> tuple[dict[str, int], int, IndexReport]:
    """Index and return the counts, how many pictures were embedded, and the report."""
    encoder = CountingEncoder()
    report = index_folder(folder, encoder=encoder, **options)
    return counts(report), encoder.embedded, report


def rows(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything that is stored of each photo, by path, but the number of its last change."""
    with Collection.open(folder) as found:
        photos, vectors = found.vectors()
        return {
            photo.path: (photo, vector.tobytes())
            for photo, vector in zip(photos, vectors, strict=True)
        }


def execute(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / ".vitsearch" / "photos.db") as db:
        return db.execute(sql).fetchall()


# -- put aside, and back ---------------------------------------------------------------------------


def test_photos_that_are_gone_come_back_as_they_were(indexed: Path, tmp_path: Path) -> None:
    with Collection.open(indexed) as found:
        found.store_labels(found.label(["red", "blue"]))
    before = rows(indexed)
    (indexed / "sub").rename(tmp_path / "away")
    (indexed / "red.png").rename(tmp_path / "red.png")
    done, embedded, report = run(indexed)
    assert (done, embedded, report.put_aside) == ({"unchanged": 2, "removed": 2}, 0, 2)
    assert set(content(indexed)) == {"green.png", "yellow.png"}
    assert set(found_paths(indexed, "red")) == {"green.png", "yellow.png"}
    with Collection.open(indexed) as found:
        facts = found.info()
        assert (facts["photos"], facts["put_aside"]) == (2, 2)
        assert facts["put_aside_since"] == min(
            since for (since,) in execute(indexed, "SELECT since FROM missing_photos")
        )
    (tmp_path / "away").rename(indexed / "sub")
    (tmp_path / "red.png").rename(indexed / "red.png")
    assert run(indexed)[:2] == ({"unchanged": 2, "restored": 2}, 0)
    assert rows(indexed) == before
    assert found_paths(indexed, "blue", 1) == ["sub/blue.png"]
    with Collection.open(indexed) as found:
        assert (found.info()["put_aside"], found.info()["put_aside_since"]) == (0, None)


@pytest.mark.parametrize("name", ["red.png", "other/crimson.png"])
def test_the_same_content_comes_back_under_any_path_and_time(indexed: Path, name: str) -> None:
    before = rows(indexed)["red.png"]
    data = (indexed / "red.png").read_bytes()
    (indexed / "red.png").unlink()
    assert run(indexed)[:2] == ({"unchanged": 3, "removed": 1}, 0)
    (indexed / name).parent.mkdir(exist_ok=True)
    (indexed / name).write_bytes(data)
    assert run(indexed)[:2] == ({"unchanged": 3, "restored": 1}, 0)
    photo, vector = rows(indexed)[name]
    assert (photo.photo_id, vector) == (before[0].photo_id, before[1])
    assert run(indexed)[:2] == ({"unchanged": 4}, 0)


def test_a_file_that_gets_the_content_of_a_photo_that_is_gone_gets_its_vector(
    indexed: Path,
) -> None:
    vector, data = content(indexed)["red.png"], (indexed / "red.png").read_bytes()
    (indexed / "red.png").unlink()
    run(indexed)
    (indexed / "green.png").write_bytes(data)
    assert run(indexed)[:2] == ({"unchanged": 2, "indexed": 1}, 0)
    assert content(indexed)["green.png"] == vector


def test_a_photo_comes_back_although_its_path_has_other_content_now(indexed: Path) -> None:
    vector = content(indexed)["red.png"]
    (indexed / "red.png").rename(indexed.parent / "red.png")
    run(indexed)
    paint(indexed / "red.png", "cyan")
    run(indexed)
    (indexed.parent / "red.png").rename(indexed / "back.png")
    assert run(indexed)[:2] == ({"unchanged": 4, "restored": 1}, 0)
    assert content(indexed)["back.png"] == vector
    with Collection.open(indexed) as found:
        assert all(check.ok for check in found.verify(content=True))


def test_a_photo_that_rots_while_it_is_put_aside_is_embedded_again(
    indexed: Path, remarks: list[str]
) -> None:
    before = content(indexed)
    away = (indexed / "red.png").rename(indexed.parent / "red.png")
    copy = (indexed / "green.png").rename(indexed.parent / "green.png")
    run(indexed)
    execute(indexed, "UPDATE missing_vectors SET vector = zeroblob(length(vector))")
    away.rename(indexed / "red.png")
    copy.rename(indexed / "verdant.png")
    assert run(indexed)[:2] == ({"unchanged": 2, "indexed": 1}, 1)
    assert remarks == [
        "1 photos that were put aside are damaged: the next `vitsearch index` embeds them again"
    ]
    assert run(indexed)[:2] == ({"unchanged": 3, "indexed": 1}, 1)
    after = content(indexed)
    assert after["red.png"] == before["red.png"]
    assert after["verdant.png"] == before["green.png"]


def test_other_content_at_the_path_of_a_photo_that_is_gone_is_new(indexed: Path) -> None:
    (indexed / "red.png").unlink()
    run(indexed)
    paint(indexed / "red.png", "cyan")
    assert run(indexed)[:2] == ({"unchanged": 3, "indexed": 1}, 1)
    assert found_paths(indexed, "cyan", 1) == ["red.png"]


def test_a_photo_that_broke_comes_back_with_its_content(indexed: Path) -> None:
    before, data = rows(indexed)["red.png"], (indexed / "red.png").read_bytes()
    stat = (indexed / "red.png").stat()
    (indexed / "red.png").write_bytes(data[:60])
    assert run(indexed)[:2] == ({"unchanged": 3, "failed": 1}, 0)
    (indexed / "red.png").write_bytes(data)
    os.utime(indexed / "red.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(indexed)[:2] == ({"unchanged": 3, "restored": 1}, 0)
    assert rows(indexed)["red.png"] == before


def test_photos_that_are_gone_are_kept_for_some_days(indexed: Path) -> None:
    (indexed / "red.png").unlink()
    assert run(indexed)[2].put_aside == 1
    execute(indexed, "UPDATE missing_photos SET since = datetime('now', '-29 days')")
    assert run(indexed)[2].put_aside == 1
    assert run(indexed, keep_missing=28)[2].put_aside == 0
    (indexed / "green.png").unlink()
    assert run(indexed, keep_missing=0)[2].put_aside == 0
    assert execute(indexed, "SELECT count(*) FROM missing_vectors") == [(0,)]
    for days in (-1, 36_501, 1.5, True):
        with pytest.raises(CollectionError, match="kept for 0 to 36,500 days"):
            index_folder(indexed, keep_missing=days)  # type: ignore[arg-type]


def test_forget(indexed: Path) -> None:
    paint(indexed / "red.png", "red", "blue", "cyan", "red")  # a vector like no other
    run(indexed)
    ((raw,),) = execute(
        indexed,
        "SELECT vector FROM vectors JOIN photos ON id = photo_id WHERE path = 'red.png'",
    )
    database = indexed / ".vitsearch" / "photos.db"
    (indexed / "red.png").rename(indexed.parent / "very red.png")
    run(indexed)
    assert raw in database.read_bytes()
    done = vitsearch("forget", indexed)
    assert (done.returncode, done.stdout) == (0, b"1 photos that were put aside are forgotten\n")
    done = vitsearch("forget", indexed, "--json")
    assert (done.returncode, done.stdout) == (1, b'{"forgotten": 0}\n')
    assert len(content(indexed)) == 3
    assert execute(indexed, "SELECT count(*) FROM missing_vectors") == [(0,)]
    assert raw not in database.read_bytes()
    assert b"red.png" not in database.read_bytes()


def test_a_run_that_puts_most_photos_aside_says_so_first(tmp_path: Path) -> None:
    for number in range(22):
        paint(tmp_path / ("a" if number < 12 else "b") / f"{number}.png", shade(number))
    run(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b" / ".a")
    done = vitsearch("index", tmp_path)
    assert done.stderr.decode().splitlines()[0] == (
        f"vitsearch: 12 of 22 photos are gone from {tmp_path} and leave the results, kept for 30 "
        "days should they come back: is a disk away?"
    )
    assert b"(10 unchanged, 12 put aside)" in done.stdout


# -- gone, or out of reach -------------------------------------------------------------------------


def test_the_photos_of_a_folder_that_is_empty_now_stay(indexed: Path, remarks: list[str]) -> None:
    before = rows(indexed)
    (indexed / "sub" / "blue.png").rename(indexed.parent / "blue.png")
    for _ in range(2):
        done, _, report = run(indexed)
        assert (done, report.out_of_reach) == ({"unchanged": 3}, 1)
    assert rows(indexed) == before
    assert (
        remarks
        == [
            "sub is empty now (if that is right: --accept-missing); 1 of its photos stay in "
            "the collection"
        ]
        * 2
    )
    done, _, report = run(indexed, accept_missing=True)
    assert (done, report.out_of_reach) == ({"unchanged": 3, "removed": 1}, 0)


def test_photos_moved_out_of_a_folder_that_is_empty_now_have_moved(indexed: Path) -> None:
    (indexed / "sub" / "blue.png").rename(indexed / "azure.png")
    done, embedded, report = run(indexed)
    assert (done, embedded, report.out_of_reach) == ({"unchanged": 3, "moved": 1}, 0, 0)


def test_a_broken_file_in_an_otherwise_empty_folder_empties_nothing(indexed: Path) -> None:
    before = rows(indexed)
    for file in indexed.rglob("*.png"):
        file.unlink()
    (indexed / "sub").rmdir()
    (indexed / "broken.jpg").write_bytes(b"words")
    with pytest.raises(CollectionError, match="none of the 4 photos of the collection is in"):
        index_folder(indexed)
    assert rows(indexed) == before
    with pytest.raises(CollectionError, match="could be read"):
        index_folder(indexed, accept_missing=True)
    assert execute(indexed, "SELECT count(*) FROM missing_photos") == [(4,)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on another device than the temporary folder."""
    device = tmp_path.stat().st_dev
    others = [each for each in DISKS if each.is_dir() and each.stat().st_dev != device]
    if not others:
        pytest.skip("needs a second file system, as Linux has in /dev/shm")
    folder = Path(tempfile.mkdtemp(dir=others[0]))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def with_disk(photos: Path, disk: Path) -> Path:
    """The four photos, and ten on another disk; indexed."""
    for number in range(10):
        paint(disk / f"{number}.png", shade(number))
    (photos / "disk").symlink_to(disk)
    assert run(photos, follow_symlinks=True)[0] == {"indexed": 14}
    return photos


@pytest.mark.parametrize("instead", ["nothing", "an empty folder", "another disk", "one photo"])
def test_the_photos_of_a_disk_that_is_away_stay(
    with_disk: Path, disk: Path, tmp_path: Path, instead: str, remarks: list[str]
) -> None:
    before = rows(with_disk)
    (with_disk / "disk").unlink()
    other = tmp_path / "other"
    if instead == "an empty folder":
        (with_disk / "disk").mkdir()
    elif instead != "nothing":
        shutil.copytree(disk, other)
        for number in range(10 if instead == "another disk" else 9):
            (other / f"{number}.png").unlink()
        paint(other / "new.png", "teal" if instead == "none" else "purple")
        (with_disk / "disk").symlink_to(other)
    done, _, report = run(with_disk, follow_symlinks=True)
    lost = 9 if instead == "one photo" else 10
    assert (done.get("removed", 0), report.put_aside, report.out_of_reach) == (0, 0, lost)
    assert run(with_disk, follow_symlinks=True)[2].out_of_reach == lost
    reason = "is empty now" if instead == "an empty folder" else "is on another disk than before"
    assert remarks[0].startswith(f"disk {reason}")
    assert {path: row for path, row in rows(with_disk).items() if path in before}.keys() == (
        before.keys()
    )
    if (with_disk / "disk").is_symlink():
        (with_disk / "disk").unlink()
    elif (with_disk / "disk").exists():
        (with_disk / "disk").rmdir()
    (with_disk / "disk").symlink_to(disk)
    _, embedded, report = run(with_disk, follow_symlinks=True)
    assert (embedded, report.out_of_reach) == (0, 0)
    assert before.keys() == rows(with_disk).keys()


def test_a_disk_with_another_number_is_the_same_disk_if_most_photos_are_there(
    with_disk: Path, disk: Path
) -> None:
    execute(with_disk, "UPDATE folders SET device = '7' WHERE path = 'disk'")
    (disk / "3.png").unlink()
    done, _, report = run(with_disk, follow_symlinks=True)
    assert (done, report.out_of_reach) == ({"unchanged": 13}, 1)
    done, _, report = run(with_disk, follow_symlinks=True)
    assert (done, report.out_of_reach) == ({"unchanged": 13, "removed": 1}, 0)


def test_a_folder_that_is_left_out_now_is_not_out_of_reach(with_disk: Path) -> None:
    done, _, report = run(with_disk)  # links are not followed now
    assert (done, report.out_of_reach) == ({"unchanged": 4, "removed": 10}, 0)
    assert run(with_disk, follow_symlinks=True)[:2] == ({"unchanged": 4, "restored": 10}, 0)
    done, _, report = run(with_disk, follow_symlinks=True, exclude=["disk"])
    assert (done, report.out_of_reach) == ({"unchanged": 4, "removed": 10}, 0)


def test_a_disk_that_leaves_during_the_walk_loses_nothing(with_disk: Path, tmp_path: Path) -> None:
    scan = FolderScan(with_disk, WalkOptions(follow_symlinks=True))
    scan.ensure_not_empty()  # disk/0.png: the disk has been entered
    (with_disk / "disk").unlink()
    (with_disk / "disk").symlink_to(tmp_path / "nowhere")
    with PhotoStoreOf(with_disk) as store:
        plan = scan.plan(store, folder=tmp_path)
        reach = Reach(scan.record, store.walked.mounts(), str(with_disk))
        assert plan.missing == {f"disk/{number}.png" for number in range(1, 10)}
        assert set(reach.absences(plan.missing)) == plan.missing
        plan.close()


class PhotoStoreOf:
    """The database of a folder, open for the block."""

    def __init__(self, folder: Path) -> None:
        self.store = PhotoStore(folder / ".vitsearch" / "photos.db")

    def __enter__(self) -> PhotoStore:
        return self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()


# -- failures that may pass ------------------------------------------------------------------------


class UnpluggingEncoder(ColourEncoder):
    """`colour`, which renames a folder away while it prepares the first picture."""

    def __init__(self, folder: Path, away: Path) -> None:
        self.folder, self.away = folder, away

    def prepare(self, image: Image.Image) -> np.ndarray:  # type: ignore[type-arg]
        if self.folder.exists() and image.size == (24, 16):  # the golden picture is larger
            self.folder.rename(self.away)
        return super().prepare(image)


def test_a_disk_that_is_away_for_a_moment_leaves_no_failures(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number in range(9):
        paint(root / "disk" / f"{number}.png", shade(number))
    report = index_folder(
        root, encoder=UnpluggingEncoder(root / "disk", tmp_path / "away"), workers=1
    )
    assert report.failed > 0
    with Collection.open(root) as found:
        assert {(each.reason, each.transient) for each in found.failures()} == {
            ("cannot be opened: No such file or directory", True)
        }
    (tmp_path / "away").rename(root / "disk")
    done, _, _ = run(root)
    assert done == {"indexed": report.failed, "unchanged": report.indexed}
    with Collection.open(root) as found:
        assert found.failures() == []


def test_a_photo_whose_file_cannot_be_read_just_now_stays(indexed: Path, tmp_path: Path) -> None:
    paint(indexed / "sub" / "new.png", "cyan")
    paint(indexed / "sub" / "blue.png", "blue", "cyan")
    before = rows(indexed)
    encoder = UnpluggingEncoder(indexed / "sub", tmp_path / "away")
    paint(indexed / "first.png", "purple")
    report = index_folder(indexed, encoder=encoder, workers=1)
    assert counts(report) == {"indexed": 1, "unchanged": 3, "failed": 2}
    assert rows(indexed)["sub/blue.png"] == before["sub/blue.png"]
    with Collection.open(indexed) as found:
        reason = "cannot be opened: No such file or directory"
        assert found.failures() == [SkippedPhoto("sub/new.png", "failed", reason, True)]
        assert found.left_out() == [LeftOut("sub/blue.png", "unreadable", reason)]
    (tmp_path / "away").rename(indexed / "sub")
    assert run(indexed)[:2] == ({"indexed": 2, "unchanged": 4}, 2)


def test_failures_of_before_that_may_pass_are_known(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "photos.db") as db:
        db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
        db.executemany(
            "INSERT INTO failures VALUES (?, ?, ?, 1, 1)",
            [
                ("a.jpg", "failed", "cannot be opened: Input/output error"),
                ("b.jpg", "failed", "cannot be decoded: cannot be opened: no"),
                ("c.jpg", "skipped", "a pipe, not a file"),
            ],
        )
    db.close()
    store = PhotoStore(tmp_path / "photos.db")
    assert [(each.path, each.transient) for each in store.failures()] == [
        ("a.jpg", True),
        ("b.jpg", False),
        ("c.jpg", False),
    ]
    assert (list(store.aside.stats()), store.walked.left_out(), store.walked.mounts()) == (
        [],
        [],
        {},
    )
    store.close()


# -- read again ------------------------------------------------------------------------------------


def write_dated(file: Path, colour: str, date: str) -> None:
    """Write a picture with a date in its EXIF, with the same time and size whatever the date."""
    exif = Image.Exif()
    exif[0x0132] = date
    Image.new("RGB", (24, 16), colour).save(file, exif=exif)
    os.utime(file, (1_000_000_000, 1_000_000_000))


def test_a_date_corrected_with_size_and_time_kept(photos: Path) -> None:
    for name in ("one.jpg", "sub/two.jpg"):
        write_dated(photos / name, "cyan", "2019:07:14 10:00:00")
    run(photos)
    stats = [(photos / name).stat() for name in ("one.jpg", "sub/two.jpg")]
    for name in ("one.jpg", "sub/two.jpg"):
        write_dated(photos / name, "cyan", "2021:07:14 10:00:00")
    for before, name in zip(stats, ("one.jpg", "sub/two.jpg"), strict=True):
        after = (photos / name).stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert run(photos)[:2] == ({"unchanged": 6}, 0)
    done = vitsearch("verify", photos, "--content")
    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[-3:] == [
        "BAD content: 2 of 6 files have other content than was embedded: `vitsearch index PHOTOS "
        "--reread` reads them again",
        "    one.jpg",
        "    sub/two.jpg",
    ]
    assert run(photos, reread="sub")[:2] == ({"indexed": 1, "unchanged": 5}, 1)
    assert b'"total": 6' in vitsearch("index", photos, "--reread", "o*.jpg", "--json").stdout
    with Collection.open(photos) as found:
        assert sorted(str(photo.info["taken_at"]) for photo in found.photos()) == [
            "2021-07-14T10:00:00",
            "2021-07-14T10:00:00",
            *["None"] * 4,
        ]
        checks = {check.name: (check.ok, check.paths) for check in found.verify(content=True)}
    assert checks["content"] == (True, ())
    assert run(photos, reread="*")[:2] == ({"unchanged": 6}, 0)
    assert vitsearch("index", photos, "--reread").stdout.startswith(b"6 photos are searchable (6")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_the_content_of_a_pipe_is_not_waited_for(indexed: Path) -> None:
    (indexed / "red.png").unlink()
    os.mkfifo(indexed / "red.png")
    paint(indexed / "green.png", "cyan")
    with Collection.open(indexed) as found:
        check = found.verify(content=True)[-1]
    assert (check.ok, check.detail, check.paths) == (
        False,
        "1 of 4 files have other content than was embedded; 1 could not be read: `vitsearch index "
        "PHOTOS --reread` reads them again",
        ("green.png",),
    )


def test_photos_that_are_left_out_by_default_now_leave_with_a_remark(tmp_path: Path) -> None:
    for name in ("a.png", "#recycle/b.png", "#recycle/x/c.png", "@eaDir/d.png"):
        paint(tmp_path / name, shade(ord(name[-5])))
    assert run(tmp_path, include_hidden=True)[0] == {"indexed": 4}
    again = vitsearch("index", tmp_path)
    assert again.stderr.decode().splitlines()[:2] == [
        "vitsearch: #recycle/ is left out by default (recycle bin): 2 of its photos leave the "
        "results; --include-hidden takes them",
        "vitsearch: @eaDir/ is left out by default (hidden): 1 of its photos leave the results; "
        "--include-hidden takes them",
    ]
    assert run(tmp_path, include_hidden=True)[0] == {"unchanged": 1, "restored": 3}


# -- nothing is passed over in silence -------------------------------------------------------------


def test_what_a_walk_does_not_take_is_listed(indexed: Path, tmp_path: Path) -> None:
    for name in (".hidden.png", ".trash/a.png", "no/b.png", "no.png"):
        paint(indexed / name, "cyan")
    for name in ("y.xmp", "z.xmp", "song.MP3", "README", ".DS_Store", "no.txt"):
        (indexed / name).write_text("x")
    (tmp_path / "elsewhere").mkdir()
    (indexed / "more").symlink_to(tmp_path / "elsewhere")
    done, _, report = run(indexed, exclude=["no*"])
    assert (done, report.left_out, report.extensions) == (
        {"unchanged": 4},
        {"extension": 6, "excluded": 2, "hidden": 2, "link": 1},
        {"*": 2, "*.xmp": 2, "*.mp3": 1, "*.txt": 1},
    )
    listed = vitsearch("failures", indexed, "--left-out")
    assert (listed.returncode, listed.stdout.decode().splitlines()) == (
        0,
        [
            "left out\t*\t2 files that are not photos",
            "left out\t*.mp3\t1 file that is not a photo",
            "left out\t*.txt\t1 file that is not a photo",
            "left out\t*.xmp\t2 files that are not photos",
            "left out\t.hidden.png\thidden (--include-hidden takes it)",
            "left out\t.trash/\thidden (--include-hidden takes it)",
            "left out\tmore/\ta link to a folder (--follow-symlinks enters it, once)",
            "left out\tno.png\tby --exclude",
            "left out\tno/\tby --exclude",
        ],
    )
    short = vitsearch("failures", indexed)
    assert (short.returncode, short.stdout, short.stderr.decode().splitlines()) == (
        1,
        b"",
        [
            "vitsearch: left out: 6 of other kinds, 2 by --exclude, 2 hidden, 1 links (no "
            "extension 2, .xmp 2, .mp3 1, .txt 1): --left-out lists them",
            "vitsearch: every photo is in the collection",
        ],
    )
    assert vitsearch("index", indexed, "--exclude", "no*").stderr.decode().splitlines() == [
        "vitsearch: left out: 6 of other kinds, 2 by --exclude, 2 hidden, 1 links (no extension "
        f"2, .xmp 2, .mp3 1, .txt 1): `vitsearch failures {indexed} --left-out` lists them"
    ]


def test_a_path_that_is_too_long_is_a_failure(indexed: Path, capfd: Any) -> None:
    here, name = os.getcwd(), "d" * 250
    try:
        os.chdir(indexed)
        for _ in range(20):
            os.mkdir(name)
            os.chdir(name)
        Path("deep.jpg").write_bytes(b"x")
    finally:
        os.chdir(here)
    done = vitsearch("index", indexed)
    assert done.stderr.decode() == (
        "vitsearch: 1 of the folders and files could not be read: `vitsearch failures "
        f"{indexed}` lists them; what was known of them stays\n"
    )
    listed = vitsearch("failures", indexed)
    assert listed.returncode == 0
    path, reason = listed.stdout.decode().rstrip("\n").split("\t")[1:]
    assert (set(path.split("/")), reason) == ({name}, "cannot be read: File name too long")
    shutil.rmtree(indexed / name)
    assert vitsearch("index", indexed).stderr == b""
    assert "every photo is in the collection" in one_line(capfd, "failures", indexed)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes user, which needs root"
)
def test_the_photos_of_a_folder_that_cannot_be_read_stay() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    user = os.geteuid()
    try:
        paint(folder / "shut" / "a.png", "red")
        paint(folder / "b.png", "blue")
        os.seteuid(65534)
        run(folder)
        before = rows(folder)
        os.seteuid(user)
        (folder / "shut").chmod(0o700)
        os.seteuid(65534)
        done, _, report = run(folder)
        assert (done, report.out_of_reach, report.left_out) == (
            {"unchanged": 1},
            1,
            {"unreadable": 1},
        )
        assert rows(folder) == before
        with Collection.open(folder) as found:
            assert found.left_out() == [LeftOut("shut", "unreadable", "Permission denied")]
        (listed,) = vitsearch("failures", folder).stdout.decode().splitlines()
        assert listed == "unreadable\tshut\tcannot be read: Permission denied"
        assert run(folder, accept_missing=True)[2].out_of_reach == 1
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)

"""Indexing, run after run: what is embedded, kept, moved, removed, refused, and what a killed run
leaves.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from helpers.cli import environment
from helpers.collections import CountingEncoder, content, counts, found_paths
from helpers.odd_files import make_odd_files, oriented, picture
from helpers.photos import paint, shade
from vitsearch import Collection, CollectionError, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionLocked, EncoderMismatch
from vitsearch.storage.filesystem import writer_lock
from vitsearch.types import PhotoInfo

ALL = {"red.png", "green.png", "sub/blue.png", "yellow.png"}


def again(folder: Path, **options: object) -> tuple[dict[str, int], int]:
    """Index and return the counts and how many pictures were embedded."""
    encoder = CountingEncoder()
    report = index_folder(folder, encoder=encoder, **options)  # type: ignore[arg-type]
    return counts(report), encoder.embedded


def ids(folder: Path) -> dict[str, int]:
    with Collection.open(folder) as found:
        return {photo.path: photo.photo_id for photo in found.photos()}


def test_first_and_second_run(photos: Path) -> None:
    assert again(photos) == ({"indexed": 4}, 4)
    assert again(photos) == ({"unchanged": 4}, 0)
    assert set(content(photos)) == ALL


def test_add_and_change(indexed: Path) -> None:
    before = ids(indexed)
    paint(indexed / "new.png", "cyan")
    paint(indexed / "red.png", "purple", size=(30, 16))
    assert again(indexed) == ({"indexed": 2, "unchanged": 3}, 2)
    assert found_paths(indexed, "purple", 1) == ["red.png"]
    assert ids(indexed)["red.png"] == before["red.png"]


def test_rename_and_move_keep_vector_and_id(indexed: Path) -> None:
    before, vectors = ids(indexed), content(indexed)
    (indexed / "red.png").rename(indexed / "crimson.PNG")
    (indexed / "sub").rename(indexed / "other")
    assert again(indexed) == ({"moved": 2, "unchanged": 2}, 0)
    assert ids(indexed)["crimson.PNG"] == before["red.png"]
    assert content(indexed)["other/blue.png"] == vectors["sub/blue.png"]


def test_moved_root(indexed: Path) -> None:
    vectors = content(indexed)
    moved = indexed.rename(indexed.with_name("elsewhere"))
    assert content(moved) == vectors
    assert again(moved) == ({"unchanged": 4}, 0)


def test_remove(indexed: Path) -> None:
    (indexed / "red.png").unlink()
    assert again(indexed) == ({"removed": 1, "unchanged": 3}, 0)
    assert set(content(indexed)) == ALL - {"red.png"}
    assert "red.png" not in found_paths(indexed, "red")


def test_equal_bytes_are_two_photos(indexed: Path) -> None:
    shutil.copyfile(indexed / "red.png", indexed / "copy.png")
    assert again(indexed) == ({"indexed": 1, "unchanged": 4}, 0)
    assert found_paths(indexed, "red", 2) == ["copy.png", "red.png"]
    (indexed / "red.png").unlink()
    assert again(indexed) == ({"removed": 1, "unchanged": 4}, 0)
    assert found_paths(indexed, "red", 1) == ["copy.png"]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_two_files_swap_names(indexed: Path, batch_size: int) -> None:
    vectors = content(indexed)
    (indexed / "red.png").rename(indexed / "x")
    (indexed / "green.png").rename(indexed / "red.png")
    (indexed / "x").rename(indexed / "green.png")
    for name, seconds in (("red.png", 1_000_000_001), ("green.png", 1_000_000_002)):
        os.utime(indexed / name, (seconds, seconds))
    again(indexed, batch_size=batch_size)
    swapped = content(indexed)
    assert (swapped["red.png"], swapped["green.png"]) == (vectors["green.png"], vectors["red.png"])


def test_touch_embeds_nothing(indexed: Path) -> None:
    os.utime(indexed / "red.png", (1_000_000_000, 1_000_000_000))
    assert again(indexed) == ({"unchanged": 4}, 0)
    assert again(indexed) == ({"unchanged": 4}, 0)


def test_failed_files_are_tried_when_they_change_or_with_retry(indexed: Path) -> None:
    bad = indexed / "bad.jpg"
    bad.write_bytes(b"not a photo")
    assert again(indexed) == ({"failed": 1, "unchanged": 4}, 0)
    assert again(indexed) == ({"failed": 1, "unchanged": 4}, 0)
    stat = bad.stat()
    paint(bad, "brown")
    size = bad.stat().st_size
    bad.write_bytes(b"x" * size)
    os.utime(bad, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert again(indexed) == ({"failed": 1, "unchanged": 4}, 0)
    paint(bad, "brown")
    assert again(indexed) == ({"indexed": 1, "unchanged": 4}, 1)
    with Collection.open(indexed) as found:
        assert found.failures() == []


def test_retry_reads_a_failed_file_that_did_not_change(indexed: Path) -> None:
    huge = paint(indexed / "wide.png", "red", "blue", size=(60, 40))
    assert again(indexed, max_pixels=1000) == ({"failed": 1, "unchanged": 4}, 0)
    assert again(indexed) == ({"failed": 1, "unchanged": 4}, 0)
    assert again(indexed, retry=True) == ({"indexed": 1, "unchanged": 4}, 1)
    assert huge.name in content(indexed)


def test_a_photo_that_breaks_leaves_with_a_reason(indexed: Path) -> None:
    (indexed / "red.png").write_bytes((indexed / "red.png").read_bytes()[:60])
    assert again(indexed) == ({"failed": 1, "unchanged": 3}, 0)
    with Collection.open(indexed) as found:
        assert [(one.path, one.state) for one in found.failures()] == [("red.png", "failed")]
    assert "red.png" not in found_paths(indexed, "red")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_photo_that_becomes_a_pipe_is_skipped(indexed: Path) -> None:
    (indexed / "red.png").unlink()
    os.mkfifo(indexed / "red.png")
    assert again(indexed) == ({"skipped": 1, "unchanged": 3}, 0)
    assert "red.png" not in found_paths(indexed, "red")


@pytest.mark.parametrize("place", ["beside", "photos/inside"])
def test_collection_elsewhere(photos: Path, place: str) -> None:
    folder = photos.parent / place
    assert again(photos, collection=folder) == ({"indexed": 4}, 4)
    assert again(photos, collection=folder, include_hidden=True) == ({"unchanged": 4}, 0)
    assert not (photos / ".vitsearch").exists()
    assert set(content(photos, collection=folder)) == ALL


def test_an_empty_folder_leaves_no_trace_and_an_emptied_one_no_loss(
    indexed: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollectionError, match="no photos found"):
        index_folder(tmp_path / "empty", encoder=ColourEncoder())
    assert list((tmp_path / "empty").iterdir()) == []
    for file in [*indexed.glob("*.png"), indexed / "sub" / "blue.png"]:
        file.unlink()
    with pytest.raises(CollectionError, match=r"is the disk mounted\? nothing was removed"):
        index_folder(indexed)
    assert set(content(indexed)) == ALL


def test_a_glob_that_leaves_all_out_leaves_the_collection_as_it_is(indexed: Path) -> None:
    with pytest.raises(CollectionError, match="is --exclude meant to leave all out"):
        index_folder(indexed, exclude=("*",))
    assert set(content(indexed)) == ALL


def test_another_root_is_refused(photos: Path, tmp_path: Path) -> None:
    index_folder(photos, collection=tmp_path / "c", encoder=ColourEncoder())
    paint(tmp_path / "others" / "a.png", "pink")
    with pytest.raises(CollectionError, match="nothing was removed"):
        index_folder(tmp_path / "others", collection=tmp_path / "c")
    assert set(content(photos, collection=tmp_path / "c")) == ALL


def test_another_encoder_is_refused(indexed: Path) -> None:
    class Other(ColourEncoder):
        name = "other"
        fingerprint = "0" * 32

    with pytest.raises(EncoderMismatch, match="was made with colour"):
        index_folder(indexed, encoder="mini")
    with pytest.raises(EncoderMismatch, match="was made with colour"):
        index_folder(indexed, encoder=Other())
    with pytest.raises(EncoderMismatch):
        Collection.open(indexed, encoder=Other())
    assert set(content(indexed)) == ALL


def test_same_name_other_vectors_is_noticed_by_the_golden_picture(indexed: Path) -> None:
    class Drifted(ColourEncoder):
        def encode_images(self, images):  # type: ignore[no-untyped-def]
            return super().encode_images(images)[:, ::-1].copy()

    paint(indexed / "new.png", "cyan")
    with pytest.raises(EncoderMismatch, match="golden"):
        index_folder(indexed, encoder=Drifted())
    assert set(content(indexed)) == ALL


@pytest.mark.slow
def test_odd_files_end_as_indexed_failed_or_skipped(tmp_path: Path) -> None:
    expected = make_odd_files(tmp_path / "odd")
    report = index_folder(tmp_path / "odd", encoder=ColourEncoder())
    with Collection.open(tmp_path / "odd") as found:
        states = {photo.path: "indexed" for photo in found.photos()} | {
            one.path: one.state for one in found.failures()
        }
        assert all(one.reason for one in found.failures())
    assert states == expected
    assert (report.indexed, report.failed, report.skipped) == tuple(
        list(expected.values()).count(s) for s in ("indexed", "failed", "skipped")
    )


@pytest.mark.slow
def test_a_second_writer_is_stopped_and_readers_go_on(indexed: Path) -> None:
    with writer_lock(indexed / ".vitsearch"):
        assert found_paths(indexed, "red", 1) == ["red.png"]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from vitsearch.cli import main; main()",
                "index",
                str(indexed),
            ],
            capture_output=True,
            env=environment(),
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"vitsearch: another vitsearch is writing to")
    assert done.stderr.count(b"\n") == 1
    with writer_lock(indexed / ".vitsearch"), pytest.raises(CollectionLocked):
        index_folder(indexed)


SLOW = """
import signal, sys, time
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
class Slow(ColourEncoder):
    def encode_prepared(self, batch):
        time.sleep(0.2)
        return super().encode_prepared(batch)
# a shell's background jobs are started deaf to it
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    index_folder(sys.argv[1], encoder=Slow(), batch_size=2)
except KeyboardInterrupt:
    sys.exit(130)
"""


def started(folder: Path, enough: int) -> subprocess.Popen[bytes]:
    """Start a slow run of indexing and return it once that many photos are stored."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder)], env=environment(), stderr=subprocess.PIPE
    )
    until = time.monotonic() + 240
    while time.monotonic() < until:
        try:
            with Collection.open(folder) as found:
                if len(found) >= enough:
                    return process
        except CollectionError:
            pass
        time.sleep(0.02)
    raise AssertionError("the run stored nothing")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_keeps_what_was_stored_and_the_next_goes_on(
    tmp_path: Path, sign: signal.Signals
) -> None:
    for number in range(60):
        paint(tmp_path / "photos" / f"{number:03}.png", shade(number), shade(number + 7))
    process = started(tmp_path / "photos", 6)
    process.send_signal(sign)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if sign == signal.SIGKILL else 130)
    assert b"Traceback" not in errors
    stored = content(tmp_path / "photos")
    assert 6 <= len(stored) < 60
    assert not (tmp_path / "photos" / ".vitsearch" / "index").exists()
    assert set(found_paths(tmp_path / "photos", "red", 100)) == set(
        stored
    )  # searchable at once, without an index
    report, embedded = again(tmp_path / "photos")
    assert embedded == 60 - len(stored)
    assert report == {"indexed": embedded, "unchanged": len(stored)}
    shutil.copytree(
        tmp_path / "photos", tmp_path / "fresh", ignore=shutil.ignore_patterns(".vitsearch")
    )
    index_folder(tmp_path / "fresh", encoder=ColourEncoder())
    assert content(tmp_path / "photos") == content(tmp_path / "fresh")


@pytest.mark.parametrize("seed", range(12))
def test_any_history_gives_what_a_fresh_collection_gives(tmp_path: Path, seed: int) -> None:
    rng, folder, clock = random.Random(seed), tmp_path / "photos", 1_000_000_000
    paint(folder / "first.png", "red")
    for step in range(6):
        for _ in range(rng.randint(1, 4)):
            files = sorted(path for path in folder.rglob("*.png") if ".vitsearch" not in path.parts)
            victim, target = (
                rng.choice(files),
                folder / rng.choice(["", "a", "b/c"]) / f"{rng.randint(0, 9)}.png",
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            action = rng.choice(["add", "add", "change", "rename", "remove", "copy", "break"])
            if action == "add":
                paint(target, shade(rng.randint(0, 30)))
            elif action == "change":
                paint(victim, shade(rng.randint(0, 30)), "white")
            elif action == "rename":
                victim.replace(target)
            elif action == "copy" and victim != target:
                shutil.copyfile(victim, target)
            elif action == "remove" and len(files) > 1:
                victim.unlink()
            elif action == "break" and len(files) > 1:
                victim.write_bytes(b"broken %d" % step)
        for below in ("a", "b/c", "b"):  # the photos of a folder that is empty now would stay
            if (folder / below).exists() and not os.listdir(folder / below):
                (folder / below).rmdir()
        for file in folder.rglob("*.png"):
            clock += 1
            if rng.random() < 0.5:
                os.utime(file, (clock, clock))
        try:
            index_folder(folder, encoder=ColourEncoder(), batch_size=rng.choice([1, 2, 32]))
        except CollectionError as error:
            assert "could be read" in str(error)  # every file was broken
    shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
    shutil.copytree(folder, tmp_path / "fresh", ignore=shutil.ignore_patterns(".vitsearch"))
    try:
        index_folder(tmp_path / "fresh", encoder=ColourEncoder())
    except CollectionError as error:
        assert "could be read" in str(error)
    assert content(folder) == content(tmp_path / "fresh")
    assert found_paths(folder, "red + 2:blue", 50) == found_paths(
        tmp_path / "fresh", "red + 2:blue", 50
    )


@pytest.mark.parametrize(("name", "kind"), [("colour", "JPEG"), ("colour", "PNG"), ("mini", "PNG")])
def test_orientations_give_the_vector_of_the_upright_photo(
    tmp_path: Path, name: str, kind: str
) -> None:
    """JPEG's own losses move a vector of `mini` by more than 0.001, so there the turn is tested on
    a lossless file.
    """
    upright = picture(3, size=(320, 240))
    for orientation in range(1, 9):
        (tmp_path / f"{orientation}.jpg").write_bytes(oriented(upright, orientation, kind))
    index_folder(tmp_path, encoder=name)
    with Collection.open(tmp_path) as found:
        hits = found.similar(upright, 8)
        assert {photo.info.width for photo in found.photos()} == {320}
    assert sorted(hit.path for hit in hits) == [f"{number}.jpg" for number in range(1, 9)]
    assert min(hit.score for hit in hits) >= 0.999


def test_what_the_file_says_is_stored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS R5"
    exif.get_ifd(0x8769)[0x9003] = "2019:07:04 12:30:05"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 0.0), 3: "W", 4: (13.0, 15.0, 0.0)})
    picture(1, size=(60, 40)).save(tmp_path / "a.jpg", exif=exif)
    index_folder(tmp_path, encoder=ColourEncoder())
    with Collection.open(tmp_path) as found:
        (photo,) = found.photos()
    assert photo.info == PhotoInfo(
        60,
        40,
        {
            "taken_at": "2019-07-04T12:30:05",
            "taken_from": "EXIF:DateTimeOriginal",
            "camera": "Canon EOS R5",
            "latitude": 52.5,
            "longitude": -13.25,
        },
    )


def test_exclude_and_hidden(indexed: Path) -> None:
    paint(indexed / ".hidden.png", "cyan")
    assert again(indexed, exclude=["sub", "*ellow*"]) == ({"removed": 2, "unchanged": 2}, 0)
    assert again(indexed, include_hidden=True) == (
        {"indexed": 1, "restored": 2, "unchanged": 2},
        1,
    )


class NextVersion(ColourEncoder):
    """`colour` as a later version of the package has it, with other weights."""

    fingerprint = "f" * 64


def test_a_collection_of_another_version_of_its_encoder_stays_and_says_what_to_do(
    indexed: Path,
) -> None:
    before = content(indexed)
    with pytest.raises(EncoderMismatch, match="`vitsearch index PHOTOS --collection DIR` embeds"):
        index_folder(indexed, encoder=NextVersion())
    with Collection.open(indexed) as found:
        found.use_encoder(ColourEncoder())
        expected = found.similar(indexed / "red.png")
    with pytest.raises(EncoderMismatch, match="finds photos by photos as before"):
        Collection.open(indexed, encoder=NextVersion())
    assert content(indexed) == before
    with Collection.open(indexed) as found:
        assert found.similar(indexed / "red.png") == expected

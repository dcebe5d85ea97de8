"""Photos sorted into folders: what is there afterwards, and what must never be touched."""

import json
import os
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.photos import paint
from vitsearch.errors import VitsearchError
from vitsearch.labels import labels
from vitsearch.outputs import sidecars as names
from vitsearch.outputs.sidecars import folder_names
from vitsearch.outputs.sorting import MANIFEST, SortReport, check_target, sort_into_folders
from vitsearch.types import Prediction

ODD = os.fsdecode(b"bad\xff byte.png")
RIGHT = {
    "green.png": "plant",
    "red.png": "warm > red",
    "sub/blue.png": "cold > blue",
    "yellow.png": "warm > sun",
}


def predictions(found: dict[str, str]) -> list[Prediction]:
    return [Prediction(path, label, 0.9) for path, label in found.items()]


def tree(folder: Path) -> dict[str, str | bytes]:
    """Return what every file below a folder holds, or what every link says."""
    files = [
        Path(above, name) for above, _, here in os.walk(folder) for name in here if name != MANIFEST
    ]
    return {
        file.relative_to(folder).as_posix(): os.readlink(file)
        if file.is_symlink()
        else file.read_bytes()
        for file in sorted(files)
    }


def folders(folder: Path) -> set[str]:
    return {
        Path(above, name).relative_to(folder).as_posix()
        for above, below, _ in os.walk(folder)
        for name in below
    }


def test_links_go_into_a_folder_for_each_level(photos: Path, tmp_path: Path) -> None:
    before = tree(photos)
    target = tmp_path / "new" / "sorted"
    assert sort_into_folders(target, predictions(RIGHT), root=photos) == SortReport(4, 0, 0, ())
    assert tree(target) == {
        "cold/blue/blue.png": "../../../../photos/sub/blue.png",
        "plant/green.png": "../../../photos/green.png",
        "warm/red/red.png": "../../../../photos/red.png",
        "warm/sun/yellow.png": "../../../../photos/yellow.png",
    }
    assert (target / "cold/blue/blue.png").read_bytes() == before["sub/blue.png"]
    assert sort_into_folders(target, predictions(RIGHT), root=photos) == SortReport(0, 4, 0, ())
    assert tree(photos) == before


def test_links_hold_where_the_disk_is_mounted_elsewhere(photos: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    photos.rename(disk / "photos")
    sort_into_folders(disk / "sorted", predictions(RIGHT), root=disk / "photos")
    disk.rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/sorted/plant/green.png").read_bytes() == (
        tmp_path / "elsewhere/photos/green.png"
    ).read_bytes()
    before = tree(tmp_path / "elsewhere/sorted")
    assert sort_into_folders(
        tmp_path / "elsewhere/sorted", predictions(RIGHT), root=tmp_path / "elsewhere/photos"
    ) == SortReport(4, 0, 0, ())
    assert tree(tmp_path / "elsewhere/sorted") == before
    assert sort_into_folders(
        tmp_path / "elsewhere/sorted", [], root=tmp_path / "elsewhere/photos"
    ) == SortReport(0, 0, 4, ())


def test_links_are_right_through_linked_folders(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "album").symlink_to(photos)
    sort_into_folders(tmp_path / "near" / "sorted", predictions(RIGHT), root=tmp_path / "album")
    assert (
        os.readlink(tmp_path / "far/away/sorted/plant/green.png") == "../../../../photos/green.png"
    )


def test_copies_are_files_of_their_own_with_the_same_time(photos: Path, tmp_path: Path) -> None:
    os.utime(photos / "red.png", ns=(1, 1_000_000_007))
    target = tmp_path / "sorted"
    assert sort_into_folders(target, predictions(RIGHT), root=photos, copy=True) == SortReport(
        4, 0, 0, ()
    )
    made = target / "warm/red/red.png"
    assert not made.is_symlink()
    assert (made.read_bytes(), made.stat().st_mtime_ns) == (
        (photos / "red.png").read_bytes(),
        1_000_000_007,
    )
    assert sort_into_folders(target, predictions(RIGHT), root=photos, copy=True) == SortReport(
        0, 4, 0, ()
    )
    paint(photos / "red.png", "red", "white")
    assert sort_into_folders(target, predictions(RIGHT), root=photos, copy=True) == SortReport(
        1, 3, 0, ()
    )
    assert made.read_bytes() == (photos / "red.png").read_bytes()
    assert sort_into_folders(target, predictions(RIGHT), root=photos) == SortReport(4, 0, 0, ())
    assert os.readlink(made) == "../../../photos/red.png"


def test_new_labels_take_out_what_no_longer_holds(photos: Path, tmp_path: Path) -> None:
    sort_into_folders(tmp_path / "sorted", predictions(RIGHT), root=photos)
    assert sort_into_folders(
        tmp_path / "sorted", predictions(RIGHT | {"sub/blue.png": "plant"}), root=photos
    ) == SortReport(1, 3, 1, ())
    assert tree(tmp_path / "sorted") == {
        "plant/blue.png": "../../photos/sub/blue.png",
        "plant/green.png": "../../photos/green.png",
        "warm/red/red.png": "../../../photos/red.png",
        "warm/sun/yellow.png": "../../../photos/yellow.png",
    }
    assert folders(tmp_path / "sorted") == {"plant", "warm", "warm/red", "warm/sun"}
    assert sort_into_folders(tmp_path / "sorted", [], root=photos) == SortReport(0, 0, 4, ())
    assert (tree(tmp_path / "sorted"), folders(tmp_path / "sorted")) == ({}, set())


@pytest.mark.parametrize("copy", [False, True])
def test_another_photo_folder_takes_out_nothing_of_the_first(
    photos: Path, tmp_path: Path, copy: bool
) -> None:
    target, other = tmp_path / "sorted", tmp_path / "photos 2"
    paint(other / "green.png", "green", "white")
    paint(other / "sky.png", "cyan")
    sort_into_folders(target, predictions(RIGHT), root=photos, copy=copy)
    first = tree(target)
    wanted = predictions({"green.png": "plant", "sky.png": "cold > blue"})
    assert sort_into_folders(target, wanted, root=other, copy=copy) == SortReport(2, 0, 0, ())
    both = tree(target)
    assert both.keys() - first.keys() == {"plant/green (2).png", "cold/blue/sky.png"}
    assert {place: both[place] for place in first} == first
    assert (target / "plant/green (2).png").read_bytes() == (other / "green.png").read_bytes()
    assert sort_into_folders(target, predictions(RIGHT), root=photos, copy=copy) == SortReport(
        0, 4, 0, ()
    )
    assert sort_into_folders(target, wanted, root=other, copy=copy) == SortReport(0, 2, 0, ())
    assert sort_into_folders(target, wanted[1:], root=other, copy=copy) == SortReport(0, 1, 1, ())
    assert sort_into_folders(target, [], root=photos) == SortReport(0, 0, 4, ())
    assert tree(target) == {"cold/blue/sky.png": both["cold/blue/sky.png"]}
    assert sort_into_folders(target, [], root=other) == SortReport(0, 0, 1, ())
    assert folders(target) == set()


def test_a_folder_above_has_the_photos_of_the_one_below(photos: Path, tmp_path: Path) -> None:
    sort_into_folders(tmp_path / "sorted", predictions({"blue.png": "sea"}), root=photos / "sub")
    assert sort_into_folders(
        tmp_path / "sorted", predictions({"red.png": "warm"}), root=photos
    ) == SortReport(1, 0, 1, ())
    assert sort_into_folders(
        tmp_path / "sorted", predictions({"blue.png": "sea"}), root=photos / "sub"
    ) == SortReport(1, 0, 0, ())
    assert tree(tmp_path / "sorted") == {
        "sea/blue.png": "../../photos/sub/blue.png",
        "warm/red.png": "../../photos/red.png",
    }


def test_photos_of_a_linked_folder_are_the_folders_own(photos: Path, tmp_path: Path) -> None:
    paint(tmp_path / "far" / "sky.png", "cyan")
    (photos / "link").symlink_to(tmp_path / "far")
    found = predictions({"link/sky.png": "sky"})
    for report in (SortReport(1, 0, 0, ()), SortReport(0, 1, 0, ())):
        assert sort_into_folders(tmp_path / "sorted", found, root=photos) == report
    assert tree(tmp_path / "sorted") == {"sky/sky.png": "../../far/sky.png"}
    assert sort_into_folders(tmp_path / "sorted", [], root=tmp_path / "far") == SortReport(
        0, 0, 0, ()
    )
    assert sort_into_folders(tmp_path / "sorted", [], root=photos) == SortReport(0, 0, 1, ())


def test_what_is_the_users_stays(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    (target / "plant").mkdir(parents=True)
    (target / "plant" / "green.png").write_bytes(b"mine")
    (target / "plant" / "notes.txt").write_bytes(b"mine")
    (target / "empty").mkdir()
    for _ in range(2):
        sort_into_folders(target, predictions(RIGHT), root=photos)
        assert tree(target / "plant") == {
            "green (2).png": "../../photos/green.png",
            "green.png": b"mine",
            "notes.txt": b"mine",
        }
    (target / "warm/sun/yellow.png").unlink()
    (target / "warm/sun/yellow.png").write_bytes(b"mine now")
    (target / "warm/red/red.png").unlink()
    (target / "warm/red/red.png").symlink_to("elsewhere")
    assert sort_into_folders(target, [], root=photos) == SortReport(0, 0, 2, ())
    assert tree(target) == {
        "plant/green.png": b"mine",
        "plant/notes.txt": b"mine",
        "warm/red/red.png": "elsewhere",
        "warm/sun/yellow.png": b"mine now",
    }
    assert folders(target) == {"plant", "empty", "warm", "warm/red", "warm/sun"}


def test_a_copy_that_the_user_changed_is_the_users(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    sort_into_folders(target, predictions(RIGHT), root=photos, copy=True)
    (target / "plant/green.png").write_bytes(b"retouched")
    assert sort_into_folders(target, predictions(RIGHT), root=photos, copy=True) == SortReport(
        1, 3, 0, ()
    )
    assert (target / "plant/green.png").read_bytes() == b"retouched"
    assert (target / "plant/green (2).png").read_bytes() == (photos / "green.png").read_bytes()


def test_a_copy_whose_photo_is_gone_is_kept(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    sort_into_folders(target, predictions(RIGHT), root=photos, copy=True)
    last = (photos / "green.png").read_bytes()
    (photos / "green.png").unlink()
    report = sort_into_folders(target, predictions(RIGHT), root=photos, copy=True)
    kept = f"kept this copy: its photo is not at {photos / 'green.png'} any more"
    assert report == SortReport(
        0, 3, 0, (("green.png", "the photo is gone: index again"), ("plant/green.png", kept))
    )
    (photos / "other").mkdir()
    (photos / "yellow.png").rename(photos / "other" / "green.png")
    sort_into_folders(target, predictions({"other/green.png": "plant"}), root=photos)
    assert tree(target / "plant") == {
        "green (2).png": "../../photos/other/green.png",
        "green.png": last,
    }


def test_a_link_whose_photo_is_gone_is_removed(photos: Path, tmp_path: Path) -> None:
    sort_into_folders(tmp_path / "sorted", predictions(RIGHT), root=photos)
    (photos / "green.png").unlink()
    report = sort_into_folders(tmp_path / "sorted", predictions(RIGHT), root=photos)
    assert report == SortReport(0, 3, 1, (("green.png", "the photo is gone: index again"),))
    assert "plant" not in folders(tmp_path / "sorted")


def test_photos_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = ["2019/dog.png", "2020/trip/dog.png", "2020/Dog.png", "cat.png", "2019__dog.png"]
    for path in paths:
        paint(tmp_path / "photos" / path, "red")
    found = [Prediction(path, "pet", 1.0) for path in paths]
    for order in (found, found[::-1]):
        sort_into_folders(tmp_path / "sorted", order, root=tmp_path / "photos")
        assert tree(tmp_path / "sorted") == {
            "pet/2019__dog (2).png": "../../photos/2019__dog.png",
            "pet/2019__dog.png": "../../photos/2019/dog.png",
            "pet/2020__Dog.png": "../../photos/2020/Dog.png",
            "pet/2020__trip__dog.png": "../../photos/2020/trip/dog.png",
            "pet/cat.png": "../../photos/cat.png",
        }


def test_a_photo_of_several_labels_is_in_each(photos: Path, tmp_path: Path) -> None:
    found = [
        Prediction("red.png", "warm", 0.9),
        Prediction("red.png", "plain", 0.8),
        Prediction("red.png", "warm", 0.9),
    ]
    assert sort_into_folders(tmp_path / "sorted", found, root=photos) == SortReport(2, 0, 0, ())
    assert tree(tmp_path / "sorted") == {
        "plain/red.png": "../../photos/red.png",
        "warm/red.png": "../../photos/red.png",
    }


def test_a_level_may_be_called_like_a_photo(photos: Path, tmp_path: Path) -> None:
    sort_into_folders(
        tmp_path / "sorted", predictions({"red.png": "a", "green.png": "a > red.png"}), root=photos
    )
    assert tree(tmp_path / "sorted") == {
        "a/red (2).png": "../../photos/red.png",
        "a/red.png/green.png": "../../../photos/green.png",
    }


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
@pytest.mark.parametrize("copy", [False, True])
def test_names_that_are_not_text(photos: Path, tmp_path: Path, copy: bool) -> None:
    paint(photos / ODD, "cyan")
    label = os.fsdecode(b"caf\xe9")
    for report in (SortReport(1, 0, 0, ()), SortReport(0, 1, 0, ())):
        assert (
            sort_into_folders(
                tmp_path / "sorted", [Prediction(ODD, label, 1.0)], root=photos, copy=copy
            )
            == report
        )
    (name,) = folders(tmp_path / "sorted")
    assert name.startswith("caf_~")
    assert (tmp_path / "sorted" / name / ODD).read_bytes() == (photos / ODD).read_bytes()


DAMAGED = (
    r"\.vitsearch-sorted\.json is damaged .*: restore it, or sort into another folder; nothing was"
)
NEWER = r"\.vitsearch-sorted\.json has format 2, newer than this vitsearch reads \(1\): upgrade"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, DAMAGED) for text in (b"", b"{}", b"[]", b"{", b"\xff", b"[" * 100_000)),
        (b'{"format": 2, "made": {}}', NEWER),
    ],
    ids=range(7),
)
def test_a_damaged_manifest_stops_before_anything_is_removed(
    photos: Path, tmp_path: Path, text: bytes, words: str
) -> None:
    sort_into_folders(tmp_path / "sorted", predictions(RIGHT), root=photos)
    (tmp_path / "sorted" / MANIFEST).write_bytes(text)
    before = tree(tmp_path / "sorted")
    with pytest.raises(VitsearchError, match=words):
        sort_into_folders(tmp_path / "sorted", [], root=photos)
    assert tree(tmp_path / "sorted") == before


@pytest.mark.parametrize(
    "place",
    [
        "../photos/red.png",
        "a/../../photos/red.png",
        "/photos/red.png",
        "red.png",
        "a//red.png",
        "a/b\0",
    ],
)
def test_a_manifest_that_leads_out_of_the_folder_is_damaged(
    photos: Path, tmp_path: Path, place: str
) -> None:
    facts = (photos / "red.png").stat()
    made = {
        "photo": str(photos / "green.png"),
        "link": "",
        "size": facts.st_size,
        "mtime_ns": facts.st_mtime_ns,
        "photo_mtime_ns": 0,
    }
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / MANIFEST).write_text(json.dumps({"format": 1, "made": {place: made}}))
    with pytest.raises(VitsearchError, match="is damaged"):
        sort_into_folders(tmp_path / "sorted", [], root=photos)
    assert (photos / "red.png").exists()


def test_a_run_that_was_cut_short_is_finished_by_the_next(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    sort_into_folders(target, predictions(RIGHT), root=photos)
    whole = tree(target)
    (target / "plant/green.png").unlink()  # said in the manifest, and not made
    (target / "warm/red/.vitsearch-1.part").symlink_to("x")
    assert sort_into_folders(target, predictions(RIGHT), root=photos) == SortReport(1, 3, 0, ())
    assert tree(target) == whole | {"warm/red/.vitsearch-1.part": "x"}


def test_a_linked_folder_in_the_target_is_not_entered(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "warm").symlink_to(photos)
    before = tree(photos)
    report = sort_into_folders(tmp_path / "sorted", predictions(RIGHT), root=photos)
    reasons = [
        (
            path,
            (
                f"cannot be put at {place} ({place.rpartition('/')[0]} leads out of the folder by "
                "a "
                "link)"
            ),
        )
        for path, place in (("red.png", "warm/red/red.png"), ("yellow.png", "warm/sun/yellow.png"))
    ]
    assert report == SortReport(2, 0, 0, tuple(reasons))
    assert (tree(photos), folders(photos)) == (before, {"sub"})


def test_a_file_where_a_folder_should_be_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "plant").write_bytes(b"mine")
    report = sort_into_folders(tmp_path / "sorted", predictions(RIGHT), root=photos)
    assert report == SortReport(
        3, 0, 0, (("green.png", "cannot be put at plant/green.png (File exists)"),)
    )
    assert (tmp_path / "sorted" / "plant").read_bytes() == b"mine"


def test_folders_that_will_not_do_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(photos / "sub")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "collection.json").write_bytes(b"{}")
    for target, words in {
        "": "is empty: name a folder",
        tmp_path / "file": "file is a file, not a folder; name another folder",
        tmp_path / "file" / "below": "file is a file, not a folder; name another folder",
        photos: "it lies in the photo folder and would be indexed",
        photos / "sorted": "it lies in the photo folder and would be indexed",
        tmp_path / "link" / "sorted": "it lies in the photo folder and would be indexed",
        photos / ".vitsearch" / "x": "it holds a collection; name another folder",
        tmp_path / "other": "it holds a collection; name another folder",
        tmp_path: "the photo folder .* lies in it; name a folder beside it",
    }.items():
        with pytest.raises(VitsearchError, match=words):
            check_target(target, photos)
    check_target(photos / ".sorted", photos)
    check_target(tmp_path / "new" / "one", photos)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user"
)
def test_no_permission_is_said_before(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(
        VitsearchError, match="no permission to write in .*closed; name another folder"
    ):
        check_target(tmp_path / "closed" / "sorted", photos)


def test_names_of_folders_are_readable_where_they_can_be() -> None:
    found = folder_names(
        [
            "dog",
            "animal > golden retriever",
            "AC/DC",
            "..",
            "con",
            "Con.txt",
            "",
            " dog",
            "x" * 300,
            "été",
            ".hidden",
            "a.",
        ]
    )
    assert {label: name.rpartition("~")[0] or name for label, name in found.items()} == {
        "dog": "dog",
        "animal > golden retriever": "animal/golden retriever",
        "AC/DC": "AC_DC",
        "..": "_",
        "con": "_con",
        "Con.txt": "_Con.txt",
        "": "_",
        " dog": "dog",
        "x" * 300: "x" * 111,
        "été": "été",
        ".hidden": "_.hidden",
        "a.": "a",
    }
    assert folder_names(["Dog", "dog", "cat"])["cat"] == "cat"
    assert len({name.casefold() for name in folder_names(["Dog", "dog", "DOG"]).values()}) == 3
    assert names.LEVEL_SEPARATOR == labels.LEVEL_SEPARATOR


AWKWARD = st.sampled_from(
    [
        "dog",
        "Dog",
        "dog ",
        "dog.",
        "d/g",
        "d_g",
        "con",
        "CON",
        "é",
        "e\u0301",
        "ﬀ~00000000",
        "ff~00000000",
        ".",
        "..",
        "",
    ]
)
LEVEL = st.text(st.characters(), max_size=12) | AWKWARD | st.text("x€", min_size=100, max_size=300)


@given(st.lists(st.lists(LEVEL, min_size=1, max_size=3).map(" > ".join), unique=True, max_size=8))
def test_two_labels_never_share_a_folder_and_every_name_is_safe(given_labels: list[str]) -> None:
    found = folder_names(given_labels)
    assert list(found) == given_labels
    same = {
        unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        for name in found.values()
    }
    assert len(same) == len(given_labels)
    for label, name in found.items():
        levels = name.split("/")
        assert len(levels) == len(label.split(" > "))
        for level in levels:
            assert 0 < len(level.encode()) <= 130
            assert not set(level) & {*'\\:*?"<>|', *map(chr, range(32)), "\x7f"}
            assert level[0] not in ". "
            assert level[-1] not in ". "
            assert level.split(".")[0].rstrip().lower() not in {
                "con",
                "prn",
                "aux",
                "nul",
                "com1",
                "lpt9",
            }


PLACES = st.sampled_from(["a.png", "x/a.png", "x/b.png", "y/a.png", "x__a.png"])
ROUND = st.tuples(
    st.sets(st.tuples(PLACES, st.sampled_from(["p", "P", "p > a.png", "q > r", "x"]))),
    st.booleans(),
)
USERS = st.sets(
    st.sampled_from(["p/a.png", "p/x__a.png", "q/r/a.png", "q/notes.txt", "x", "r/a.png"])
)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.lists(ROUND, max_size=3), USERS)
def test_whatever_the_labels_every_photo_is_there_and_the_users_files_stay(
    rounds: list[tuple[set[tuple[str, str]], bool]], users: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        photos, target = Path(place, "photos"), Path(place, "sorted")
        for path in ("a.png", "x/a.png", "x/b.png", "y/a.png", "x__a.png"):
            (photos / path).parent.mkdir(parents=True, exist_ok=True)
            (photos / path).write_text(path)
        for path in users:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text("mine")
        for wanted, copy in [*rounds, *rounds[-1:], (set[tuple[str, str]](), False)]:
            report = sort_into_folders(
                target,
                [Prediction(path, label, 1.0) for path, label in wanted],
                root=photos,
                copy=copy,
            )
            found = tree(target)
            assert {path: found.pop(path) for path in users} == dict.fromkeys(users, b"mine")
            names = folder_names({label for _, label in wanted})
            blocked = {
                (path, label)
                for path, label in wanted
                if any(f"{names[label]}/".startswith(f"{user}/") for user in users)
            }
            there = sorted(
                (target.joinpath(file).read_text(), file.rpartition("/")[0]) for file in found
            )
            assert there == sorted((path, names[label]) for path, label in wanted - blocked)
            assert {path for path, _ in report.problems} == {path for path, _ in blocked}
            assert {target.joinpath(file).is_symlink() for file in found} <= {not copy}

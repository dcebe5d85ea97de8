import os
import shutil
import socket
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.odd_files import make_odd_files
from helpers.photos import paint
from vitsearch.errors import VitsearchError
from vitsearch.photos import WalkOptions
from vitsearch.photos.formats import SUFFIXES
from vitsearch.photos.walk import WalkRecord, walk
from vitsearch.types import Found


def paths(root: Path, **options: object) -> list[str]:
    return [found.path for found in walk(root, WalkOptions(**options))]  # type: ignore[arg-type]


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def test_every_extension_in_any_case_and_nothing_else(tmp_path: Path) -> None:
    wanted = {
        f"a {extension}.{case(extension)}"  # under names of their own: none is a companion
        for extension in SUFFIXES
        for case in (str.lower, str.upper, str.capitalize)
    }
    touch(tmp_path, *wanted, "a.txt", "jpg", "a.jpg.txt", "png.", "a.mp4")
    assert paths(tmp_path) == sorted(wanted)


def test_size_and_time_are_those_of_the_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(5, 1_234_567_890_123_456_789))
    assert list(walk(tmp_path)) == [Found("a.jpg", 5, 1_234_567_890_123_456_789)]


def test_in_the_order_of_the_bytes_of_whole_paths(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/2.jpg",
        "b/1.jpg",
        "b.jpg",
        "b!.jpg",
        "c.jpg",
        "B.jpg",
        "\udcff.jpg",
        "\ue000.jpg",
        "b0/x.jpg",
    )
    assert paths(tmp_path) == [
        "B.jpg",
        "b!.jpg",
        "b.jpg",
        "b/1.jpg",
        "b/2.jpg",
        "b0/x.jpg",
        "c.jpg",
        "\ue000.jpg",
        "\udcff.jpg",
    ]


def test_followed_links_are_in_order_too(tmp_path: Path) -> None:
    touch(tmp_path, "real/1.jpg", "b.jpg", "b!.jpg")
    (tmp_path / "b").symlink_to("real")
    assert paths(tmp_path, follow_symlinks=True) == ["b!.jpg", "b.jpg", "b/1.jpg", "real/1.jpg"]


def test_odd_files(tmp_path: Path) -> None:
    states = make_odd_files(tmp_path)
    found = {each.path: each.problem for each in walk(tmp_path)}
    assert set(found) == set(states)
    assert {path for path, problem in found.items() if problem} == {
        path for path, state in states.items() if state == "skipped"
    }


def test_problems_say_what_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to("gone\n.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.jpg").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "to pipe.jpg").symlink_to("pipe.jpg")
    assert {found.path: found.problem for found in walk(tmp_path)} == {
        "broken.jpg": "a broken link to 'gone\\n.jpg'",
        "loop.jpg": "a link in a loop",
        "folder.jpg": "a link to a folder (follow_symlinks enters it)",
        "pipe.jpg": "a pipe, not a file",
        "to pipe.jpg": "a pipe, not a file",
    }


def test_socket_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        assert [found.problem for found in walk(tmp_path)] == ["a socket, not a file"]


def test_device_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    assert [found.problem for found in walk(tmp_path)] == ["a device, not a file"]


def test_left_out_by_default_and_brought_back(tmp_path: Path) -> None:
    hidden = [
        ".a.jpg",
        ".git/a.jpg",
        "@eaDir/a.jpg",
        "node_modules/a.jpg",
        "System Volume Information/a.jpg",
        "x/.Trash-1000/a.jpg",
        "x/#recycle/a.jpg",
        "$RECYCLE.BIN/S-1/a.jpg",
        "RECYCLER/a.jpg",
        "@Recycle/a.jpg",
        "#snapshot/day/a.jpg",
        "lost+found/a.jpg",
        "Catalog Previews.lrdata/0/a.jpg",
        "P.photoslibrary/resources/derivatives/a.jpg",
        "P.photoslibrary/a.jpg",
        "iPhoto.photolibrary/Thumbnails/a.jpg",
    ]
    taken = [
        "P.photoslibrary/Masters/2015/a.jpg",
        "P.photoslibrary/originals/0/a.jpg",
        "P.photoslibrary/originals/0/resources/a.jpg",
        "a.jpg",
        "originals/a.jpg",
        "recycled art/a.jpg",
        "resources/a.jpg",
        "trash/a.jpg",
    ]
    touch(tmp_path, *taken, *hidden, ".vitsearch/a.jpg", "b/.vitsearch/a.jpg")
    assert paths(tmp_path) == taken
    assert paths(tmp_path, include_hidden=True) == sorted([*taken, *hidden])
    record = WalkRecord()
    list(walk(tmp_path, record=record))
    assert Counter(entry.reason for entry in record.left_out) == {
        "hidden": 6,
        "recycle bin": 5,
        "snapshots": 1,
        "previews": 4,
    }


def test_of_a_library_that_is_named_itself_the_originals_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, "P.photoslibrary/originals/a.jpg", "P.photoslibrary/resources/a.jpg")
    (tmp_path / "link").symlink_to("P.photoslibrary")
    assert paths(tmp_path / "P.photoslibrary") == paths(tmp_path / "link") == ["originals/a.jpg"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ((), ["a.gif", "raw.jpg", "raw/a.jpg", "x/raw/b.jpg", "x/y/c.GIF"]),
        (("raw",), ["a.gif", "raw.jpg", "x/y/c.GIF"]),
        (("raw/",), ["a.gif", "raw.jpg", "x/y/c.GIF"]),
        (("x/raw",), ["a.gif", "raw.jpg", "raw/a.jpg", "x/y/c.GIF"]),
        (("./x/*",), ["a.gif", "raw.jpg", "raw/a.jpg"]),
        (("**/raw",), ["a.gif", "raw.jpg", "x/y/c.GIF"]),
        (("*.gif", "ra[vw].*"), ["raw/a.jpg", "x/raw/b.jpg", "x/y/c.GIF"]),
        (("*",), []),
        (("",), ["a.gif", "raw.jpg", "raw/a.jpg", "x/raw/b.jpg", "x/y/c.GIF"]),
    ],
)
def test_exclude(tmp_path: Path, exclude: tuple[str, ...], left: list[str]) -> None:
    touch(tmp_path, "a.gif", "raw/a.jpg", "raw.jpg", "x/raw/b.jpg", "x/y/c.GIF")
    assert paths(tmp_path, exclude=exclude) == left


def test_leave_out_is_never_entered_by_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "photos/index/b.jpg")
    (tmp_path / "photos/link").symlink_to("index")
    options = WalkOptions(
        leave_out=frozenset({tmp_path / "photos/index", tmp_path / "absent"}), follow_symlinks=True
    )
    assert [found.path for found in walk(tmp_path / "photos", options)] == ["a.jpg"]


def test_heic_without_its_extra_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.HEIC", "b.heif", "c.jpg")
    (tmp_path / "d.heic").symlink_to("a.HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    reason = "HEIC needs an extra: pip install 'vitsearch[heif]'"
    found = [(each.path, each.problem) for each in walk(tmp_path)]
    assert found == [
        ("a.HEIC", reason),
        ("b.heif", reason),
        ("c.jpg", None),
        ("d.heic", reason),
    ]


@pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs pillow-heif")
def test_heic_with_its_extra_is_a_photo(tmp_path: Path) -> None:
    touch(tmp_path, "a.HEIC", "b.heif")
    assert [(found.path, found.problem) for found in walk(tmp_path)] == [
        ("a.HEIC", None),
        ("b.heif", None),
    ]


def test_links_to_folders_are_entered_only_when_asked(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "elsewhere/b.jpg", "photos/in/c.jpg")
    (tmp_path / "photos/link").symlink_to("../elsewhere")
    (tmp_path / "photos/again").symlink_to("in")
    assert paths(tmp_path / "photos") == ["a.jpg", "in/c.jpg"]
    assert paths(tmp_path / "photos", follow_symlinks=True) == [
        "a.jpg",
        "again/c.jpg",
        "in/c.jpg",
        "link/b.jpg",
    ]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg")
    (tmp_path / "link").symlink_to("photos")
    assert paths(tmp_path / "link") == ["a.jpg"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    (tmp_path / "sub/up").symlink_to("..")
    (tmp_path / "self").symlink_to(".")
    (tmp_path / "round").symlink_to("round")
    assert paths(tmp_path, follow_symlinks=True) == ["a.jpg", "sub/b.jpg"]


def test_folders_that_all_link_to_each_other_end(tmp_path: Path) -> None:
    names = [f"f{number:02}" for number in range(12)]
    for name in names:
        touch(tmp_path, f"{name}/{name}.jpg")
        for other in names:
            (tmp_path / name / f"to_{other}").symlink_to(f"../{other}")
    found = paths(tmp_path, follow_symlinks=True)
    assert {f"{name}/{name}.jpg" for name in names} <= set(found)
    assert len(found) == len(set(found)) <= 12 + 16 * 12 * 12


def test_a_missing_root_and_a_file_as_root(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(VitsearchError, match="there is no folder"):
        list(walk(tmp_path / "no"))
    with pytest.raises(VitsearchError, match=r"is a file, not a folder"):
        list(walk(tmp_path / "a.jpg"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach, in the eyes of a user who is not root: root may read
    everything.
    """
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    user = os.geteuid()
    touch(folder, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    (folder / "a").chmod(0)
    (folder / "b").chmod(0o744)  # its names can be listed, its files cannot be looked at
    try:
        if user == 0:
            os.seteuid(65534)
        yield folder
    finally:
        os.seteuid(user)
        (folder / "a").chmod(0o755)
        (folder / "b").chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes user, which needs root"
)
def test_what_cannot_be_read_is_told_and_is_not_taken_for_empty(open_folder: Path) -> None:
    told: list[tuple[str, str]] = []
    found = [
        each.path
        for each in walk(
            open_folder, on_unreadable=lambda path, reason: told.append((path, reason))
        )
    ]
    assert (found, told) == (
        ["c/3.jpg"],
        [("a", "Permission denied"), ("b/2.jpg", "Permission denied")],
    )
    with pytest.raises(VitsearchError, match="cannot read 'a': Permission denied"):
        paths(open_folder)
    with pytest.raises(VitsearchError, match=r"cannot read the folder .*: Permission denied"):
        paths(open_folder / "a")


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    """Also as root, who may read every folder: a real folder that cannot be listed."""
    touch(tmp_path, "a.jpg")
    cache_dir, name = os.getcwd(), "d" * 250
    try:
        os.chdir(tmp_path)
        for _ in range(20):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.chdir(cache_dir)
    told: list[tuple[str, str]] = []
    assert [
        each.path
        for each in walk(tmp_path, on_unreadable=lambda path, reason: told.append((path, reason)))
    ] == ["a.jpg"]
    assert [reason for _, reason in told] == ["File name too long"]
    assert set(told[0][0].split("/")) == {name}


NAMES = st.sampled_from(
    [
        "a",
        "b.jpg",
        "c.PNG",
        "d.txt",
        ".e.jpg",
        ".f",
        "@eaDir",
        "node_modules",
        "g h.tif",
        "é.webp",
        "\udcff.gif",
        "jpg",
    ]
)
TREES = st.recursive(
    st.none(), lambda inner: st.dictionaries(NAMES, inner, max_size=5), max_leaves=25
)


def build(folder: Path, tree: dict[str, object]) -> None:
    folder.mkdir()
    for name, inner in tree.items():
        if isinstance(inner, dict):
            build(folder / name, inner)
        else:
            (folder / name).write_bytes(b"")


def naive(folder: Path, include_hidden: bool) -> list[str]:
    """The photos of a folder, the slow and obvious way."""
    answer = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        hidden = any(
            part.startswith(".") or part in ("@eaDir", "node_modules") for part in relative.parts
        )
        if (
            path.is_file()
            and path.suffix[1:].lower() in SUFFIXES
            and (include_hidden or not hidden)
        ):
            answer.append(relative.as_posix())
    return sorted(answer, key=os.fsencode)


@settings(max_examples=60, deadline=None)
@given(tree=st.dictionaries(NAMES, TREES, max_size=6), include_hidden=st.booleans())
@pytest.mark.slow
def test_walk_finds_what_a_naive_walk_finds(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object], include_hidden: bool
) -> None:
    root = tmp_path_factory.mktemp("tree") / "root"
    build(root, tree)
    assert paths(root, include_hidden=include_hidden) == naive(root, include_hidden)


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_exclude_names_composed_or_decomposed(tmp_path: Path, typed: str) -> None:
    for form in ("NFC", "NFD"):
        paint(tmp_path / unicodedata.normalize(form, f"Müller {form}") / "a.png", "red")
    paint(tmp_path / "Muller" / "a.png", "red")
    glob = unicodedata.normalize(typed, "Müller*")
    assert paths(tmp_path, exclude=(glob,)) == ["Muller/a.png"]

"""What is opened as a photo of a collection, and what has taken its place is not."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.photos import paint
from vitsearch.errors import PhotoError
from vitsearch.photos.decode import PhotoMissing, fingerprint_of, open_photo, read_open
from vitsearch.types import Photo, PhotoInfo

OUTSIDE = "it lies outside the photo folder"
CHANGED = "it has changed since it was indexed: run `vitsearch index`"
SECRET = b"root:*:19000:0:99999:7:::\n"


def facts(root: Path, path: str) -> Photo:
    """A photo as indexing stores it."""
    file = root / path
    status, data = file.stat(), file.read_bytes()
    info = PhotoInfo(24, 16)
    return Photo(1, path, status.st_size, status.st_mtime_ns, fingerprint_of(data), info)


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    paint(tmp_path / "outside.png", "blue")
    (tmp_path / "shadow").write_bytes(SECRET)
    root = tmp_path / "photos"
    paint(root / "sub" / "red.png", "red")
    return facts(root, "sub/red.png")


@pytest.fixture
def root(photo: Photo, tmp_path: Path) -> Path:
    return tmp_path / "photos"


def read_indexed(root: Path, path: str, indexed: Photo | None = None) -> bytes:
    with open_photo(root, path, indexed) as file:
        return read_open(file)


def refused(root: Path, path: str, indexed: Photo | None) -> str:
    with pytest.raises(PhotoError) as raised:
        read_indexed(root, path, indexed)
    return str(raised.value)


def test_a_photo_is_read_as_it_was_indexed(root: Path, photo: Photo) -> None:
    data = (root / photo.path).read_bytes()
    with open_photo(root, photo.path, photo) as file:
        assert (file.tell(), file.readall()) == (0, data)
    assert read_indexed(root, photo.path) == data


@pytest.mark.parametrize(
    "path", ["../outside.png", "/etc/hostname", "sub/../../outside.png", "a\0b"]
)
def test_a_path_leads_nowhere_else(root: Path, photo: Photo, path: str) -> None:
    assert refused(root, path, None) == OUTSIDE
    assert refused(root, path, replace(photo, path=path)) == OUTSIDE


@pytest.mark.parametrize("target", ["shadow", "outside.png", "/etc/hostname", "/dev/zero"])
def test_a_link_that_has_taken_its_place(root: Path, photo: Photo, target: str) -> None:
    file = root / photo.path
    file.unlink()
    file.symlink_to(os.path.join(root.parent, target))
    assert refused(root, photo.path, photo) in (OUTSIDE, "not a regular file")
    assert refused(root, photo.path, None) in (OUTSIDE, "not a regular file")


def test_a_link_with_the_size_and_time_that_were_indexed(root: Path, photo: Photo) -> None:
    other = root.parent / "other.png"
    other.write_bytes((root / photo.path).read_bytes()[:-1] + b"x")
    os.utime(other, ns=(photo.mtime_ns, photo.mtime_ns))
    (root / photo.path).unlink()
    (root / photo.path).symlink_to(other)
    assert refused(root, photo.path, photo) == OUTSIDE


def test_a_folder_that_has_become_a_link(root: Path, photo: Photo) -> None:
    (root / "sub").rename(root.parent / "away")
    (root / "sub").symlink_to(root.parent / "away")
    assert read_indexed(root, photo.path, photo)  # the very content that was indexed
    paint(root.parent / "away" / "red.png", "green")
    assert refused(root, photo.path, photo) == OUTSIDE


def test_links_inside_are_followed_and_links_out_only_to_what_was_indexed(
    root: Path, photo: Photo
) -> None:
    (root / "inside.png").symlink_to("sub/red.png")
    (root / "out.png").symlink_to(root.parent / "outside.png")
    for path, without in {"inside.png": True, "out.png": False}.items():
        indexed = facts(root, path)
        assert read_indexed(root, path, indexed) == (root / path).read_bytes()
        if without:
            assert read_indexed(root, path) == (root / path).read_bytes()
        else:
            assert refused(root, path, None) == OUTSIDE


def test_a_root_that_is_a_link(root: Path, photo: Photo) -> None:
    (root.parent / "album").symlink_to(root)
    assert read_indexed(root.parent / "album", photo.path, photo)


def test_a_file_that_was_only_touched_is_the_same(root: Path, photo: Photo) -> None:
    os.utime(root / photo.path, ns=(0, 0))
    assert read_indexed(root, photo.path, photo)


def test_a_file_that_has_changed(root: Path, photo: Photo) -> None:
    data = (root / photo.path).read_bytes()
    (root / photo.path).write_bytes(data[:-1] + b"x")  # of the same size
    os.utime(root / photo.path, ns=(0, 0))
    assert refused(root, photo.path, photo) == CHANGED
    paint(root / photo.path, "green", "blue")
    assert refused(root, photo.path, photo) == CHANGED


def test_what_is_no_picture(root: Path) -> None:
    (root / "page.png").write_bytes(b"<script>alert(1)</script>")
    said = "not a photo: its content is of no picture format that is read here"
    assert refused(root, "page.png", facts(root, "page.png")) == said
    assert refused(root, "page.png", None) == said


def test_what_is_no_file(root: Path, photo: Photo) -> None:
    (root / photo.path).unlink()
    with pytest.raises(PhotoMissing, match="cannot be opened: No such file or directory"):
        open_photo(root, photo.path, photo)
    os.mkfifo(root / photo.path)  # must not block
    assert refused(root, photo.path, photo) == "not a regular file"
    (root / photo.path).unlink()
    (root / photo.path).mkdir()
    assert refused(root, photo.path, photo) == "cannot be opened: Is a directory"
    (root / "loop.png").symlink_to("loop.png")
    assert refused(root, "loop.png", photo) == "cannot be opened: Too many levels of symbolic links"

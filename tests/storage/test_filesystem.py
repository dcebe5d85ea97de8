"""What a file system is, and what is said where a disk refuses."""

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from vitsearch.errors import CollectionError
from vitsearch.storage.filesystem import (
    can_flush,
    disk_errors,
    has_locks,
    is_local,
    linux_kind,
    mount_flags,
    write_problem,
)
from vitsearch.storage.store import PhotoStore

PHOTOS = Path("photos")
MOUNTINFO = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:27 / /proc rw shared:5 - proc proc rw
41 22 0:50 / /mnt/my\040photos rw shared:9 master:1 - nfs4 nas:/photos rw,vers=4.2
42 41 8:1 / /mnt/my\040photos/card rw - vfat /dev/sdb1 rw
43 22 0:51 / /home/ada/drive rw - fuse.rclone drive: rw
44 22 0:52 / /mnt/c rw - 9p C:\134 rw
45 22 0:53 / /mnt/café rw - ext4 /dev/sdc1 rw
46 22 0:54 / /mnt/café rw - cifs //nas/share rw
broken line
"""
MOUNT = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//ada@nas._smb._tcp.local/My Photos on /Volumes/My Photos (smbfs, nodev, nosuid, mounted by ada)
/dev/disk4s1 on /Volumes/CARD (msdos, local, nodev, nosuid, noowners)
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/ada/photos", "ext4"),
        ("/mnt/my photos", "nfs4"),
        ("/mnt/my photos/2019/.vitsearch", "nfs4"),
        ("/mnt/my photos and more", "ext4"),
        ("/mnt/my photos/card/x", "vfat"),
        ("/home/ada/drive/x", "fuse.rclone"),
        ("/mnt/c/Users", "9p"),
        ("/mnt/café/x", "cifs"),  # mounted over the other
    ],
)
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert linux_kind(MOUNTINFO, path) == kind


def test_what_no_mount_contains_has_no_kind() -> None:
    assert linux_kind("", "/x") == ""


def test_mount_says_which_file_systems_are_local() -> None:
    flags = {
        path: mount_flags(MOUNT, path)[0:3:2]
        for path in ("/Users/ada", "/Volumes/My Photos/2019", "/Volumes/CARD")
    }
    assert flags == {
        "/Users/ada": ["apfs", "local"],
        "/Volumes/My Photos/2019": ["smbfs", "nosuid"],
        "/Volumes/CARD": ["msdos", "nodev"],
    }
    assert "local" in mount_flags(MOUNT, "/Volumes/CARD")
    assert "local" not in mount_flags(MOUNT, "/Volumes/My Photos")
    assert mount_flags("", "/x") == ["local"]


def test_the_folder_of_this_test_is_asked(tmp_path: Path) -> None:
    assert is_local(tmp_path) in (True, False)
    assert (has_locks(tmp_path), can_flush(tmp_path)) == (True, True)  # nothing is there to ask
    (tmp_path / "lock").touch()
    assert (has_locks(tmp_path), can_flush(tmp_path)) == (True, True)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "check its permissions"),
        (errno.EROFS, "mounted read-only: .* --collection DIR"),
        (errno.EIO, "check the disk, its cable or its network"),
        (errno.ENOLCK, "its file system does not have what .* --collection DIR"),
    ],
)
def test_disk_errors(number: int, advice: str) -> None:
    with (
        pytest.raises(
            CollectionError,
            match=f"cannot write to photos .*{advice}.*what was stored before is kept",
        ) as error,
        disk_errors(PHOTOS),
    ):
        raise OSError(number, os.strerror(number))
    assert isinstance(error.value.__cause__, OSError)
    assert "\n" not in str(error.value)


def test_another_error_passes_through() -> None:
    with pytest.raises(KeyError), disk_errors(PHOTOS):
        raise KeyError(1)


def test_a_disk_that_can_be_written_has_no_problem_and_keeps_nothing(tmp_path: Path) -> None:
    assert write_problem(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    problem = write_problem(tmp_path / "none")
    assert problem is not None
    assert problem.errno == errno.ENOENT


def test_an_unfinished_change_is_taken_back_by_a_reader(tmp_path: Path) -> None:
    """A run that died in a commit, where there is a rollback journal, leaves it to the next."""
    file = tmp_path / "photos.db"
    with closing(PhotoStore(file)) as store, store.writing():
        store.set_meta("name", "before")
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE facts SET value = 'after' WHERE name = 'name'")
        db.executemany(
            "INSERT INTO facts (name, value) VALUES (?, ?)",
            [(f"n{n}", bytes(4000)) for n in range(50)],
        )
        whole = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
        db.execute("ROLLBACK")
    for name, content in whole.items():  # as the killed process left them
        (tmp_path / name).write_bytes(content)
    assert (tmp_path / "photos.db-journal").stat().st_size
    with closing(PhotoStore(file, read_only=True)) as store:
        assert (store.get_meta("name"), store.check()) == ("before", [])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos.db"]

"""The hash of weight files, and the file that keeps it."""

import json
import os
from pathlib import Path

import pytest

from vitsearch.encoders.checkpoints import weights_hash
from vitsearch.paths import cache_dir


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write(file: Path, content: bytes, mtime_ns: int = 10**18) -> Path:
    file.write_bytes(content)
    os.utime(file, ns=(mtime_ns, mtime_ns))
    return file


def test_content_and_names_decide_and_order_and_folder_do_not(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a", b"first"), write(tmp_path / "b", b"second")
    (tmp_path / "moved").mkdir()
    copy = write(tmp_path / "moved" / "a", b"first")
    assert weights_hash([one, two]) == weights_hash([two, copy])
    assert weights_hash([one]) != weights_hash([two])
    assert weights_hash([write(tmp_path / "c", b"first")]) != weights_hash([one])
    assert len(weights_hash([one])) == 32


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    file = write(tmp_path / "weights", b"one")
    before = weights_hash([file])
    write(file, b"two", mtime_ns=2 * 10**18)
    assert weights_hash([file]) != before


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, own_home: Path) -> None:
    file = write(tmp_path / "weights", b"one")
    before = weights_hash([file])
    write(file, b"two")  # same size and time: as the file system tells it, the same file
    assert weights_hash([file]) == before
    (own_home / "weights.json").unlink()
    assert weights_hash([file]) != before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"/x": 3}', "null"])
def test_a_damaged_cache_is_replaced(tmp_path: Path, own_home: Path, content: str) -> None:
    own_home.mkdir()
    (own_home / "weights.json").write_text(content)
    file = write(tmp_path / "weights", b"one")
    weights_hash([file])
    assert list(json.loads((own_home / "weights.json").read_text())) == [str(file.resolve())]
    assert os.listdir(own_home) == ["weights.json"]


def test_a_home_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "weights", b"one")
    expected = weights_hash([file])
    monkeypatch.setenv("VITSEARCH_HOME", str(write(tmp_path / "a_file", b"")))
    assert weights_hash([file]) == expected


def test_home_is_in_the_users_cache_folder_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VITSEARCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_dir() == tmp_path / "vitsearch"

"""Records on disk: what a damaged, newer or missing one says, and files that appear whole."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.records import (
    atomic_file,
    atomic_folder,
    atomic_write,
    from_dict,
    parse_record,
    read_record,
    replace_folder,
    to_json,
)


@dataclass(frozen=True)
class Inner:
    size: int
    name: str = "none"


@dataclass(frozen=True)
class Outer:
    count: int
    share: float
    ready: bool
    kind: Literal["a", "b"]
    rows: list[list[float]]
    inner: dict[str, Inner]
    note: str | None = None
    last: Inner | None = None
    pair: tuple[int, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    format: int = 2

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError("a number below 1")


RECORD = Outer(3, 0.5, True, "a", [[1.0, 2]], {"x": Inner(4, "é")}, None, Inner(5), (1, 2))


def read(file: Path) -> Outer:
    return read_record(
        Outer, file, error=CollectionError, repair="make it again", missing=CollectionNotFound("no")
    )


def test_a_record_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    atomic_write(file, to_json(RECORD, indent=2))
    assert read(file) == RECORD
    assert file.read_bytes().isascii()
    assert os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"count": "3"}, "'count' is of the wrong type"),
        ({"count": True}, "'count' is of the wrong type"),
        ({"count": 3.0}, "'count' is of the wrong type"),
        ({"count": 0}, "a number below 1"),
        ({"share": "x"}, "'share' is of the wrong type"),
        ({"share": float("nan")}, "'share' is of the wrong type"),
        ({"ready": 1}, "'ready' is of the wrong type"),
        ({"kind": "c"}, "'kind' is of the wrong type"),
        ({"rows": [[1.0], 2]}, "'rows' is of the wrong type"),
        ({"rows": [["1"]]}, "'rows' is of the wrong type"),
        ({"inner": {"x": {"size": "4"}}}, "'size' is of the wrong type"),
        ({"inner": {"x": {}}}, "no 'size'"),
        ({"inner": [1]}, "'inner' is of the wrong type"),
        ({"note": 7}, "'note' is of the wrong type"),
        ({"last": {}}, "'last' is of the wrong type"),
        ({"pair": [1, "2"]}, "'pair' is of the wrong type"),
        ({"format": "2"}, "'format' is of the wrong type"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(json.loads(to_json(RECORD)) | change))
    with pytest.raises(CollectionError) as caught:
        read(file)
    assert str(caught.value) == f"{file} is damaged ({problem}): make it again"


@pytest.mark.parametrize("name", ["count", "share", "ready", "kind", "rows", "inner", "format"])
def test_a_missing_field_is_named(tmp_path: Path, name: str) -> None:
    stored = json.loads(to_json(RECORD))
    del stored[name]
    file = tmp_path / "record.json"
    file.write_text(json.dumps(stored))
    with pytest.raises(CollectionError) as caught:
        read(file)
    assert str(caught.value) == f"{file} is damaged (no '{name}'): make it again"


def test_what_has_a_default_may_be_absent_and_unknown_keys_are_passed_over() -> None:
    stored = json.loads(to_json(Outer(1, 1, False, "b", [], {}))) | {"new": 1}
    for name in ("note", "last", "pair", "extra"):
        del stored[name]
    assert from_dict(Outer, stored) == Outer(1, 1, False, "b", [], {})


def test_a_newer_format_says_to_upgrade_whatever_else_it_holds() -> None:
    with pytest.raises(CollectionError) as caught:
        parse_record(Outer, '{"format": 3}', "here", error=CollectionError, repair="no")
    assert str(caught.value) == (
        "here has format 3, newer than this vitsearch reads (2): upgrade vitsearch"
    )


def test_a_file_that_is_missing_or_may_not_be_read(tmp_path: Path) -> None:
    for file in (tmp_path / "none.json", tmp_path / "none" / "a.json"):
        with pytest.raises(CollectionNotFound, match=r"^no$"):
            read(file)
        with pytest.raises(FileNotFoundError):
            read_record(Outer, file, error=CollectionError, repair="")
    with pytest.raises(CollectionError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path} cannot be read (Is a directory): check its permissions"


@given(st.binary(max_size=60) | st.just(b"[" * 100_000))
def test_any_bytes_give_one_line(data: bytes) -> None:
    with pytest.raises(CollectionError) as caught:
        parse_record(Outer, data, "here", error=CollectionError, repair="make it again")
    assert str(caught.value).startswith("here is damaged (")
    assert "\n" not in str(caught.value)


# -- files and folders -----------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, sync: bool) -> None:
    file = tmp_path / "a.bin"
    atomic_write(file, b"old", sync=sync)

    def stopped() -> None:
        with atomic_file(file, sync=sync) as aside:
            aside.write_bytes(b"half")
            assert file.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert file.read_bytes() == b"old"
    atomic_write(file, "new ü", sync=sync)
    assert file.read_bytes() == "new ü".encode()
    assert os.listdir(tmp_path) == ["a.bin"]
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        atomic_write(tmp_path / "none" / "a", b"")
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        atomic_write(tmp_path / "a", b"")
    assert os.listdir(tmp_path) == ["a"]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with atomic_folder(folder, prefix=".out.") as aside:
        (aside / "a").write_bytes(b"1")

    def stopped() -> None:
        with atomic_folder(folder, prefix=".out.") as aside:
            (aside / "b").write_bytes(b"2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with atomic_folder(folder, prefix=".out.", unless=lambda: True) as aside:
        (aside / "c").write_bytes(b"3")
    assert os.listdir(folder) == ["a"]
    with atomic_folder(folder, prefix=".out.") as aside:
        (aside / "d").write_bytes(b"4")
    assert os.listdir(folder) == ["d"]
    assert os.listdir(folder.parent) == ["out"]


def test_a_folder_that_cannot_come_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "none", tmp_path / "out", tmp_path / "old")
    assert os.listdir(tmp_path) == ["out"]

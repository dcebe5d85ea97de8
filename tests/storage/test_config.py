import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError, CollectionNotFound, EncoderMismatch
from vitsearch.storage import (
    FORMAT,
    CollectionConfig,
    check_encoder,
    collection_folder,
    photo_root,
    read_collection_config,
    write_collection_config,
)

PHOTOS = Path("photos")
SETTINGS = CollectionConfig(
    "colour",
    ColourEncoder.fingerprint,
    "float32",
    27,
    {"name": "flat"},
    "2024-05-06T07:08:09+00:00",
    "/photos/é\n",
)


def one_line(error: pytest.ExceptionInfo[CollectionError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_photo_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert photo_root(str(tmp_path)) == tmp_path
    assert photo_root(f"~/{tmp_path.name}") == tmp_path
    (tmp_path / "link").symlink_to(tmp_path)
    assert photo_root(tmp_path / "link") == tmp_path / "link"


def test_a_place_without_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(
        CollectionError, match=r"a\.jpg is a file, not a folder of photos: give the folder"
    ):
        photo_root(tmp_path / "a.jpg")
    for name in ("none", "a.jpg/none", "loop", "nul\0", "long" * 999):
        with pytest.raises(CollectionError, match="no such folder: ") as error:
            photo_root(tmp_path / name)
        one_line(error)


@pytest.mark.parametrize(
    ("name", "words"), [("", "folder is empty"), ("~no-such-user-1/x", "no home folder for")]
)
def test_a_name_that_is_no_folder_is_refused(name: str, words: str) -> None:
    for place in (photo_root, lambda name: collection_folder(PHOTOS, name)):
        with pytest.raises(CollectionError, match=words):
            place(name)


def test_collection_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert collection_folder(PHOTOS, None) == PHOTOS / ".vitsearch"
    assert collection_folder(PHOTOS, "elsewhere") == Path("elsewhere")
    assert collection_folder(PHOTOS, Path("~/c")) == Path("/home/ada/c")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_collection_config(tmp_path, SETTINGS)
    assert read_collection_config(tmp_path, PHOTOS) == SETTINGS
    changed = replace(SETTINGS, recipe={"name": "hnsw", "search": {"efSearch": 64}})
    write_collection_config(tmp_path, changed)
    assert read_collection_config(tmp_path, PHOTOS) == changed
    assert [file.name for file in tmp_path.iterdir()] == ["collection.json"]


def test_the_file_is_plain_ascii_json(tmp_path: Path) -> None:
    write_collection_config(tmp_path, SETTINGS)
    assert json.loads((tmp_path / "collection.json").read_text(encoding="ascii")) == {
        **asdict(SETTINGS),
        "format": 1,
    }


def test_what_a_later_version_adds_to_the_format_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "collection.json").write_text(json.dumps({**asdict(SETTINGS), "more": 1}))
    assert read_collection_config(tmp_path, PHOTOS) == SETTINGS


def test_no_collection(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(
            CollectionNotFound,
            match=r"no collection in .*: run `vitsearch index photos --collection .*` first",
        ):
            read_collection_config(folder, PHOTOS)


def test_a_newer_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "collection.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(
        CollectionError, match=f"has format {FORMAT + 1}, newer than this vitsearch reads"
    ):
        read_collection_config(tmp_path, PHOTOS)


@pytest.mark.parametrize("missing", sorted(asdict(SETTINGS)))
def test_a_missing_entry_is_damage(tmp_path: Path, missing: str) -> None:
    (tmp_path / "collection.json").write_text(
        json.dumps({key: value for key, value in asdict(SETTINGS).items() if key != missing})
    )
    with pytest.raises(
        CollectionError, match=rf"is damaged \(no '{missing}'\): restore it from a backup"
    ):
        read_collection_config(tmp_path, PHOTOS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"format": 1',
        b'"text"',
        b"\0" * 100,
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "collection.json").write_bytes(content)
    with pytest.raises(
        CollectionError,
        match=r"collection\.json is damaged .*: restore it from a backup, or delete",
    ) as error:
        read_collection_config(tmp_path, PHOTOS)
    one_line(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [("dim", "27"), ("dim", True), ("encoder", None), ("encoder_fingerprint", 7), ("recipe", [])],
)
def test_an_entry_of_another_type_is_damage(tmp_path: Path, name: str, value: object) -> None:
    (tmp_path / "collection.json").write_text(json.dumps({**asdict(SETTINGS), name: value}))
    with pytest.raises(CollectionError, match=rf"is damaged \('{name}' is of the wrong type\)"):
        read_collection_config(tmp_path, PHOTOS)


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "collection.json").mkdir()
    with pytest.raises(CollectionError, match=r"collection\.json cannot be read") as error:
        read_collection_config(tmp_path, PHOTOS)
    one_line(error)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 400), noise=st.binary(max_size=4))
def test_a_cut_or_altered_file_reads_or_says_so(tmp_path: Path, cut: int, noise: bytes) -> None:
    write_collection_config(tmp_path, SETTINGS)
    whole = (tmp_path / "collection.json").read_bytes()
    (tmp_path / "collection.json").write_bytes(whole[:cut] + noise)
    read, told = SETTINGS, ""
    try:
        read = read_collection_config(tmp_path, PHOTOS)
    except CollectionError as error:
        told = str(error)
    assert read == SETTINGS
    assert "\n" not in told


def test_check_encoder() -> None:
    check_encoder(PHOTOS, SETTINGS, ColourEncoder())
    with pytest.raises(
        EncoderMismatch, match=r"photos was made with colour .*00000000.*, not with this colour"
    ) as error:
        check_encoder(PHOTOS, replace(SETTINGS, encoder_fingerprint="0" * 32), ColourEncoder())
    assert "\n" not in str(error.value)

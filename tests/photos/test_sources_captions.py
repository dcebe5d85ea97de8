"""Captions that data sets bring: they become the description of a photo that has none."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.sources import pack, picture
from vitsearch.photos.sources import open_source
from vitsearch.photos.sources.source import SampleTexts, key_of


def captions(name: Path) -> dict[str, str | None]:
    return {entry.path: entry.caption for entry in open_source(str(name)).entries()}


def test_members_of_a_sample_in_a_tar(tmp_path: Path) -> None:
    red = picture(tmp_path, "red")
    pack(
        tmp_path / "0.tar",
        {
            "000/a.jpg": red,
            "000/a.txt": b" A dog\n on a beach ",
            "000/a.json": json.dumps({"caption": "not this"}).encode(),
            "000/b.jpg": red,
            "000/b.json": json.dumps({"caption": "A cat", "width": 3}).encode(),
            "000/c.seg.png": red,
            "000/c.txt": b"\xff\xfe",
            "d.jpg": red,
            "d.json": b"{",
            "a.txt": b"of another folder",
            "e.jpg": red,
            "e.txt": b"",
            "Shot at 10.15.30.jpg": red,
            "Shot at 10.15.30.txt": b"a dog",
            "Shot at 10.20.00.jpg": red,
            "Shot at 10.20.00.txt": b"a cat",
            "Shot at 10.20.05.jpg": red,
        },
    )
    assert captions(tmp_path / "0.tar") == {
        "0.tar/000/a.jpg": "A dog on a beach",
        "0.tar/000/b.jpg": "A cat",
        "0.tar/000/c.seg.png": "\N{REPLACEMENT CHARACTER}" * 2,
        "0.tar/Shot at 10.15.30.jpg": "a dog",
        "0.tar/Shot at 10.20.00.jpg": "a cat",
        "0.tar/Shot at 10.20.05.jpg": None,
        "0.tar/d.jpg": None,
        "0.tar/e.jpg": None,
    }


@pytest.mark.parametrize("column", ["caption", "text"])
def test_a_column_of_parquet(tmp_path: Path, column: str) -> None:
    photo = {"bytes": picture(tmp_path, "red"), "path": "red.png"}
    rows = {"image": [photo, photo, photo], column: ["A dog", None, " "]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "0.parquet")
    assert list(captions(tmp_path / "0.parquet").values()) == ["A dog", None, None]


@given(st.lists(st.tuples(st.sampled_from([".txt", ".json"]), st.binary(max_size=40)), max_size=3))
def test_any_bytes_are_a_caption_or_none(members: list[tuple[str, bytes]]) -> None:
    texts = SampleTexts()
    for suffix, data in members:
        texts.add(f"a{suffix}", data)
    [caption] = texts.captions(["a.jpg"])
    assert caption is None or (caption == " ".join(caption.split()) and caption.isprintable())


def test_keys() -> None:
    names = ("a/b.c/d.seg.png", "d.jpg", "d", ".d.jpg")
    assert [key_of(name) for name in names] == ["a/b.c/d", "d", "d", ""]

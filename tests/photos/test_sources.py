"""Sources of photos by name: folders, Parquet files and tars on this machine, and in
fsspec's memory.
"""

import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import environment
from helpers.paths import ROOT
from helpers.photos import COLOURS, paint
from helpers.sources import pack, picture, read
from vitsearch.errors import CollectionError, PhotoError
from vitsearch.paths import raw_path
from vitsearch.photos import read_bytes_and_fingerprint
from vitsearch.photos.decode import MAX_BYTES, decode, fingerprint_of
from vitsearch.photos.sources import Entry, open_source
from vitsearch.photos.sources.source import expanded, identity

MISSING = "cannot be opened: No such file or directory"


def table(file: Path, columns: dict[str, Any], row_group_size: int = 3) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file, row_group_size=row_group_size)
    return file


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, bytes]:
    return {colour: picture(tmp_path, colour) for colour in COLOURS}


# -- folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["{}", "{}/", "file://{}", "{}/../photos"])
def test_a_folder_gives_what_indexing_would_find(photos: Path, spelling: str) -> None:
    (photos / ".hidden").mkdir()
    shutil.copy(photos / "red.png", photos / ".hidden" / "red.png")
    (photos / "empty.jpg").touch()
    (photos / "note.txt").write_text("no photo")
    os.mkfifo(photos / "pipe.jpg")
    source = open_source(spelling.format(photos))
    assert source.name == str(photos)
    assert read(spelling.format(photos)) == {
        "empty.jpg": "the file is empty (0 bytes)",
        "green.png": (photos / "green.png").read_bytes(),
        "pipe.jpg": "a pipe, not a file",
        "red.png": (photos / "red.png").read_bytes(),
        "sub/blue.png": (photos / "sub" / "blue.png").read_bytes(),
        "yellow.png": (photos / "yellow.png").read_bytes(),
    }
    facts = os.stat(photos / "red.png")
    assert [one for one in source.entries() if one.path == "red.png"] == [
        Entry("red.png", facts.st_size, facts.st_mtime_ns)
    ]


def test_a_photo_that_went_away_is_a_reason_and_a_name_that_is_no_utf8_survives(
    photos: Path,
) -> None:
    odd = os.fsdecode(b"\xff.png")
    shutil.copy(photos / "red.png", photos / odd)
    source = open_source(photos)
    entries = list(source.entries())
    (photos / "green.png").unlink()
    given = dict(zip([entry.path for entry in entries], source.read(entries), strict=True))
    assert str(given["green.png"]) == MISSING
    assert given[odd] == given["red.png"] == (photos / "red.png").read_bytes()


def test_the_fingerprint_is_that_of_indexing(photos: Path) -> None:
    data, fingerprint = read_bytes_and_fingerprint(photos / "red.png")
    assert fingerprint == fingerprint_of(data)
    assert (
        fingerprint.hex()
        == subprocess.run(
            ["b2sum", "-l", "128", photos / "red.png"], capture_output=True, text=True
        ).stdout[:32]
    )


NAMES = st.sampled_from(
    [
        "a",
        "a.jpg",
        "B.PNG",
        "a b.jpg",
        "é.jpeg",
        "[x].png",
        "x::y.jpg",
        "@eaDir",
        ".b.jpg",
        "c.txt",
        "d.heic",
        "B.dng",
        "a.CR2",
        "%41.jpg",
        "#?.gif",
    ]
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12))
def test_a_folder_at_a_url_gives_the_same_as_one_on_disk(paths: set[str]) -> None:
    store = fsspec.filesystem("memory", use_listings_cache=False)
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "keep").mkdir()
        store.pipe_file("/photos/keep/note.txt", b"-")
        kept = sorted(
            path for path in paths if not any(other.startswith(path + "/") for other in paths)
        )
        for path in kept:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(path.encode())
            store.pipe_file(f"/photos/{path}", path.encode())
        local = open_source(folder)
        remote = open_source("memory://photos")
        entries = [(one.path, one.size) for one in local.entries()]
        assert (
            [(one.path, one.size) for one in remote.entries()]
            == entries
            == sorted(entries, key=lambda one: raw_path(one[0]))
        )
        assert list(remote.read(list(remote.entries()))) == [path.encode() for path, _ in entries]
    assert all(one.mtime_ns > 1_600_000_000_000_000_000 for one in remote.entries())


# -- tars ------------------------------------------------------------------------------------------


def test_a_tar_gives_its_photos_by_name(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    members = {
        "./sub/red.png": pictures["red"],
        "sub/red.txt": b"a caption",
        "blue.PNG": pictures["blue"],
        "._blue.png": b"resource fork",
        "@eaDir/blue.png": b"thumbnail",
        "green.jpg": b"",
        "../../out.png": pictures["yellow"],
    }
    file = pack(tmp_path / "shards" / "a.tar", members)
    with tarfile.open(file, "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "blue.PNG"
        archive.addfile(link)
    assert read(file) == {
        "a.tar/../../out.png": "its name leads out of the tar",
        "a.tar/blue.PNG": pictures["blue"],
        "a.tar/green.jpg": "the file is empty (0 bytes)",
        "a.tar/link.png": "a link or a device, not a file",
        "a.tar/sub/red.png": pictures["red"],
    }
    blue = next(one for one in open_source(file).entries() if one.path == "a.tar/blue.PNG")
    assert (blue.size, blue.mtime_ns, blue.container) == (
        len(pictures["blue"]),
        1_600_000_000 * 10**9,
        str(file),
    )
    assert file.read_bytes()[blue.position or 0 :][: blue.size] == pictures["blue"]


@pytest.mark.parametrize("name", ["*.tar", "{00..02}.tar", "{00,01,02}.tar", "0[0-2].tar", ""])
def test_many_tars_are_one_source(tmp_path: Path, pictures: dict[str, bytes], name: str) -> None:
    colours = ("red", "green", "blue")
    for number, colour in enumerate(colours):
        pack(
            tmp_path / "tars" / f"{number:02}.tar",
            {f"{colour}.png": pictures[colour], "same.png": pictures["yellow"]},
        )
    wanted = {}
    for number, colour in enumerate(colours):
        both = {
            f"{number:02}.tar/{colour}.png": pictures[colour],
            f"{number:02}.tar/same.png": pictures["yellow"],
        }
        wanted |= both
    found = read(tmp_path / "tars" / name, **({} if name else {"source_format": "tar"}))
    assert found == wanted
    assert list(found) == sorted(wanted, key=raw_path)


@pytest.mark.parametrize("left", [0.3, 0.6, 0.9])
def test_a_cut_tar_gives_what_is_whole_and_says_that_it_is_cut(tmp_path: Path, left: float) -> None:
    members = {f"{number}.png": bytes([number]) * 2000 for number in range(10)}
    file = pack(tmp_path / "a.tar", members)
    whole = file.read_bytes()
    kept = int(left * 10 * 2560)  # a header of 512 bytes and four blocks each
    file.write_bytes(whole[:kept])
    found = read(file)
    damage = {path: reason for path, reason in found.items() if isinstance(reason, str)}
    count = kept // 2560
    assert {path: data for path, data in found.items() if isinstance(data, bytes)} == {
        f"a.tar/{number}.png": members[f"{number}.png"] for number in range(count)
    }
    assert "a.tar" in damage or kept % 2560 == 0
    assert set(damage) <= {"a.tar", f"a.tar/{count}.png"}
    assert (
        damage.get(f"a.tar/{count}.png", "the tar ends before it does")
        == "the tar ends before it does"
    )


def test_a_tar_that_is_cut_after_it_was_listed_or_gone_is_a_reason_for_each(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.tar", {f"{number}.png": b"x" * 2000 for number in range(3)})
    source = open_source(file)
    entries = list(source.entries())
    file.write_bytes(file.read_bytes()[:3000])
    assert [str(one) for one in source.read(entries[1:])] == ["the tar ends before it does"] * 2
    file.unlink()
    assert [str(one) for one in source.read(entries)] == [MISSING] * 3
    os.mkfifo(file)
    assert [str(one) for one in source.read(entries[:1])] == ["cannot be read: not a regular file"]


def test_a_name_twice_in_a_tar_is_an_error_that_says_it(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.tar", [("a.png", b"1"), ("b.png", b"2"), ("./a.png", b"3")])
    with pytest.raises(CollectionError, match="'a.tar/a.png' twice"):
        list(open_source(file).entries())


def test_a_huge_member_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("huge.png")
    header.size = MAX_BYTES + 1
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"x" * 10240)
    found = read(tmp_path / "a.tar")
    assert (
        found["a.tar/huge.png"]
        == f"the file has {MAX_BYTES + 1:,} bytes, over the cap of {MAX_BYTES:,}"
    )


def test_a_member_of_less_than_no_bytes_does_not_list_for_ever(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.tar", {"a.png": picture(tmp_path, "red"), "b.png": b"x"})
    data = bytearray(file.read_bytes())
    size = struct.pack(">q", -1024)  # in base 256, as GNU tar writes large sizes
    data[124:136] = b"\xff" * 4 + size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    file.write_bytes(bytes(data))
    entries = list(islice(open_source(str(file)).entries(), 100))
    assert [entry.problem for entry in entries if entry.problem] == [
        "the tar is cut or damaged behind 0 members: a member of less than no bytes"
    ]
    assert len(entries) == 1


def test_what_is_no_tar_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    assert list(read(tmp_path / "a.tar")) == ["a.tar"]
    assert str(read(tmp_path / "a.tar")["a.tar"]).startswith("not a tar, or a compressed one")
    pack(tmp_path / "b.tar.gz", {"a.png": b"1"}, "w:gz")
    with pytest.raises(CollectionError, match="is compressed"):
        open_source(tmp_path / "b.tar.gz")
    with pytest.raises(CollectionError, match=r"there is no .*03\.tar"):
        list(open_source(tmp_path / "{03..04}.tar").entries())


# -- Parquet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["image", "bytes", "jpg"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_photos_in_a_column(
    tmp_path: Path, pictures: dict[str, bytes], column: str, size: int
) -> None:
    file = table(
        tmp_path / "a.parquet",
        {column: [*pictures.values(), None, b""], "label": list(range(6))},
        size,
    )
    wanted = {f"a.parquet/{row}": data for row, data in enumerate(pictures.values())}
    assert read(file) == wanted | {
        "a.parquet/4": "its row in the Parquet file has no photo",
        "a.parquet/5": "the file is empty (0 bytes)",
    }


@pytest.mark.parametrize("name", ["path", "key", "__key__"])
def test_photos_of_hugging_face_with_names(
    tmp_path: Path, pictures: dict[str, bytes], name: str
) -> None:
    images = [{"bytes": data, "path": "image.png"} for data in pictures.values()]
    names = ["b/./red.png", "../green.png", None, "yellow.png"]
    file = table(tmp_path / "a.parquet", {"image": images, name: names}, 2)
    red, green, blue, yellow = pictures.values()
    assert read(file) == {
        "b/red.png": red,
        "a.parquet/1": green,
        "a.parquet/2": blue,
        "yellow.png": yellow,
    }


def test_rows_are_in_order_of_files_and_rows(tmp_path: Path) -> None:
    for part in ("a", "b"):
        table(
            tmp_path / f"{part}.parquet", {"jpg": [f"{part}{row}".encode() for row in range(11)]}, 4
        )
    wanted = {
        f"{part}.parquet/{row:02}": f"{part}{row}".encode() for part in "ab" for row in range(11)
    }
    found = read(tmp_path / "*.parquet")
    assert found == wanted
    assert list(found) == list(wanted)
    assert read(tmp_path, source_format="parquet") == wanted


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 15), st.data())
def test_any_rows_are_read_in_the_order_in_which_they_are_asked(
    count: int, group: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = table(
            Path(name) / "a.parquet",
            {"jpg": [f"photo {row}".encode() for row in range(count)]},
            group,
        )
        source = open_source(file)
        entries = list(source.entries())
        asked = data.draw(st.lists(st.integers(0, count - 1), max_size=30))
        assert list(source.read([entries[row] for row in asked])) == [
            f"photo {row}".encode() for row in asked
        ]


def test_files_that_parquet_names(photos: Path, tmp_path: Path) -> None:
    outside = paint(tmp_path / "elsewhere" / "outside.png", "red")
    names = [
        "sub/blue.png",
        str(photos / "red.png"),
        "../elsewhere/outside.png",
        "none.png",
        f"file://{outside}",
        "http://a/b.png",
        None,
    ]
    file = table(photos / "list.parquet", {"path": names})
    assert read(file) == {
        "": "its row in the Parquet file has no path",
        str(outside): outside.read_bytes(),
        f"file://{outside}": (
            "file:// is not read from a list; download it, or give one of s3, gs, az"
        ),
        "http://a/b.png": "http:// is not read from a list; download it, or give one of s3, gs, az",
        "none.png": MISSING,
        "red.png": (photos / "red.png").read_bytes(),
        "sub/blue.png": (photos / "sub" / "blue.png").read_bytes(),
    }
    entries = list(open_source(file).entries())
    assert [one.path for one in entries] == sorted((one.path for one in entries), key=raw_path)
    facts = os.stat(photos / "red.png")
    assert Entry("red.png", facts.st_size, facts.st_mtime_ns) in entries


@pytest.mark.parametrize(
    "columns", [{"jpg": [b"1", b"2"], "key": ["a", "a"]}, {"path": ["a", "./a"]}]
)
def test_a_name_twice_in_parquet_is_an_error_that_says_it(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    with pytest.raises(CollectionError, match="'a' twice"):
        list(open_source(table(tmp_path / "a.parquet", columns)).entries())


def test_parquet_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"has no photos \(it has link, text\)"):
        open_source(table(tmp_path / "a.parquet", {"link": ["x"], "text": ["y"]}))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no Parquet PAR1")
    with pytest.raises(CollectionError, match=r"b\.parquet cannot be read as Parquet"):
        open_source(tmp_path / "b.parquet")
    os.mkfifo(tmp_path / "c.parquet")
    with pytest.raises(CollectionError, match=r"there is no .*c\.parquet"):
        open_source(tmp_path / "c.parquet")
    table(tmp_path / "d1.parquet", {"jpg": [b"1"]})
    table(tmp_path / "d2.parquet", {"image": [b"1"]})
    with pytest.raises(CollectionError, match=r"d2\.parquet has no column jpg"):
        list(open_source(tmp_path / "d?.parquet").entries())


def test_a_damaged_row_group_is_a_reason_for_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = [os.urandom(4000) for _ in range(6)]
    pq.write_table(
        pa.table({"jpg": rows}), file, row_group_size=2, compression="ZSTD", use_dictionary=False
    )
    source = open_source(file)
    entries = list(source.entries())
    chunk = pq.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    data[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = bytes(
        chunk.total_compressed_size
    )
    file.write_bytes(data)
    answers = list(source.read(entries))
    assert answers[:2] == rows[:2]
    assert [type(one) for one in answers[2:]] == [PhotoError] * 4
    assert list(source.read(entries[4:])) == rows[4:]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "the name of the photos is empty"),
        ("nowhere", "no folder or file is called .*nowhere: check the spelling"),
        ("*.jpg", "no file fits"),
        ("none*.tar", "no file is named"),
        ("note.txt", "is no folder, no .parquet and no .tar"),
        ("nonsense://bucket/photos", "cannot read nonsense://bucket/photos"),
        ("gs://bucket/photos", "gs:// needs a package: pip install gcsfs"),
        ("{1..9999999}.tar", "stands for 9,999,999 files"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    (tmp_path / "note.txt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CollectionError, match=reason) as caught:
        list(open_source(name).entries())
    assert "\n" not in str(caught.value)


def test_an_unknown_format_is_said() -> None:
    with pytest.raises(
        CollectionError,
        match="no source format is called 'zip': give one of auto, folder, parquet, tar",
    ):
        open_source(".", "zip")  # type: ignore[arg-type]


def test_braces_are_those_of_a_shell(tmp_path: Path) -> None:
    for text in (
        "{000..012}.tar",
        "a{1..3}b{x,y,}",
        "{3..1}",
        "{08..11}",
        "plain",
        "{one}",
        "{1..3",
        "p/{a,b}/{0..1}.tar",
    ):
        shell = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {text}"],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert list(expanded(text)) == shell.stdout.splitlines()


@given(
    st.lists(st.sampled_from(["..", ".", "", "a", "b.jpg", "s3:", "\0"]), max_size=6).map("/".join)
)
def test_a_name_inside_a_file_never_leads_out(name: str) -> None:
    path = identity(name)
    if path is None:
        assert (
            "\0" in name
            or name.startswith(("/", "s3://"))
            or os.path.normpath(name or ".").split("/")[0] in (".", "..")
        )
    else:
        assert os.path.normpath(path) == path
        assert not os.path.isabs(path)
        assert os.path.abspath(os.path.join("/photos", path)).startswith("/photos/")


@pytest.mark.slow
def test_local_folders_and_tars_load_nothing_heavy(tmp_path: Path, photos: Path) -> None:
    pack(tmp_path / "a.tar", {"a.png": (photos / "red.png").read_bytes()})
    code = (
        "import sys; from vitsearch.photos.sources import open_source\n"
        "for name in sys.argv[1:]: source = open_source(name); assert "
        "list(source.read(list(source.entries())))\n"
        "print(sorted({'fsspec', 'pyarrow', 's3fs', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, photos, tmp_path / "a.tar"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment(), cwd=ROOT
    )
    assert done.stdout == "[]\n"


def test_what_is_read_can_be_decoded(tmp_path: Path, pictures: dict[str, bytes]) -> None:
    file = pack(tmp_path / "a.tar", {f"{colour}.png": data for colour, data in pictures.items()})
    assert {decode(data)[1].width for data in read(file).values() if isinstance(data, bytes)} == {
        24
    }

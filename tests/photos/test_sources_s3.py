"""Sources of photos in an object store: a real S3 server on loopback, reached with s3fs."""

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.cli import environment
from helpers.paths import ROOT
from helpers.photos import COLOURS
from helpers.s3 import BUCKET, BusyStore, put, s3_client
from helpers.sources import pack, picture, read
from vitsearch.errors import CollectionError
from vitsearch.paths import raw_path
from vitsearch.photos.sources import Entry, open_source, remote

MISSING = "cannot be opened: No such file or directory"


def parquet(columns: dict[str, object], row_group_size: int = 2) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=row_group_size)
    return file.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, bytes]:
    return {colour: picture(tmp_path, colour) for colour in COLOURS}


@pytest.mark.slow
def test_a_folder_of_more_keys_than_one_answer_holds(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # 1000 where it is not said
    names = [f"{number:04}.jpg" for number in range(23)]
    put(
        {f"many/{name}": name.encode() for name in names}
        | {"many/sub/a.png": b"a", "many/note.txt": b"-", "other/b.jpg": b"b"}
    )
    source = open_source(f"{s3}/many/")
    assert source.name == f"{s3}/many"
    entries = list(source.entries())
    assert [entry.path for entry in entries] == [*names, "sub/a.png"]
    assert list(source.read(entries)) == [*(name.encode() for name in names), b"a"]


def test_keys_come_in_the_order_of_their_bytes_without_what_is_hidden(s3: str) -> None:
    kept = [
        "B.JPG",
        "a.jpg",
        "a/1.png",
        "a0.jpg",
        "a b/%41.png",
        "é/ü.webp",
        "[x]/{y}*?.gif",
        "x::y.jpg",
        "z/.jpg.png.jpg",
    ]
    left = [
        ".a.jpg",
        ".trash/a.jpg",
        "@eaDir/a.jpg",
        "a/node_modules/b.jpg",
        "a/readme.md",
        "jpg",
        "z/.jpg",
    ]
    hidden = [name for name in kept if name.startswith("z/.")]
    put({name: name.encode() for name in kept + left} | {"empty.jpg": b"", "folder/": b""})
    wanted = sorted([name for name in kept if name not in hidden] + ["empty.jpg"], key=raw_path)
    found = read(s3)
    assert list(found) == wanted
    assert found == {name: name.encode() for name in wanted} | {
        "empty.jpg": "the file is empty (0 bytes)"
    }


def test_the_facts_of_an_object(s3: str) -> None:
    put({"a.jpg": b"12345"})
    modified = s3_client().head_object(Bucket=BUCKET, Key="a.jpg")["LastModified"]
    assert list(open_source(s3).entries()) == [Entry("a.jpg", 5, int(modified.timestamp()) * 10**9)]


def test_a_folder_without_a_name_is_told(s3: str) -> None:
    put({"p//a.jpg": b"a", "p/b.jpg": b"b"})
    reason = "a folder without a name, whose photos cannot be told apart"
    assert read(f"{s3}/p") == {"/": reason, "b.jpg": b"b"}


def test_what_went_away_and_what_came_is_seen(s3: str) -> None:
    put({"a.jpg": b"a", "b.jpg": b"b", "c.jpg": b"c"})
    source = open_source(s3)
    entries = list(source.entries())
    s3_client().delete_object(Bucket=BUCKET, Key="b.jpg")
    assert [one if isinstance(one, bytes) else str(one) for one in source.read(entries)] == [
        b"a",
        MISSING,
        b"c",
    ]
    put({"d.jpg": b"d"})
    assert [entry.path for entry in source.entries()] == ["a.jpg", "c.jpg", "d.jpg"]
    s3_client().delete_object(Bucket=BUCKET, Key="a.jpg")
    s3_client().delete_object(Bucket=BUCKET, Key="c.jpg")
    s3_client().delete_object(Bucket=BUCKET, Key="d.jpg")
    s3_client().delete_bucket(Bucket=BUCKET)
    assert [str(one) for one in source.read(entries)] == [MISSING] * 3
    with pytest.raises(
        CollectionError, match="there is nothing at s3://photos: check the spelling"
    ):
        list(source.entries())


@pytest.fixture
def busy(
    s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], BusyStore]]:
    """Puts a store before the bucket that refuses so many requests for each photo."""
    fs = pytest.importorskip("s3fs", reason="extra [s3]").S3FileSystem

    def start(refusals: int) -> BusyStore:
        store = BusyStore(s3_endpoint, refusals)
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # or its client would ask again by itself
        monkeypatch.setattr(fs, "retries", 1)  # and s3fs too
        fs.clear_instance_cache()
        return store

    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.02, 0.04))
    yield start
    fs.clear_instance_cache()


@pytest.mark.slow
def test_what_a_busy_store_refuses_is_asked_for_again(
    s3: str, busy: Callable[[int], BusyStore]
) -> None:
    photos = {f"{number}.png": f"{number}".encode() for number in range(20)}
    put(photos)
    store = busy(2)
    assert read(s3) == photos
    assert min(store.requests[f"/{BUCKET}/{name}"] for name in photos) > 2


def test_a_store_that_stays_busy_ends_the_run(s3: str, busy: Callable[[int], BusyStore]) -> None:
    put({"a.png": b"a", "b.png": b"b"})
    busy(1000)
    with pytest.raises(CollectionError) as caught:
        read(s3)
    assert re.fullmatch(
        r"photos/a.png cannot be read now \(.*\), nor could it for 0.07 s: try again when the "
        "store answers, or take that object away if it answers for others",
        str(caught.value),
    )


@pytest.mark.parametrize(
    "place", ["s3://wrong/photos", "s3://wrong", "s3://photos/typo", "s3://photos/typo/more"]
)
@pytest.mark.parametrize("ending", ["", "/0.tar", "/0.parquet", "/*.tar", "/*.parquet"])
def test_a_wrong_bucket_or_prefix_is_one_line(s3: str, place: str, ending: str) -> None:
    put({"photos/a.jpg": b"a"})
    with pytest.raises(
        CollectionError, match=f"there is (nothing at|no) {place}|no file is named {place}"
    ) as caught:
        list(open_source(place + ending).entries())
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_line(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from vitsearch.photos.sources import open_source\ntry: "
        "open_source('s3://photos/a')\nexcept Exception as error: print(repr(error))"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.startswith(
        "CollectionError('s3://photos/a cannot be reached (Could not connect to the endpoint URL"
    )
    assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_tars_in_a_bucket(s3: str, tmp_path: Path, pictures: dict[str, bytes]) -> None:
    large = {f"{number:02}.jpg": bytes([number]) * (300_000 * number) for number in range(1, 9)}
    files = {
        "0": {f"{colour}.png": data for colour, data in pictures.items()},
        "1": large | {"note.txt": b"-", "empty.jpg": b""},
    }
    put(
        {
            f"tars/{name}.tar": pack(tmp_path / f"{name}.tar", members).read_bytes()
            for name, members in files.items()
        }
    )
    wanted: dict[str, bytes | str] = {
        f"{name}.tar/{member}": data
        for name, members in files.items()
        for member, data in members.items()
    }
    del wanted["1.tar/note.txt"]
    wanted["1.tar/empty.jpg"] = "the file is empty (0 bytes)"
    for name in (f"{s3}/tars/*.tar", f"{s3}/tars/{{0..1}}.tar", f"{s3}/tars/[01].tar"):
        assert read(name) == wanted
    assert read(f"{s3}/tars", source_format="tar") == wanted
    assert read(f"{s3}/tars/0.tar") == {
        path: data for path, data in wanted.items() if path.startswith("0")
    }


@pytest.mark.parametrize("kept", [3000, 4000, 5632, 6000])
def test_a_cut_tar_in_a_bucket_is_read_as_one_on_disk(s3: str, tmp_path: Path, kept: int) -> None:
    file = pack(
        tmp_path / "a.tar", {f"{number}.png": bytes([number]) * 2000 for number in range(5)}
    )
    file.write_bytes(file.read_bytes()[:kept])
    put({"a.tar": file.read_bytes()})
    assert read(f"{s3}/a.tar") == read(file)


def test_a_tar_that_was_cut_after_it_was_listed(s3: str, tmp_path: Path) -> None:
    file = pack(
        tmp_path / "a.tar", {f"{number}.png": bytes([number]) * 2000 for number in range(5)}
    )
    put({"a.tar": file.read_bytes()})
    source = open_source(f"{s3}/a.tar")
    entries = list(source.entries())
    put({"a.tar": file.read_bytes()[:3000]})
    assert [str(one) for one in source.read(entries[1:])] == ["the tar ends before it does"] * 4
    assert next(source.read(entries)) == bytes(2000)
    put({"a.tar": b""})
    assert [str(one) for one in source.read(entries)] == ["the tar ends before it does"] * 5
    s3_client().delete_object(Bucket=BUCKET, Key="a.tar")
    assert [str(one) for one in source.read(entries)] == [MISSING] * 5


@pytest.mark.slow
def test_photos_in_parquet_in_a_bucket(s3: str, pictures: dict[str, bytes]) -> None:
    columns = {"image": [{"bytes": data, "path": None} for data in pictures.values()]}
    put(
        {
            "data/a.parquet": parquet(columns),
            "data/b.parquet": parquet(columns | {"key": list(pictures)}),
        }
    )
    first = {f"a.parquet/{row}": data for row, data in enumerate(pictures.values())}
    assert read(f"{s3}/data/*.parquet") == first | pictures
    assert read(f"{s3}/data/a.parquet") == first
    assert next(open_source(f"{s3}/data/a.parquet").entries()).mtime_ns > 1_600_000_000 * 10**9


def test_objects_that_parquet_names(s3: str, pictures: dict[str, bytes]) -> None:
    put(
        {
            "data/red.png": pictures["red"],
            "data/sub/[x].png": pictures["green"],
            "other/blue.png": pictures["blue"],
            "data/empty.png": b"",
        }
    )
    names = [
        f"{s3}/data/red.png",
        "sub/[x].png",
        "../other/blue.png",
        "empty.png",
        "none.png",
        "/etc/hostname",
        "s3://wrong/a.png",
        "gs://bucket/a.png",
    ]
    put({"data/list.parquet": parquet({"path": names})})
    assert read(f"{s3}/data/list.parquet") == {
        "/etc/hostname": "an absolute path of another machine",
        "empty.png": "the file is empty (0 bytes)",
        "gs://bucket/a.png": "cannot be read: gs:// needs a package: pip install gcsfs",
        "none.png": MISSING,
        "red.png": pictures["red"],
        "s3://photos/other/blue.png": pictures["blue"],
        "s3://wrong/a.png": MISSING,
        "sub/[x].png": pictures["green"],
    }


def test_a_local_list_may_name_objects(s3: str, tmp_path: Path, pictures: dict[str, bytes]) -> None:
    put({"data/red.png": pictures["red"]})
    (tmp_path / "list.parquet").write_bytes(
        parquet({"path": [f"{s3}/data/red.png", "aside/blue.png"]})
    )
    assert read(tmp_path / "list.parquet") == {
        f"{s3}/data/red.png": pictures["red"],
        "aside/blue.png": pictures["blue"],
    }


@pytest.mark.slow
def test_photos_are_requested_together(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of a tar that lie together are one request, and a whole object is one request without
    a question for its size.
    """
    from s3fs import S3FileSystem

    put(
        {
            "t.tar": pack(
                tmp_path / "t.tar", {f"{number:03}.png": bytes(1000) for number in range(200)}
            ).read_bytes()
        }
    )
    put({f"f/{number}.png": b"x" for number in range(20)})
    asked: list[str] = []
    call = S3FileSystem._call_s3

    async def counted(self: S3FileSystem, method: str, *rest: object, **options: object) -> object:
        asked.append(method)
        return await call(self, method, *rest, **options)

    for name, requests in ((f"{s3}/t.tar", 1), (f"{s3}/f", 20)):
        source = open_source(name)
        entries = list(source.entries())
        with monkeypatch.context() as patch:
            patch.setattr(S3FileSystem, "_call_s3", counted)
            asked.clear()
            assert all(isinstance(one, bytes) for one in source.read(entries))
            assert asked == ["get_object"] * requests

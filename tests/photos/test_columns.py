"""The columns of a photo: what was made before one of them opens, and gets it once written to."""

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from vitsearch.errors import CollectionError, QueryError
from vitsearch.filters import parse_filter
from vitsearch.filters.tree import TEXT_INDEX
from vitsearch.milvus import CollectionMetadata, connect, parse_uri
from vitsearch.milvus import schema as milvus_rows
from vitsearch.milvus.store import MilvusStore
from vitsearch.photos.columns import COLUMNS, METADATA
from vitsearch.shards.files import read_shard, shard_table, table_bytes
from vitsearch.shards.manifest import ShardRow
from vitsearch.storage.rows import PhotoRows, vector_checksum
from vitsearch.storage.schema import MIGRATIONS
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, Photo, PhotoInfo, Value

SAMPLES: dict[str, Value] = {"text": "Acme", "date": "2024-05-06T07:08:09", "number": 4}
HALF = np.array([1, 0], dtype=np.float16)


def filled() -> dict[str, Value | None]:
    return {name: SAMPLES[column.kind] for name, column in METADATA.items()}


def put(store: PhotoStore, path: str) -> None:
    with store.writing():
        info = PhotoInfo(4, 3, filled())
        store.put_photo(Found(path, 1, 1), b"f" * 16, info, vector=HALF, generation=1)


@pytest.fixture(params=sorted(METADATA))
def column(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(tmp_path: Path, column: str) -> Path:
    """A database that was made before there was a column, with one photo."""
    file = tmp_path / "photos.db"
    with closing(PhotoStore(file)) as store:
        put(store, "old.jpg")
    with closing(sqlite3.connect(file)) as db:
        for change in ("put", "remove", "change") if column == "text" else ():
            db.execute(f"DROP TRIGGER {TEXT_INDEX}_{change}")
        if column == "text":
            db.execute(f"DROP TABLE {TEXT_INDEX}")
            db.execute("DROP TABLE text_places")
        db.execute(f"ALTER TABLE photos DROP COLUMN {column}")
        checksum = vector_checksum(HALF.astype("<f2").tobytes(), 1)
        PhotoRows(db).seal(db, 1, checksum)  # as it was then
        db.commit()
    return file


def test_a_reader_sees_null_and_writes_nothing(old: Path, column: str) -> None:
    before = old.read_bytes()
    with closing(PhotoStore(old, read_only=True)) as store:
        (photo,) = store.photos()
        assert photo.info == PhotoInfo(4, 3, filled() | {column: None})
        assert store.ids_where(parse_filter(f"{column} is null")).tolist() == [1]
        for name in METADATA.keys() - {column}:
            assert store.ids_where(parse_filter(f"{name} is not null")).tolist() == [1]
    assert old.read_bytes() == before


def test_a_writer_adds_the_column(old: Path, column: str) -> None:
    with closing(PhotoStore(old)) as store:
        put(store, "new.jpg")
        assert [photo.info[column] for photo in store.photos()] == [filled()[column], None]
        assert store.ids_where(parse_filter(f"{column} is not null")).tolist() == [2]
    with closing(PhotoStore(old)) as store:
        assert store.count() == 2
    with closing(sqlite3.connect(old)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_shard_without_the_column_is_read(column: str) -> None:
    info = PhotoInfo(4, 3, filled())
    table = shard_table([ShardRow(1, "a.jpg", 1, 1, b"f" * 16, info)], HALF[None])
    ((rows, halves),) = read_shard(table_bytes(table.drop_columns([column])), 2, "a", size=10)
    assert [row.info for row in rows] == [PhotoInfo(4, 3, filled() | {column: None})]
    assert halves.tolist() == [[1, 0]]
    wrong = table.set_column(table.schema.get_field_index(column), column, pyarrow.array([True]))
    with pytest.raises(CollectionError, match=f"its column {column} should be"):
        list(read_shard(table_bytes(wrong), 2, "a", size=10))


def test_a_shard_holds_every_metadata_column() -> None:
    info = PhotoInfo(4, 3, filled())
    data = table_bytes(shard_table([ShardRow(1, "a.jpg", 1, 1, b"f" * 16, info)], HALF[None]))
    (row,) = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    assert {name: row[name] for name in METADATA} == filled()


def test_milvus_without_the_column_says_so(
    tmp_path: Path, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = parse_uri(f"milvus://{tmp_path / 'a.db'}/photos")
    fields = {
        name: field
        for name, field in milvus_rows.FIELDS.items()
        if name not in (column, f"{column}_folded")
    }
    photo = Photo(1, "a.jpg", 1, 1, b"f" * 16, PhotoInfo(4, 3, filled()))
    row = milvus_rows.row_of(photo, HALF)
    with closing(connect(place)) as connection:
        monkeypatch.setattr("vitsearch.milvus.client.FIELDS", fields)
        facts = CollectionMetadata("colour", "f", "float32", 2, "", "", "scaled")
        connection.create(facts, "FLAT", {})
        connection.load()
        connection.upsert([{name: row[name] for name in ("id", *fields, "vector")}])
        store = MilvusStore(connection)
        (stored,) = store.photos()
        assert stored.info == PhotoInfo(4, 3, filled() | {column: None})
        assert store.ids_where(parse_filter("width = 4")).tolist() == [1]
        with pytest.raises(QueryError) as raised:
            store.ids_where(parse_filter(f"width = 4 and {column} is null"))
        assert str(raised.value) == (
            f"{place} was made before there was a column {column}: push into another "
            "--collection NAME to filter by it"
        )


def test_every_column_says_what_it_is() -> None:
    assert list(COLUMNS) == [column.name for column in COLUMNS.values()]
    assert all(column.help for column in COLUMNS.values())
    texts = [column for column in METADATA.values() if column.kind == "text"]
    assert all(column.title for column in texts if not column.apart)

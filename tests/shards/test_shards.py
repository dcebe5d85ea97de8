"""Shard sets: what is written is what is read, and whatever is wrong with one is said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch.errors import CollectionError
from vitsearch.photos.columns import METADATA
from vitsearch.shards import Manifest, ShardRow, create_shards, is_shard_set, open_shards, photo_id
from vitsearch.types import PhotoInfo, SkippedPhoto

DIM = 4
MANIFEST = Manifest(
    "colour", "ab" * 16, "float32", DIM, [[1.0, 0.0, 0.0, 0.0]], "/photos", "scaled", 3, 5, 2
)
INFO = PhotoInfo(
    30,
    20,
    {
        "taken_at": "2019-07-14T18:30:00",
        "camera": "NIKON D70",
        "latitude": 41.9,
        "longitude": -12.5,
    },
)
VECTORS = np.eye(DIM, dtype=np.float16)
ROWS = [
    ShardRow(photo_id("a.jpg"), "a.jpg", 10, 11, b"a" * 16, INFO, "dog", 0.5),
    ShardRow(photo_id("b.jpg"), "b.jpg", 20, 21, error="no photo"),
    ShardRow(photo_id("\udcff.jpg"), "\udcff.jpg", 30, 31, b"\0" * 16, PhotoInfo(1, 1)),
    ShardRow(photo_id("d.jpg"), "d.jpg", 2**40, -1, b"d" * 16, INFO),
]


def made(place: Any) -> Any:
    writer = create_shards(place, MANIFEST)
    writer.write(1, ROWS[3:], VECTORS[2:3])
    writer.write(0, ROWS[:3], VECTORS[:2])
    return writer


def check(place: Any) -> None:
    """Check all that a shard set says against what `made` wrote."""
    writer = made(place)
    shards = open_shards(place)
    assert (shards.manifest, shards.finished(), shards.missing()) == (MANIFEST, [0, 1], [])
    assert (shards.counts(), shards.counts([1])) == ((3, 1), (1, 0))
    assert list(shards.failures()) == [SkippedPhoto("b.jpg", "failed", "no photo")]
    blocks = list(shards.blocks(size=1))
    assert [row for rows, _ in blocks for row in rows] == [ROWS[0], ROWS[2], ROWS[3]]
    assert np.concatenate([halves for _, halves in blocks]).tobytes() == VECTORS[:3].tobytes()
    writer.finish()
    assert open_shards(place).manifest == replace(MANIFEST, complete=True)
    assert is_shard_set(place)


def test_in_a_folder(tmp_path: Path) -> None:
    check(tmp_path / "new" / "out")
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")) == [
        "new/out/shards/000000.parquet",
        "new/out/shards/000001.parquet",
        "new/out/vitsearch.json",
    ]


@pytest.mark.slow
def test_in_an_object_store(s3: str) -> None:
    check(f"{s3}/deep/out")


def test_other_programs_read_a_shard(tmp_path: Path) -> None:
    made(tmp_path / "out")
    table = pyarrow.parquet.read_table(tmp_path / "out" / "shards" / "000000.parquet").to_pylist()
    assert [row["path"] for row in table] == ["a.jpg", "b.jpg", "\\xff.jpg"]
    assert [row["vector"] for row in table] == [[1.0, 0.0, 0.0, 0.0], None, [0.0, 1.0, 0.0, 0.0]]
    assert [row["path_bytes"] for row in table] == [None, None, b"\xff.jpg"]


UTF8 = st.characters(exclude_categories=["Cs"])
TEXTS = st.none() | st.text(UTF8)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
SIDES = st.integers(1, 2**31 - 1)
STORED = {"TEXT": TEXTS, "REAL": st.none() | st.floats(-90, 90), "INTEGER": st.none() | NUMBERS}
METADATA_VALUES = {name: STORED[column.sql_type] for name, column in METADATA.items()}
INFOS = st.builds(PhotoInfo, SIDES, SIDES, st.fixed_dictionaries(METADATA_VALUES))


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(
    paths=st.lists(
        st.text(UTF8 | st.sampled_from("\udc80\udcff"), min_size=1), unique=True, max_size=20
    ),
    data=st.data(),
)
def test_any_rows_come_back(
    paths: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def row(path: str) -> ShardRow:
        if data.draw(st.booleans()):
            return ShardRow(photo_id(path), path, 0, 0, error=data.draw(st.text(UTF8)))
        fingerprint = data.draw(st.binary(min_size=16, max_size=16))
        return ShardRow(
            photo_id(path),
            path,
            data.draw(NUMBERS),
            data.draw(NUMBERS),
            fingerprint,
            data.draw(INFOS),
        )

    rows = [row(path) for path in paths]
    good = [row for row in rows if row.error is None]
    halves = np.random.default_rng(len(paths)).standard_normal((len(good), DIM)).astype(np.float16)
    place = tmp_path_factory.mktemp("any") / "out"
    create_shards(place, MANIFEST).write(0, rows, halves)
    blocks = list(open_shards(place).blocks([0], size=7))
    assert [row for found, _ in blocks for row in found] == good
    assert b"".join(found.tobytes() for _, found in blocks) == halves.tobytes()
    assert [row for _, row in open_shards(place).failed_rows([0])] == [
        row for row in rows if row.error is not None
    ]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_id_is_of_the_path_alone_and_fits_63_bits(path: str) -> None:
    assert photo_id(path) == photo_id(path)
    assert 0 < photo_id(path) < 2**63


def test_ids_stay_as_they_are() -> None:
    assert [photo_id(path) for path in ("a", "italy/rome.jpg")] == [
        2340832890917691671,
        photo_id("italy/rome.jpg"),
    ]
    assert len({photo_id(f"{number}.jpg") for number in range(50_000)}) == 50_000


def test_a_shard_that_is_missing_is_counted(tmp_path: Path) -> None:
    writer = create_shards(tmp_path / "out", MANIFEST)
    writer.write(1, ROWS[3:], VECTORS[:1])
    assert open_shards(tmp_path / "out").missing() == [0]
    with pytest.raises(
        CollectionError, match=r"lacks 1 shards \(the first is 0\): run `vitsearch embed` again"
    ):
        writer.finish()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 9}, "has format 9, newer than this vitsearch reads"),
        ({"dim": "4"}, "'dim' is of the wrong type"),
        ({"dim": True}, "'dim' is of the wrong type"),
        ({"shard_size": 0}, "a number below 1"),
        ({"golden": [[1.0]]}, "'golden' holds no rows of 4 numbers"),
        ({"layout": "faiss"}, "holds an export of layout 'faiss', not shards"),
    ],
)
def test_a_damaged_manifest_says_what_is_wrong(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    made(tmp_path / "out")
    file = tmp_path / "out" / "vitsearch.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CollectionError, match=words):
        open_shards(tmp_path / "out")


def test_what_is_no_shard_set(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=f"no shards in {tmp_path}: `vitsearch embed SOURCE"):
        open_shards(tmp_path)
    with pytest.raises(CollectionError, match="the name of the output is empty"):
        open_shards("")
    with pytest.raises(CollectionError, match="teleport:// is not known"):
        open_shards("teleport://out")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CollectionError, match="holds files already"):
        create_shards(tmp_path, MANIFEST)
    assert not is_shard_set(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    made(tmp_path / "out")
    file = tmp_path / "out" / "shards" / "000001.parquet"
    if damage == "other":
        pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), file)
    else:
        file.write_bytes(file.read_bytes()[:100] if damage == "cut" else b"")
    for read in (
        lambda shards: list(shards.blocks()),
        lambda shards: list(shards.failures()),
        lambda shards: shards.counts(),
    ):
        with pytest.raises(
            CollectionError,
            match=r"000001.parquet (cannot be read as a shard|is not a shard of this set)",
        ):
            read(open_shards(tmp_path / "out"))


def test_vectors_of_another_length_or_number_are_refused(tmp_path: Path) -> None:
    writer = create_shards(tmp_path / "out", MANIFEST)
    with pytest.raises(CollectionError, match=r"vectors of shape \(1, 3\) do not fit"):
        writer.write(0, ROWS[:1], VECTORS[:1, :3])
    with pytest.raises(ValueError, match="2 photos have 1 vectors"):
        writer.write(0, ROWS[:3], VECTORS[:1])
    assert open_shards(tmp_path / "out").finished() == []

"""Sets of vectors from elsewhere: what they say about this machine is not believed, and what would
end the process or run for ever is one line.
"""

import json
import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.cli import vitsearch
from helpers.interop import opened, vectors_of, write_layout
from helpers.photos import paint
from helpers.shard_sets import row, write_set
from vitsearch import Collection, CollectionError, EncoderError, index_folder
from vitsearch.encoders.colour import DIM, ColourEncoder
from vitsearch.interop import (
    ImportOptions,
    holds_shards,
    import_clip_retrieval,
    import_faiss,
    import_shards,
)

# -- Which folder is shown -------------------------------------------------------------------------


def root_of(collection: Path) -> str:
    with opened(collection, collection=collection) as found:
        return found.config.root


@pytest.mark.parametrize("source", ["/etc", "/", "/etc/passwd", "..", "", "s3://bucket/photos"])
def test_the_source_of_a_set_does_not_become_the_photo_folder(tmp_path: Path, source: str) -> None:
    output = write_set(tmp_path / "set", [row("passwd")], source=source)
    import_shards(output, collection=tmp_path / "collection")
    assert root_of(tmp_path / "collection") == str(tmp_path / "collection")


def test_the_photo_folder_is_the_sets_own_or_the_one_given(tmp_path: Path) -> None:
    inside, given = tmp_path / "set" / "photos", tmp_path / "given"
    output = write_set(tmp_path / "set", [row("a.png")], source=str(inside))
    inside.mkdir()
    given.mkdir()
    import_shards(output, collection=tmp_path / "own")
    assert root_of(tmp_path / "own") == str(inside)
    import_shards(output, collection=tmp_path / "other", options=ImportOptions(root=given))
    assert root_of(tmp_path / "other") == str(given)
    with pytest.raises(CollectionError, match="no such folder"):
        import_shards(output, collection=tmp_path / "x", options=ImportOptions(root="/no/such"))
    inside.rmdir()
    inside.symlink_to("/etc")
    import_shards(output, collection=tmp_path / "linked")
    assert root_of(tmp_path / "linked") == str(tmp_path / "linked")


def test_absolute_paths_of_another_machine_stay_relative_to_its_folder(tmp_path: Path) -> None:
    output = write_set(
        tmp_path / "set", [row("/data/photos/a.png"), row("/etc/passwd")], source="/data/photos/"
    )
    report = import_shards(output, collection=tmp_path / "collection")
    assert (report.imported, report.outside) == (1, 1)
    with opened(tmp_path, collection=tmp_path / "collection") as found:
        assert [one.path for one in found.photos()] == ["a.png"]


# -- Which encoder is loaded -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("hf:stranger/model", "stranger/model"),
        ("open_clip:ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai"),
    ],
)
def test_an_encoder_that_only_a_set_names_is_not_downloaded(
    tmp_path: Path, name: str, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))

    def download(*_: Any, **__: Any) -> None:
        raise AssertionError("it asks the hub")

    monkeypatch.setattr("vitsearch.encoders.hub._download", download)
    output = write_set(tmp_path / "set", [row("a.png")], encoder=name)
    with pytest.raises(EncoderError) as caught:
        import_shards(output, collection=tmp_path / "collection")
    assert str(caught.value) == (
        f"{output} names the model {repo}, which is not on this machine, and the hub is not asked "
        "because a file says so: give --allow-download if you trust it, or name it yourself "
        "(--encoder NAME, or load_encoder(NAME) in Python)"
    )
    assert not (tmp_path / "collection").exists()


def test_a_set_may_name_its_encoder_where_downloads_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    output = write_set(tmp_path / "set", [row("a.png")], encoder="hf:stranger/model")
    done = vitsearch("import", output, "--collection", tmp_path / "c", "--allow-download")
    assert b"of the model stranger/model is not on this machine" in done.stderr
    with pytest.raises(EncoderError, match="HF_HUB_OFFLINE is set"):
        import_shards(output, collection=tmp_path / "c", options=ImportOptions(allow_download=True))


# -- A FAISS index ---------------------------------------------------------------------------------


@pytest.fixture(name="two")
def two_photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    paint(folder / "red.png", "red")
    paint(folder / "green.png", "green")
    return folder


def index_folder_of(photos: Path, folder: Path, index: Any) -> Path:
    folder.mkdir()
    names = ["red.png", "green.png"]
    index.add(vectors_of(photos, names))
    faiss.write_index(index, str(folder / "index.faiss"))
    (folder / "paths.txt").write_text("red.png\ngreen.png\n")
    return folder


@pytest.mark.slow
def test_lists_that_an_index_looks_for_elsewhere_are_not_mapped(two: Path, tmp_path: Path) -> None:
    quantizer = faiss.IndexFlatIP(DIM)
    quantizer.add(np.eye(DIM, dtype=np.float32)[:2])
    index = faiss.IndexIVFFlat(quantizer, DIM, 2, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    elsewhere = tmp_path / "elsewhere.ivfdata"
    lists = faiss.OnDiskInvertedLists(2, index.code_size, str(elsewhere))
    index.replace_invlists(lists)
    folder = index_folder_of(two, tmp_path / "index", index)
    content = elsewhere.read_bytes()
    elsewhere.write_bytes(b"root:x:0:0\n")  # shorter than what the index says: it would crash
    with pytest.raises(CollectionError, match="cannot be read as a FAISS index"):
        import_faiss(folder, two, encoder="colour")
    assert elsewhere.read_bytes() == b"root:x:0:0\n"
    (folder / elsewhere.name).write_bytes(content)
    assert import_faiss(folder, two, encoder="colour").imported == 2
    (folder / elsewhere.name).write_bytes(b"cut")
    with pytest.raises(CollectionError, match="its vector is zero or not finite"):
        import_faiss(folder, two, encoder="colour", collection=tmp_path / "c")
    (folder / elsewhere.name).unlink()
    (folder / elsewhere.name).symlink_to(elsewhere)
    with pytest.raises(CollectionError, match="is a link that leads out of its folder"):
        import_faiss(folder, two, encoder="colour", collection=tmp_path / "c")


@pytest.mark.slow
def test_ids_with_a_null_name_or_deep_lines_are_one_line(two: Path, tmp_path: Path) -> None:
    folder = index_folder_of(two, tmp_path / "index", faiss.IndexFlatIP(DIM))
    for line in ("[" * 20_000, '{"id": 1, "path": null}', '{"id": 0, "path": "a", "x": "\\ud800"}'):
        (folder / "paths.jsonl").write_text(line + "\n")
        with pytest.raises(CollectionError, match=r"paths.jsonl cannot be read \(.*\): write it"):
            import_faiss(folder, two, encoder="colour")


# -- Arrays and tables -----------------------------------------------------------------------------


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


SHAPED = "{'descr': '<f2', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    "content",
    [
        npy(SHAPED % "(-1, 640)", bytes(1280)),
        npy(SHAPED % "(2, -640)", bytes(1280)),
        npy(SHAPED % f"({2**62}, 4)", bytes(64)),
        npy(SHAPED % "(3, 27)", bytes(8)),
        npy("[" * 9000),
        npy("(" * 200 + ")" * 200),
        npy("{'descr': '<f2'}"),
        npy("\x00"),
        b"\x93NUMPY\x09\x00\x10\x00",
        b"\x93NUM",
        b"",
    ],
    ids=range(11),
)
def test_an_array_with_any_header_is_one_line(two: Path, tmp_path: Path, content: bytes) -> None:
    folder = write_layout(tmp_path / "set", (["red.png"], vectors_of(two, ["red.png"])))
    (folder / "img_emb" / "img_emb_0.npy").write_bytes(content)
    with pytest.raises(CollectionError, match=r"img_emb_0.npy cannot be read as an array \(.+\)"):
        import_clip_retrieval(folder, two, encoder="colour")


def changed_shard(output: Path, change: Any) -> None:
    file = output / "shards" / "000000.parquet"
    table = change(pq.read_table(file))
    pq.write_table(table, file)


def nulled(table: pa.Table, name: str) -> pa.Table:
    position = table.schema.get_field_index(name)
    kind = table.schema.field(name).type
    return table.set_column(position, pa.field(name, kind), pa.nulls(len(table), kind))


@pytest.mark.parametrize("column", ["path", "size", "mtime_ns"])
def test_a_null_in_a_row_is_one_line(tmp_path: Path, column: str) -> None:
    output = write_set(tmp_path / "set", [row("a.png"), row("b.png", error="cut")])
    changed_shard(output, lambda table: nulled(table, column))
    with pytest.raises(CollectionError, match="a row without a path, a size or a time"):
        import_shards(output, collection=tmp_path / "collection")


@pytest.mark.slow
def test_more_rows_than_a_file_can_hold_are_not_read(tmp_path: Path) -> None:
    output = write_set(tmp_path / "set", [row("a.png")])
    changed_shard(output, lambda table: pa.concat_tables([table] * 100_000).combine_chunks())
    with pytest.raises(CollectionError, match=r"it says that it has 100,000 rows in [\d,]+ bytes"):
        import_shards(output, collection=tmp_path / "collection")


@pytest.mark.parametrize(
    "changed",
    [
        {"shards": 2**40},
        {"shards": 2**40, "rows": 2**41},
        {"dim": 2**31},
        {"encoder": "\ud800"},
        {"golden": [[1e39] * DIM]},
        {"golden": [[10**400] * DIM]},
    ],
    ids=str,
)
def test_a_manifest_of_any_numbers_is_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    output = write_set(tmp_path / "set", [row("a.png")])
    file = output / "vitsearch.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises((CollectionError, EncoderError)) as caught:
        import_shards(output, collection=tmp_path / "collection")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "collection" / "photos.db").exists()


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    os.mkfifo(folder / "vitsearch.json")
    assert not holds_shards(folder)
    with pytest.raises(CollectionError, match="no shards in"):
        import_shards(folder, collection=tmp_path / "collection")
    with pytest.raises(CollectionError, match="it is not a regular file"):
        import_clip_retrieval(folder, folder, encoder="colour")


def test_a_collection_of_vectors_too_long_is_one_line(two: Path) -> None:
    index_folder(two, encoder=ColourEncoder())
    file = two / ".vitsearch" / "collection.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dim": 2**62}))
    with pytest.raises(CollectionError, match="collection.json is damaged"):
        Collection.open(two, encoder=ColourEncoder())

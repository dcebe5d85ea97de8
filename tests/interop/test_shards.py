"""Shard sets into a collection and out of one: the same halves, labels, facts and failures, with
the photos or without them.
"""

import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import vitsearch
from helpers.collections import CountingEncoder, counts, found_paths
from helpers.interop import facts, opened, report
from helpers.paths import ROOT
from helpers.photos import paint, shade
from helpers.s3 import s3_client
from helpers.shard_sets import manifest, row, vector, write_set
from vitsearch import Collection, CollectionError, index_folder
from vitsearch.encoders.colour import DIM, ColourEncoder
from vitsearch.errors import EncoderMismatch
from vitsearch.index.snapshot import verify_snapshot
from vitsearch.interop import ImportOptions, export_shards, holds_shards, import_shards
from vitsearch.shards import Manifest, ShardRow, create_shards, open_shards, photo_id
from vitsearch.types import SkippedPhoto

PARTIAL = ImportOptions(partial=True)


@pytest.fixture(name="marked")
def marked_folder(labelled: Path) -> Path:
    """The labelled folder with one file that is no photo."""
    (labelled / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    index_folder(labelled, encoder=ColourEncoder())
    return labelled


def failures(folder: Path, collection: Path | None = None) -> list[SkippedPhoto]:
    with opened(folder, collection=collection) as found:
        return found.store.failures()


def export(folder: Path, output: Any, **options: Any) -> int:
    with opened(folder) as found:
        return export_shards(found, output, **options)


@pytest.mark.parametrize("shard_size", [1, 2, 6, 1000])
@pytest.mark.parametrize("with_photos", [True, False])
def test_an_export_comes_back_as_the_same_collection(
    marked: Path, tmp_path: Path, shard_size: int, with_photos: bool
) -> None:
    seen: list[tuple[int, int]] = []
    assert (
        export(
            marked,
            tmp_path / "out",
            shard_size=shard_size,
            progress=lambda step: seen.append((step.done, step.total)),
        )
        == 5
    )
    assert seen[-1] == (6, 6)
    assert sorted(file.name for file in (tmp_path / "out" / "shards").iterdir()) == [
        f"{n:06d}.parquet" for n in range(-(-6 // shard_size))
    ]
    second = tmp_path / "second"
    came = import_shards(
        tmp_path / "out",
        marked if with_photos else None,
        collection=second,
        encoder=ColourEncoder(),
        options=ImportOptions(root=marked),
    )
    assert came == report(imported=5, checked=5 if with_photos else 0, total=5, failed=1)
    assert verify_snapshot(second / "index").count == 5  # the import builds the index
    assert facts(marked, collection=second) == facts(marked)
    assert failures(marked, second) == failures(marked) != []
    assert Collection.open(marked, collection=second, encoder=ColourEncoder()).config.root == str(
        marked
    )
    encoder = CountingEncoder()
    assert counts(index_folder(marked, collection=second, encoder=encoder)) == {
        "unchanged": 5,
        "failed": 1,
    }
    assert encoder.embedded == 0
    again = import_shards(
        tmp_path / "out",
        marked if with_photos else None,
        collection=second,
        encoder=ColourEncoder(),
    )
    assert again == report(unchanged=5, checked=5 if with_photos else 0, total=5, failed=1)
    assert facts(marked, collection=second) == facts(marked)


def test_the_manifest_and_the_rows_of_an_export(marked: Path, tmp_path: Path) -> None:
    export(marked, tmp_path / "out", shard_size=4)
    shards = open_shards(tmp_path / "out")
    with opened(marked) as found:
        stored = found.store.get_meta("golden")
        photos = list(found.photos())
        halves = np.stack([found.store.vector(one.photo_id) for one in photos])
    assert isinstance(stored, bytes)
    golden = np.frombuffer(stored, "<f4").reshape(-1, DIM).tolist()
    expected = manifest(str(marked), 6, golden=golden, shard_size=4, shards=2, complete=True)
    assert shards.manifest == replace(expected, colours="srgb")
    blocks = list(shards.blocks())
    assert [one for rows, _ in blocks for one in rows] == [
        ShardRow(
            photo_id(one.path),
            one.path,
            one.size,
            one.mtime_ns,
            one.fingerprint,
            one.info,
            one.label,
            one.label_score,
        )
        for one in photos
    ]
    assert np.concatenate([part for _, part in blocks]).tobytes() == halves.tobytes()
    assert list(shards.failures()) == failures(marked)


PATHS = st.lists(st.sampled_from(["a", "é", "b c", "\udcff", "x"]), min_size=1, max_size=3).map(
    "/".join
)
LABELS = st.none() | st.tuples(st.text("ab ,\u00e9", max_size=4), st.floats(0, 1))


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(PATHS.map(lambda path: path + ".png"), LABELS, min_size=1, max_size=8),
    st.integers(1, 9),
)
def test_any_rows_come_through_two_imports_and_an_export(
    stored: dict[str, tuple[str, float] | None], shard_size: int
) -> None:
    rows = [row(path, number) for number, path in enumerate(stored)]
    rows = [
        replace(one, label=given[0], label_score=given[1]) if given else one
        for one, given in zip(rows, stored.values(), strict=True)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_set(folder / "set", rows)
        import_shards(folder / "set", collection=folder / "one", encoder=ColourEncoder())
        with Collection.open(folder, collection=folder / "one", encoder=ColourEncoder()) as found:
            export_shards(found, folder / "out", shard_size=shard_size)
        import_shards(folder / "out", collection=folder / "two", encoder=ColourEncoder())
        first, second = (facts(folder, collection=folder / which) for which in ("one", "two"))
    assert first == second
    assert {one[0]: one[5:7] for one in first} == {
        path: given or (None, None) for path, given in stored.items()
    }
    assert {one[0]: one[-1] for one in first} == {
        one.path: vector(one.mtime_ns).tobytes() for one in rows
    }


def test_sets_of_one_encoder_are_merged_and_the_newer_file_wins(tmp_path: Path) -> None:
    target = tmp_path / "collection"
    first = write_set(
        tmp_path / "1",
        [
            row("a.png", 1),
            row("b.png", 2, label="old", label_score=0.5),
            row("bad.png", error="empty"),
        ],
    )
    second = write_set(
        tmp_path / "2",
        [row("b.png", 5), row("a.png", 0), row("c.png", 3), row("c2.png", 3, error="cut")],
    )
    assert import_shards(first, collection=target) == report(imported=2, total=2, failed=1)
    came = import_shards(second, collection=target)
    newer = ("a.png", "the collection has a file of this name that was changed later")
    assert came == report(imported=2, changed=1, total=3, failed=1, problems=(newer,))
    kept = {one[0]: (one[2], one[5], one[-1]) for one in facts(tmp_path, collection=target)}
    assert kept == {
        "a.png": (1001, None, vector(1001).tobytes()),
        "b.png": (1005, None, vector(1005).tobytes()),
        "c.png": (1003, None, vector(1003).tobytes()),
    }
    assert failures(tmp_path, target) == [
        SkippedPhoto("bad.png", "failed", "empty"),
        SkippedPhoto("c2.png", "failed", "cut"),
    ]
    third = write_set(tmp_path / "3", [row("bad.png", 1), row("a.png", 9, error="gone")])
    assert import_shards(third, collection=target) == report(imported=1, total=4)
    assert failures(tmp_path, target) == [SkippedPhoto("c2.png", "failed", "cut")]


def test_without_photos_the_collection_can_be_searched(marked: Path, tmp_path: Path) -> None:
    export(marked, tmp_path / "out")
    shutil.rmtree(marked)
    target = tmp_path / "elsewhere"
    import_shards(tmp_path / "out", collection=target)
    assert found_paths(target, "yellow", 1, collection=target) == ["yellow.png"]
    with Collection.open(target, collection=target, encoder=ColourEncoder()) as found:
        assert found.config.root == str(target)


@pytest.mark.slow
def test_with_photos_rows_are_matched_and_compared(marked: Path, tmp_path: Path) -> None:
    export(marked, tmp_path / "out")
    (marked / "red.png").unlink()
    paint(marked / "green.png", shade(3))
    came = import_shards(tmp_path / "out", marked, collection=tmp_path / "second")
    problems = (
        ("green.png", "has changed since its vector was made"),
        ("red.png", "is not among the photos of the folder"),
    )
    assert replace(came, problems=()) == report(
        imported=3, changed=1, missing=1, checked=3, total=3, failed=1
    )
    assert sorted(came.problems) == sorted(problems)  # photos are read ahead of the rows
    other = write_set(
        tmp_path / "wrong",
        [
            row(path, number, fingerprint=None)
            for number, path in enumerate(["blue.png", "yellow.png"])
        ],
    )
    with pytest.raises(EncoderMismatch, match="the vectors are not those of encoder colour"):
        import_shards(other, marked, collection=tmp_path / "third")
    assert not (tmp_path / "third" / "photos.db").exists()


def test_another_encoder_is_refused(marked: Path, tmp_path: Path) -> None:
    export(marked, tmp_path / "out")
    file = tmp_path / "out" / "vitsearch.json"
    said = json.loads(file.read_text())
    for change, reason in (
        ({"encoder_fingerprint": "0" * 32}, r"was made with colour \(fingerprint 00000000\)"),
        ({"golden": (np.array(said["golden"])[:, ::-1]).tolist()}, "gives other vectors"),
    ):
        file.write_text(json.dumps(said | change))
        for photos in (marked, None):
            with pytest.raises(EncoderMismatch, match=reason):
                import_shards(
                    tmp_path / "out",
                    photos,
                    collection=tmp_path / "second",
                    encoder=ColourEncoder(),
                )
    assert not (tmp_path / "second" / "photos.db").exists()


def test_a_set_with_missing_shards_is_refused_unless_partial(marked: Path, tmp_path: Path) -> None:
    export(marked, tmp_path / "out", shard_size=2)
    (tmp_path / "out" / "shards" / "000001.parquet").unlink()
    with pytest.raises(
        CollectionError, match=r"lacks 1 of 3 shards \(the first is 000001\): .* --partial"
    ):
        import_shards(tmp_path / "out", collection=tmp_path / "second")
    assert import_shards(
        tmp_path / "out", collection=tmp_path / "second", options=PARTIAL
    ) == report(imported=3, total=3, failed=1)
    shutil.rmtree(tmp_path / "out" / "shards")
    with pytest.raises(
        CollectionError, match="none of the 0 rows of .* could be used: there are none"
    ):
        import_shards(tmp_path / "out", collection=tmp_path / "third", options=PARTIAL)
    assert not (tmp_path / "third" / "photos.db").exists()


def test_rows_that_lead_elsewhere_or_have_no_facts_are_left_out(tmp_path: Path) -> None:
    paths = ["../a.png", "/etc/b.png", "c/../../d.png", "", "e.png", "f.png", "g.png"]
    rows = [row(path, number) for number, path in enumerate(paths)]
    rows[4], rows[5] = replace(rows[4], fingerprint=None), replace(rows[5], info=None)
    came = import_shards(write_set(tmp_path / "set", rows), collection=tmp_path / "second")
    outside = [(path, "lies outside the photo folder") for path in paths[:4]]
    bare = [(path, "its row has no fingerprint or no size in pixels") for path in paths[4:6]]
    assert came == report(imported=1, outside=4, damaged=2, total=1, problems=(*outside, *bare))


def test_a_vector_that_is_none_is_left_out(tmp_path: Path) -> None:
    writer = create_shards(tmp_path / "set", manifest("s3://photos", 3))
    writer.write(
        0,
        [row("a.png"), row("b.png"), row("c.png")],
        np.stack([np.zeros(DIM, np.float16), np.full(DIM, np.nan, np.float16), vector(1)]),
    )
    came = import_shards(tmp_path / "set", collection=tmp_path / "second")
    reason = "its vector is zero or not finite"
    assert came == report(
        imported=1, damaged=2, total=1, problems=(("a.png", reason), ("b.png", reason))
    )


def test_absolute_paths_below_the_source_become_relative(photos: Path, tmp_path: Path) -> None:
    rows = [row(f"{photos}/red.png"), row("s3://bucket/x.png", 1)]
    import_shards(
        write_set(tmp_path / "set", rows, source=str(photos)), collection=tmp_path / "second"
    )
    assert [one[0] for one in facts(photos, collection=tmp_path / "second")] == [
        "red.png",
        "s3://bucket/x.png",
    ]


@pytest.mark.parametrize("decoding", ["scaled", "exact"])
def test_the_collection_knows_how_the_photos_were_decoded(tmp_path: Path, decoding: str) -> None:
    import_shards(
        write_set(tmp_path / "set", [row("a.png")], decoding=decoding),
        collection=tmp_path / "second",
    )
    with Collection.open(
        tmp_path, collection=tmp_path / "second", encoder=ColourEncoder()
    ) as found:
        assert found.store.get_meta("decode") == decoding
        export_shards(found, tmp_path / "out")
    assert open_shards(tmp_path / "out").manifest.decoding == decoding


def test_an_import_that_fails_on_its_way_changes_nothing(marked: Path, tmp_path: Path) -> None:
    export(marked, tmp_path / "out", shard_size=2)
    before = facts(marked)
    (tmp_path / "out" / "shards" / "000002.parquet").write_bytes(b"PAR1 cut")
    paint(marked / "new.png", "red")
    for place in (None, tmp_path / "second"):
        with pytest.raises(CollectionError, match=r"000002\.parquet cannot be read as a shard"):
            import_shards(tmp_path / "out", marked, collection=place)
    with pytest.raises(CollectionError, match=r"000002\.parquet cannot be read as a shard"):
        import_shards(tmp_path / "out", collection=marked / ".vitsearch")
    assert facts(marked) == before
    assert not (tmp_path / "second" / "photos.db").exists()


def test_an_export_replaces_an_earlier_one_and_nothing_else(marked: Path, tmp_path: Path) -> None:
    export(marked, tmp_path / "out", shard_size=1)
    export(marked, tmp_path / "out", shard_size=100)
    assert open_shards(tmp_path / "out").finished() == [0]
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(CollectionError, match="holds other files"):
        export(marked, tmp_path / "out")
    with pytest.raises(CollectionError, match="at least 1 photo"):
        export(marked, tmp_path / "other", shard_size=0)


@pytest.mark.slow
def test_out_to_s3_and_back(marked: Path, tmp_path: Path, s3: str) -> None:
    assert export(marked, f"{s3}/set", shard_size=2) == 5
    keys = [one["Key"] for one in s3_client().list_objects_v2(Bucket="photos")["Contents"]]
    assert keys == [
        *(f"set/shards/{number:06d}.parquet" for number in range(3)),
        "set/vitsearch.json",
    ]
    assert holds_shards(f"{s3}/set")
    assert not holds_shards(f"{s3}/other")
    assert import_shards(f"{s3}/set", collection=tmp_path / "second") == report(
        imported=5, total=5, failed=1
    )
    assert facts(marked, collection=tmp_path / "second") == facts(marked)
    with pytest.raises(CollectionError, match="holds files already"):
        export(marked, f"{s3}/set")


@pytest.mark.slow
def test_shards_from_the_command_line(marked: Path, tmp_path: Path) -> None:
    out, second = tmp_path / "out", tmp_path / "second"
    done = vitsearch("export", marked, out, "--format", "shards", "--shard-size", "2", "--json")
    assert json.loads(done.stdout) == {"photos": 5, "format": "shards", "output": str(out)}
    came = vitsearch("import", out, "--collection", second)
    assert came.stdout == b"5 photos are searchable (5 imported, 1 failed)\n"
    assert came.stderr.decode() == (
        f"vitsearch: the photos of {out} were in '{marked}': where they are on this machine, "
        "import it with --photos DIR to show them\n"
        f"vitsearch: search it with `vitsearch search {second} WORDS --collection {second}`\n"
    )
    shown = tmp_path / "shown"
    came = vitsearch("import", out, "--collection", shown, "--photos", marked)
    assert came.stderr.decode() == (
        f"vitsearch: search it with `vitsearch search {marked} WORDS --collection {shown}`\n"
    )
    assert facts(marked, collection=second) == facts(marked)
    listed = vitsearch("failures", marked, "--collection", second)
    assert listed.stdout.startswith(b"failed\tbroken.png\t")
    (out / "shards" / "000001.parquet").unlink()
    refused = vitsearch("import", out, marked, "--collection", tmp_path / "third")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.decode().startswith(
        f"vitsearch: {out} lacks 1 of 3 shards (the first is 000001)"
    )
    partial = vitsearch(
        "import", out, marked, "--collection", tmp_path / "third", "--partial", "--json"
    )
    expected = report(imported=3, checked=3, total=3, failed=1)
    assert json.loads(partial.stdout) == {
        name: getattr(expected, name) for name in type(expected).__slots__ if name != "problems"
    }


@pytest.mark.parametrize(
    "options", [(), ("--collection", "there"), ("--format", "faiss", "--collection", "there")]
)
def test_photos_are_named_where_they_are_needed(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "emb" / "img_emb").mkdir(parents=True)
    done = vitsearch("import", "emb", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert b"only shards are imported without it" in done.stderr


def test_the_documented_columns_are_those_of_a_shard() -> None:
    from vitsearch.shards.files import schema_of

    text = (ROOT / "indexes" / "README.md").read_text(encoding="utf-8")
    section = text.partition("### shards")[2].partition("\n### ")[0]
    columns, _, said = section.partition("The manifest is")
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| (yes|no) \|", columns, re.MULTILINE)
    assert rows == [
        (one.name, str(one.type).replace("[7]", "[dim]"), "yes" if one.nullable else "no")
        for one in schema_of(7)
    ]
    keys = re.findall(r"^\| `(\w+)` \|", said, re.MULTILINE)
    assert keys == [*Manifest.__dataclass_fields__]


def test_an_absent_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="no shards in"):
        import_shards(tmp_path / "nothing", collection=tmp_path / "second")
    with pytest.raises(CollectionError, match="say where the collection goes"):
        import_shards(write_set(tmp_path / "set", [row("a.png")]))
    assert not os.path.exists(tmp_path / "second")

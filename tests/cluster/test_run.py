"""Embedding without a cluster: what its machines do with pieces of work, and what the driver makes
of their answers.
"""

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cli import one_line
from helpers.lazy import library
from helpers.photos import paint
from helpers.shard_sets import manifest, row, vector
from vitsearch import Collection, index_folder
from vitsearch.cluster import embed
from vitsearch.cluster.tasks import (
    EmbedOptions,
    Encode,
    EncoderFacts,
    Job,
    Model,
    decode_pieces,
    first_photo_problem,
    node_problem,
    write_listing,
)
from vitsearch.encoders.base import EncoderIdentity
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError, EncoderError, EncoderMismatch, VitsearchError
from vitsearch.photos.sources import open_source
from vitsearch.shards import create_shards, open_shards, storage_of
from vitsearch.types import Progress

ray = library("ray", reason="extra [ray]")
ray_cluster = library("vitsearch.cluster.ray_cluster")
run = library("vitsearch.cluster.run")
COLOUR = Model("colour", "cpu", "auto", "auto")
OPTIONS = EmbedOptions(
    encoder="colour",
    device="cpu",
    dtype="auto",
    runtime="auto",
    actors=None,
    gpus_per_actor=0,
    shard_size=3,
    address=None,
    source_format="auto",
    urls="none",
    max_pixels=10**6,
    exact_decode=False,
    memory=10**9,
)


def test_no_cluster_at_the_address(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = one_line(
        capfd,
        *("embed", photos, tmp_path / "out", "--encoder", "colour", "--address", "127.0.0.1:1"),
    )
    assert line.startswith("vitsearch: no Ray cluster at 127.0.0.1:1 (")


def test_a_complete_set_needs_no_cluster(photos: Path, tmp_path: Path) -> None:
    rows = [row(f"{number}.png", number) for number in range(3)]
    writer = create_shards(tmp_path / "out", manifest(str(photos), 3))
    writer.write(0, rows, np.stack([vector(number) for number in range(3)]))
    report = embed(photos, tmp_path / "out", encoder="colour")
    assert (report.rows, report.embedded, report.shards, report.written) == (3, 0, 1, 0)
    assert open_shards(tmp_path / "out").manifest.complete
    with pytest.raises(CollectionError, match=f"holds the photos of {photos}, not of {photos}/sub"):
        embed(photos / "sub", tmp_path / "out", encoder="colour")
    assert not ray.is_initialized()


def test_an_error_of_another_machine_is_ours_or_one_line() -> None:
    ours = EncoderError("device 'cuda' cannot be used here")
    sent = ray.exceptions.RayTaskError("load", "Traceback: of the worker", ours)
    with pytest.raises(EncoderError, match="^device 'cuda' cannot be used here$"):
        with ray_cluster.errors_of_workers():
            raise sent.as_instanceof_cause()
    with pytest.raises(VitsearchError) as raised, ray_cluster.errors_of_workers():
        raise ray.exceptions.RayError("many words\nthe node died\n")
    assert str(raised.value) == (
        "the cluster failed (the node died): run the same command again, finished shards are kept"
    )


def test_pieces_in_any_order_become_the_shards_of_one_machine(photos: Path, tmp_path: Path) -> None:
    """The whole way of a run, but for Ray's handing round."""
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    job = job_of(photos, tmp_path / "out", shard_size=3, piece=2, todo=(0, 1))
    encode, assembler = Encode(job), run.ShardAssembler(3, 5)
    writer = create_shards(tmp_path / "out", manifest(str(photos), 5, shard_size=3, shards=2))
    for piece in reversed(range(job.pieces)):
        for table in decode_pieces({"id": np.array([piece])}, job):
            for shard, complete in assembler.add(encode(table)):
                writer.write_table(shard, complete)
    assembler.check_empty()
    writer.finish()
    shards = open_shards(tmp_path / "out")
    index_folder(photos, encoder=ColourEncoder())
    with Collection.open(photos) as collection:
        expected = {
            photo.path: collection.store.vector(photo.photo_id).tobytes()
            for photo in collection.photos()
        }
        failed = [(each.path, each.reason) for each in collection.failures()]
    assert {
        each.path: half.tobytes()
        for rows, halves in shards.blocks()
        for each, half in zip(rows, halves, strict=True)
    } == expected
    assert [(each.path, each.reason) for each in shards.failures()] == failed


def test_a_machine_that_cannot_share_the_work_says_so(photos: Path, tmp_path: Path) -> None:
    from vitsearch._version import __version__

    job = job_of(photos, tmp_path / "out", shard_size=4, piece=4, todo=(0,))
    assert first_photo_problem(job) is None
    assert node_problem(job, __version__, readable=True) is None
    assert node_problem(job, "0.0.1", readable=True) == (
        f"has vitsearch {__version__}, not 0.0.1: install the same version there"
    )
    photos.rename(tmp_path / "elsewhere")
    problem = first_photo_problem(job)
    assert node_problem(job, __version__, readable=False) is None
    assert node_problem(job, __version__, readable=True) == (
        f"does not see the photos of {photos} ({problem}): mount them there"
    )
    (tmp_path / "out").rename(tmp_path / "unseen")
    says = node_problem(job, __version__, readable=True)
    assert says is not None
    assert says.startswith("does not see the output (")


def test_photos_are_listed_once_and_a_run_goes_on_as_it_was_begun(
    photos: Path, tmp_path: Path
) -> None:
    steps: list[Progress] = []
    facts, out = COLOUR.facts(), tmp_path / "out"
    manifest = run.EmbedJob(photos, out, OPTIONS, steps.append)._listed(facts).manifest
    assert (manifest.rows, manifest.shards, manifest.shard_size) == (4, 2, 3)
    assert (manifest.encoder, manifest.source, manifest.decoding) == (
        "colour",
        str(photos),
        "scaled",
    )
    assert [(step.stage, step.done) for step in steps] == [("looking", 3), ("looking", 4)]
    again = run.EmbedJob(photos, out, replace(OPTIONS, shard_size=50), steps.append)
    known = again._known()
    assert known is not None
    assert again._resumed(known, facts).manifest == manifest
    job = again._job(manifest, facts, known.missing(), 4)
    assert [job.rows_of(number) for number in range(job.pieces)] == [(0, 0, 3), (1, 0, 3)]
    exact = run.EmbedJob(photos, out, replace(OPTIONS, exact_decode=True), steps.append)
    with pytest.raises(CollectionError, match="was begun with scaled decoding"):
        exact._resumed(known, facts)
    other = replace(facts, identity=replace(facts.identity, fingerprint="0" * 32))
    with pytest.raises(EncoderMismatch, match=r"made with colour .* not with this colour"):
        again._resumed(known, other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollectionError, match="no photos found in"):
        run.EmbedJob(tmp_path / "empty", tmp_path / "none", OPTIONS, steps.append)._listed(facts)


def job_of(
    photos: Path, output: Path, *, shard_size: int, piece: int, todo: tuple[int, ...]
) -> Job:
    """List the photos into shards of that size, and return the job on them."""
    source, storage = open_source(photos), storage_of(output)
    count = len(list(source.entries()))
    listed = list(write_listing(storage, source.entries(), shard_size))
    assert listed == [*range(shard_size, count, shard_size), count]
    facts = COLOUR.facts()
    return Job(storage.name, source, COLOUR, facts, shard_size, piece, todo, 10**6, False, "srgb")


@settings(deadline=None)
@given(st.data())
def test_rows_in_any_order_make_whole_shards(data: st.DataObject) -> None:
    rows, size = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    order = data.draw(st.permutations(range(rows)))
    cuts = sorted(data.draw(st.sets(st.integers(1, rows), max_size=6)) | {0, rows})
    gather = run.ShardAssembler(size, rows)
    whole: dict[int, list[int]] = {}
    for start, stop in pairwise(cuts):
        part = list(order[start:stop])
        table = pyarrow.table(
            {
                "row": pyarrow.array(part, pyarrow.int64()),
                "begun": [0.0] * len(part),
                "path": [str(row) for row in part],
            }
        )
        for shard, found in gather.add(table):
            assert found.schema.names == ["path"]
            whole[shard] = [int(path) for path in found.column("path").to_pylist()]
    gather.check_empty()
    assert whole == {
        shard: list(range(shard * size, min(rows, (shard + 1) * size)))
        for shard in range(-(-rows // size))
    }


def test_a_cluster_that_falls_silent_ends_the_run(remarks: list[str]) -> None:
    never = threading.Event()

    def tables() -> Iterator[str]:
        yield from ("a", "b")
        never.wait()

    watching = run.watched(tables(), 0.5)
    assert [next(watching), next(watching)] == ["a", "b"]
    with pytest.raises(CollectionError) as raised:
        next(watching)
    never.set()
    silent = "nothing has come from the cluster for 0.5 s (`ray status` shows what it waits for)"
    assert str(raised.value) == f"{silent}: run the same command again, finished shards are kept"
    assert remarks == [f"{silent}, and the run ends after 0.5 s of it"]
    assert list(run.watched(iter("abc"), 100.0)) == ["a", "b", "c"]
    with pytest.raises(ZeroDivisionError):
        list(run.watched((1 // number for number in (1, 0)), 100.0))


def test_rows_that_come_twice_or_never_are_noticed() -> None:
    def table(*rows: int) -> pyarrow.Table:
        return pyarrow.table(
            {"row": pyarrow.array(rows, pyarrow.int64()), "begun": [0.0] * len(rows)}
        )

    gather = run.ShardAssembler(3, 5)
    assert list(gather.add(table(4))) == []
    with pytest.raises(CollectionError, match=r"rows of 1 shards never came \(the first is 1\)"):
        gather.check_empty()
    with pytest.raises(CollectionError, match="came twice or not at all"):
        list(gather.add(table(0, 1, 1)))


@given(
    size=st.integers(1, 50),
    piece=st.integers(1, 50),
    todo=st.lists(st.integers(0, 99), unique=True, min_size=1, max_size=9),
)
def test_pieces_are_every_row_once(size: int, piece: int, todo: list[int]) -> None:
    identity = EncoderIdentity("colour", "", "float32", 27, np.empty((0, 27), np.float32))
    facts = EncoderFacts(identity, None, None)
    source = open_source(Path(__file__).parent)
    job = Job(
        "out",
        source,
        COLOUR,
        facts,
        size,
        min(piece, size),
        tuple(todo),
        1,
        False,
        "srgb",
    )
    rows = [
        (shard, row)
        for number in range(job.pieces)
        for shard, start, stop in [job.rows_of(number)]
        for row in range(start, stop)
    ]
    assert rows == [(shard, row) for shard in todo for row in range(size)]


def test_a_broken_photo_in_memory_is_an_error_of_its_row(tmp_path: Path) -> None:
    paint(tmp_path / "photos" / "a.png", "red")
    (tmp_path / "photos" / "b.png").write_bytes(b"")
    (tmp_path / "photos" / "c.png").symlink_to(tmp_path / "nowhere")
    job = job_of(tmp_path / "photos", tmp_path / "out", shard_size=2, piece=2, todo=(0, 1))
    tables = list(decode_pieces({"id": np.array([0, 1])}, job))
    assert [table.column("row").to_pylist() for table in tables] == [[0, 1], [2]]
    encode = Encode(job)
    rows = (
        encode(pyarrow.concat_tables([tables[1], tables[0]])).sort_by("row").to_pylist()
    )  # as a batch of Ray Data's may be
    assert rows == [row for table in tables for row in encode(table).to_pylist()]
    assert [(row["path"], row["error"]) for row in rows] == [
        ("a.png", None),
        ("b.png", "the file is empty (0 bytes)"),
        ("c.png", f"a broken link to '{tmp_path / 'nowhere'}'"),
    ]
    assert (
        rows[0]["vector"]
        == ColourEncoder()
        .encode_images([shown(tmp_path / "photos" / "a.png")])[0]
        .astype(np.float16)
        .tolist()
    )


def shown(file: Path) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(file.read_bytes())).convert("RGB")

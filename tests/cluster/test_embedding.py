"""Embedding on a real local Ray cluster: the same vectors as on one machine, nothing lost when
processes die.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from helpers.cluster import command
from helpers.photo_site import photo_site
from helpers.photos import paint, shade
from helpers.processes import listens
from helpers.s3 import put
from helpers.sources import pack, picture
from vitsearch import Collection, index_folder
from vitsearch.cluster import embed
from vitsearch.errors import CollectionError, EncoderError, EncoderMismatch
from vitsearch.shards import ShardRow, open_shards
from vitsearch.types import Progress

pytestmark = [pytest.mark.engines, pytest.mark.slow]

DRIVER = """
import sys
from vitsearch.cluster import embed
if __name__ == "__main__":
    source, output, encoder, size = sys.argv[1:5]
    say = lambda step: print(step.done, flush=True)
    embed(source, output, encoder=encoder, shard_size=int(size), progress=say)
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """30 photos in two folders, one file that is none, and one whose name is no UTF-8."""
    for number in range(30):
        paint(
            tmp_path / "photos" / f"{number % 2}" / f"{number:02}.png",
            shade(number),
            shade(number + 7),
            size=(40 + number, 30),
        )
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    os.rename(
        tmp_path / "photos" / "0" / "04.png",
        os.path.join(os.fsencode(tmp_path / "photos" / "0"), b"\xff04.png"),
    )
    return tmp_path / "photos"


def rows_of(output: str | Path) -> dict[str, tuple[ShardRow, bytes]]:
    """Return every photo of a shard set with its stored vector, by path."""
    found = {
        row.path: (row, half.tobytes())
        for rows, halves in open_shards(output).blocks()
        for row, half in zip(rows, halves, strict=True)
    }
    assert len(found) == open_shards(output).counts()[0]
    return found


def vectors_of(photos: Path, **options: Any) -> dict[str, bytes]:
    index_folder(photos, collection=photos.parent / "one", **options)
    with Collection.open(photos, collection=photos.parent / "one") as found:
        return {
            photo.path: found.store.vector(photo.photo_id).tobytes() for photo in found.photos()
        }


def test_rows_are_those_of_one_machine(cluster: Any, many: Path, tmp_path: Path) -> None:
    said: list[Progress] = []
    report = embed(many, tmp_path / "out", encoder="colour", shard_size=7, progress=said.append)
    assert (
        report.rows,
        report.embedded,
        report.failed,
        report.shards,
        report.written,
        report.actors,
    ) == (31, 31, 1, 5, 5, 2)
    assert (said[-1].stage, said[-1].done, said[-1].total, said[-1].failed) == (
        "embedding",
        31,
        31,
        1,
    )
    shards = open_shards(tmp_path / "out")
    assert (shards.manifest.complete, shards.finished(), shards.counts()) == (
        True,
        [0, 1, 2, 3, 4],
        (30, 1),
    )
    assert (shards.manifest.source, shards.manifest.encoder, shards.manifest.decoding) == (
        str(many),
        "colour",
        "scaled",
    )
    there = rows_of(tmp_path / "out")
    assert {path: vector for path, (_, vector) in there.items()} == vectors_of(
        many, encoder="colour"
    )
    with Collection.open(many, collection=tmp_path / "one") as found:
        for photo in found.photos():
            row = there[photo.path][0]
            assert (row.size, row.mtime_ns, row.fingerprint, row.info) == (
                photo.size,
                photo.mtime_ns,
                photo.fingerprint,
                photo.info,
            )
        assert [(one.path, one.reason) for one in shards.failures()] == [
            (one.path, one.reason) for one in found.failures()
        ]
    assert [row.path for rows, _ in shards.blocks() for row in rows] == sorted(
        there, key=os.fsencode
    )


def test_mini_gives_the_same_vectors_bit_by_bit(cluster: Any, many: Path, tmp_path: Path) -> None:
    embed(many, tmp_path / "out", shard_size=13)
    assert {path: vector for path, (_, vector) in rows_of(tmp_path / "out").items()} == vectors_of(
        many
    )


def test_actors_on_gpus_are_fed_by_tasks(cluster: Any, many: Path, tmp_path: Path) -> None:
    report = embed(
        many, tmp_path / "out", encoder="colour", device="cpu", gpus_per_actor=0.5, shard_size=10
    )
    assert (report.actors, report.embedded) == (2, 31)
    assert {path: vector for path, (_, vector) in rows_of(tmp_path / "out").items()} == vectors_of(
        many, encoder="colour"
    )


def test_finished_shards_are_not_done_again(cluster: Any, many: Path, tmp_path: Path) -> None:
    embed(many, tmp_path / "out", encoder="colour", shard_size=7)
    before = rows_of(tmp_path / "out")
    kept = {
        file: file.stat().st_mtime_ns for file in sorted((tmp_path / "out" / "shards").iterdir())
    }
    lost = tmp_path / "out" / "shards" / "000002.parquet"
    lost.unlink()
    report = embed(
        many, tmp_path / "out", encoder="colour", shard_size=500
    )  # the size of a set that was begun is its own
    assert (report.rows, report.embedded, report.written) == (31, 7, 1)
    assert rows_of(tmp_path / "out") == before
    now = {
        file: file.stat().st_mtime_ns for file in sorted((tmp_path / "out" / "shards").iterdir())
    }
    assert {file.name for file in kept if kept[file] != now[file]} == {lost.name}
    report = embed(many, tmp_path / "out", encoder="colour")
    assert (report.embedded, report.written) == (0, 0)


def test_a_set_of_another_encoder_source_or_decoding_is_refused(
    cluster: Any, many: Path, tmp_path: Path
) -> None:
    embed(many, tmp_path / "out", encoder="colour", shard_size=7)
    (tmp_path / "out" / "shards" / "000002.parquet").unlink()
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*.*")}
    with pytest.raises(
        EncoderMismatch, match=r"was made with colour \(fingerprint \w{8}\), not with this mini"
    ):
        embed(many, tmp_path / "out")
    with pytest.raises(CollectionError, match="was begun with scaled decoding"):
        embed(many, tmp_path / "out", encoder="colour", exact_decode=True)
    with pytest.raises(CollectionError, match=f"holds the photos of {many}, not of {many}/1"):
        embed(many / "1", tmp_path / "out", encoder="colour")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*.*")} == before


def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(
    cluster: Any, many: Path, tmp_path: Path
) -> None:
    with pytest.raises(EncoderError, match="unknown encoder 'monochrome': try one of mini"):
        embed(many, tmp_path / "out", encoder="monochrome")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollectionError, match="no photos found in"):
        embed(tmp_path / "empty", tmp_path / "out", encoder="colour")
    with pytest.raises(CollectionError, match="holds files already"):
        embed(many, many, encoder="colour")
    with pytest.raises(CollectionError, match="at least 1"):
        embed(many, tmp_path / "out", encoder="colour", shard_size=0)
    assert not (tmp_path / "out" / "vitsearch.json").exists()


def test_tars_and_parquet(cluster: Any, many: Path, tmp_path: Path) -> None:
    files = sorted(many.glob("1/*.png"))
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
    pyarrow.parquet.write_table(
        pyarrow.table(
            {"path": [file.name for file in files], "image": [file.read_bytes() for file in files]}
        ),
        tmp_path / "photos.parquet",
    )
    wanted = [
        vector
        for _, vector in sorted(
            (path, vector)
            for path, vector in vectors_of(many, encoder="colour").items()
            if path[0] == "1"
        )
    ]
    for name in ("photos.tar", "photos.parquet"):
        embed(tmp_path / name, tmp_path / f"{name}-out", encoder="colour", shard_size=4)
        assert [
            vector for _, (_, vector) in sorted(rows_of(tmp_path / f"{name}-out").items())
        ] == wanted


def test_captions_of_a_data_set_are_descriptions(cluster: Any, tmp_path: Path) -> None:
    red = picture(tmp_path, "red")
    pack(tmp_path / "0.tar", {"a.png": red, "a.txt": b"A dog", "b.png": red})
    embed(tmp_path / "0.tar", tmp_path / "out", encoder="colour")
    rows: list[Any] = [row for block, _ in open_shards(tmp_path / "out").blocks() for row in block]
    assert {row.path: row.info["description"] for row in rows} == {
        "0.tar/a.png": "A dog",
        "0.tar/b.png": None,
    }


def test_what_the_web_does_not_give_now_is_fetched_by_the_next_run(
    cluster: Any, tmp_path: Path
) -> None:
    listed, out = tmp_path / "laion.parquet", tmp_path / "out"
    with photo_site() as site:
        urls = [site.url(f"photo/{shade}") for shade in range(0, 250, 50)]
        urls += [site.url("gone"), site.url("page")]
        table = {"url": urls, "caption": [f"number {number}" for number in range(7)]}
        pyarrow.parquet.write_table(pyarrow.table(table), listed)
        options: Any = {"encoder": "colour", "shard_size": 3, "urls": "private"}
        with pytest.raises(CollectionError, match="fetched from the web with --allow-urls"):
            embed(listed, out, encoder="colour")
        site.down = {"photo/50"}
        report = embed(listed, out, **options)
        assert (report.rows, report.failed) == (7, 3)
        before = rows_of(out)
        failed = {failure.path: failure.reason for failure in open_shards(out).failures()}
        assert {*failed} == {urls[1], *urls[5:]}
        assert failed[urls[1]] == "not fetched for now: HTTP 503"
        site.down = {"photo/100"}  # it had a vector already
        report = embed(listed, out, **options)
        assert (report.embedded, report.written) == (3, 1)
        after = rows_of(out)
        assert {failure.path for failure in open_shards(out).failures()} == {*urls[5:]}
        assert {path: row for path, row in after.items() if path in before} == before
        assert after[urls[1]][0].info["description"] == "number 1"
        report = embed(listed, out, **options)
        assert (report.embedded, report.written) == (0, 0)


def test_from_and_to_an_object_store(s3: str, many: Path) -> None:
    put(
        {f"in/{file.relative_to(many)}": file.read_bytes() for file in many.glob("1/*.png")}
        | {"in/1/broken.jpg": b"nothing"}
    )
    command = [
        sys.executable,
        "-c",
        DRIVER,
        f"{s3}/in",
        f"{s3}/out/vectors",
        "colour",
        "4",
    ]  # a cluster that knows the store's address
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    shards = open_shards(f"{s3}/out/vectors")
    assert (shards.manifest.source, shards.manifest.complete, shards.counts()) == (
        f"{s3}/in",
        True,
        (15, 1),
    )
    local = {
        path: vector
        for path, vector in vectors_of(many, encoder="colour").items()
        if path.startswith("1/")
    }
    assert {path: vector for path, (_, vector) in rows_of(f"{s3}/out/vectors").items()} == local


def test_a_worker_that_dies_is_replaced(cluster: Any, tmp_path: Path) -> None:
    import psutil

    photos = photographs(tmp_path, 400)
    before = {process.pid for process in psutil.process_iter()}
    killed: list[int] = []

    def kill(step: Progress) -> None:
        if step.stage == "embedding" and step.done and not killed:
            new = [one for one in psutil.process_iter(["cmdline"]) if one.pid not in before]
            found = [one for one in new if "MapWorker" in " ".join(one.info["cmdline"] or [])]
            found[0].kill()
            killed.append(found[0].pid)

    report = embed(photos, tmp_path / "out", shard_size=100, progress=kill)
    assert killed
    assert (report.embedded, report.failed, report.written) == (400, 0, 4)
    assert {path: vector for path, (_, vector) in rows_of(tmp_path / "out").items()} == vectors_of(
        photos
    )


def test_a_driver_that_dies_loses_the_shards_in_flight_and_no_other(tmp_path: Path) -> None:
    photos, output = photographs(tmp_path, 400), tmp_path / "out"
    run = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(photos), str(output), "mini", "40"],
        stdout=subprocess.PIPE,
        text=True,
    )
    shards = output / "shards"
    wait_for(lambda: shards.exists() and len(list(shards.glob("0*.parquet"))) >= 3, run)
    run.send_signal(signal.SIGKILL)
    run.wait()
    finished = {file.name: file.stat().st_mtime_ns for file in shards.glob("0*.parquet")}
    assert 3 <= len(finished) < 10
    report = json.loads(command("embed", photos, output, "--shard-size", "40", "--json").stdout)
    assert (report["rows"], report["embedded"], report["written"]) == (
        400,
        400 - 40 * len(finished),
        10 - len(finished),
    )
    assert {name: (shards / name).stat().st_mtime_ns for name in finished} == finished
    assert {path: vector for path, (_, vector) in rows_of(output).items()} == vectors_of(photos)


def photographs(folder: Path, count: int) -> Path:
    """Write so many small pictures, each another."""
    for number in range(count):
        paint(
            folder / "photos" / f"{number:04}.png",
            shade(number),
            shade(3 * number + 1),
            shade(number // 7),
            size=(80, 60),
        )
    return folder / "photos"


def wait_for(holds: Any, run: subprocess.Popen[Any], seconds: int = 240) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert run.poll() is None, "it ended too early"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address for a Ray Client of a cluster of its own process, whose machine has one core."""
    # between the ports that Ray gives to its workers and those that the system, and so Ray's other
    # parts, take at random; and not those of another run of the tests at the same time
    first = 20_100 + 8 * (os.getpid() % 300)
    port, inner = islice((number for number in range(first, 22_900) if not listens(number)), 2)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    flags = [
        "--head",
        "--block",
        "--num-cpus=1",
        "--object-store-memory=200000000",
        f"--port={inner}",
        f"--ray-client-server-port={port}",
        "--include-dashboard=false",
        "--disable-usage-stats",
    ]
    with tempfile.TemporaryDirectory(
        prefix="ray", ignore_cleanup_errors=True
    ) as folder:  # a short name: there are sockets in it
        # of its own, or other programs would take this cluster for the machine's
        env = os.environ | {"RAY_TMPDIR": folder}
        log = Path(folder) / "head.log"
        for _ in range(5):  # Ray gives up where its parts are not there within half a minute
            with log.open("wb") as output:
                command = [str(Path(sys.executable).with_name("ray")), "start", *flags]
                run = subprocess.Popen(command, stdout=output, stderr=output, env=env)
            # the port of the clients is open before there is a node to serve them
            while run.poll() is None and not (
                listens(port) and b"Ray runtime started" in log.read_bytes()
            ):
                time.sleep(0.1)
            if run.poll() is None:
                break
        assert run.poll() is None, log.read_text()
        yield f"ray://127.0.0.1:{port}"
        run.terminate()
        run.wait(60)


class TestTheCommand:
    def test_through_a_ray_client(self, many: Path, tmp_path: Path, head: str) -> None:
        done = command(
            "embed",
            "photos",
            "out",
            "--encoder",
            "colour",
            "--shard-size",
            "20",
            "--address",
            head,
            cwd=many.parent,
        )
        assert (done.returncode, done.stdout.partition(",")[0]) == (
            0,
            "30 of 31 photos now have a vector",
        ), done.stderr
        assert {
            path: vector for path, (_, vector) in rows_of(tmp_path / "out").items()
        } == vectors_of(many, encoder="colour")
        other = command("embed", "photos", "out", "--address", head, cwd=many.parent)
        assert other.returncode == 0
        (tmp_path / "out" / "shards" / "000000.parquet").unlink()
        other = command("embed", "photos", "out", "--address", head, cwd=many.parent)
        assert other.returncode == 1
        assert re.fullmatch(
            r"vitsearch: \S*out was made with colour \(fingerprint \w{8}\), not with this mini "
            r"\(\w{8}\): use that encoder and version, or name another output\n",
            other.stderr,
        )

    def test_it_says_what_was_done_and_what_failed(self, many: Path, tmp_path: Path) -> None:
        done = command("embed", many, tmp_path / "out", "--encoder", "colour", "--shard-size", "20")
        assert done.returncode == 0
        assert done.stdout.startswith(
            f"30 of 31 photos now have a vector, in 2 shards in {tmp_path / 'out'}: "
        )
        assert "to start the cluster and" in done.stderr
        assert "1 files have no vector" in done.stderr
        again = command("embed", many, tmp_path / "out", "--encoder", "colour")
        assert (again.returncode, again.stdout) == (
            0,
            f"all 2 shards of 31 photos are in {tmp_path / 'out'} already\n",
        )

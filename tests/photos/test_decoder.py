"""One way to a picture, wherever a stranger's file is opened: a decoder that crashes or hangs fails
its photo alone, and at worst ends one run.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from helpers.bad_decoders import (
    CRASHES,
    CRASHES_LATER,
    HANGS,
    bad_photo,
    install,
    install_in_children,
)
from helpers.collections import content, counts
from helpers.odd_files import encoded, picture
from helpers.paths import ROOT
from helpers.photos import paint, shade
from vitsearch import Collection, PhotoError, Progress, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos import PhotoDecoder, decoder, isolated, prefetch_map, read_photo
from vitsearch.photos.decode import decode
from vitsearch.photos.decoder import NAME, RECORD, DecodeJournal
from vitsearch.photos.formats import FORMATS

CRASHED = f"the decoder crashed (signal {int(signal.SIGSEGV)})"


@pytest.fixture(autouse=True)
def _bad_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_in_children(monkeypatch, tmp_path / "site")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad decoders in this process too, and little patience with them."""
    from PIL import JpegImagePlugin, TiffImagePlugin

    for reader in (JpegImagePlugin.JpegImageFile, TiffImagePlugin.TiffImageFile):
        monkeypatch.setattr(reader, "load", reader.load)
    install()
    monkeypatch.setattr(decoder, "PATIENCE", 0.3)
    monkeypatch.setattr(isolated, "PATIENCE", 0.3)
    monkeypatch.setattr(decoder, "LIMIT", 1.0)


def failures(photos: Path) -> dict[str, str]:
    with Collection.open(photos, encoder=ColourEncoder()) as found:
        return {one.path: one.reason for one in found.failures()}


def started(photos: Path, *options: str, code: str = "pass") -> subprocess.Popen[bytes]:
    """The command line at work on a folder, in a session of its own."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from vitsearch.cli import main\n{code}\nmain()"
    )
    command = [sys.executable, "-c", program, "index", str(photos), "--encoder", "colour"]
    return subprocess.Popen(
        [*command, "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def indexed(photos: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report and remarks of one run of the command line."""
    with started(photos, *options) as run:
        out, err = run.communicate(timeout=120)
    return run.returncode, json.loads(out or b"{}"), err.decode()


@pytest.mark.slow
def test_a_crash_loses_no_stored_batch_and_costs_one_run(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(40):
        paint(photos / f"{number:02}.png", shade(number))
    (photos / "30.jpg").write_bytes(bad_photo(CRASHES_LATER))  # the 32nd
    code, _, said = indexed(photos, "--batch-size", "8")
    assert code == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in said
    assert len(content(photos)) == 24  # the batches before the one that the bad photo is in
    code, report, said = indexed(photos, "--batch-size", "8")
    assert (code, report["indexed"], report["unchanged"], report["failed"]) == (0, 16, 24, 1)
    assert "the last run ended while it decoded " in said
    assert "30.jpg" in said
    assert failures(photos) == {"30.jpg": CRASHED}
    # nor does it crash the run that tries it again
    code, report, said = indexed(photos, "--retry")
    assert (code, report["unchanged"], report["failed"]) == (0, 40, 1)
    assert "the last run ended" not in said
    (photos / "30.jpg").unlink()
    (photos / "new.png").write_bytes(encoded(picture(1), "PNG"))
    assert counts(index_folder(photos)) == {"indexed": 1, "unchanged": 40}


@pytest.mark.slow
def test_a_photo_that_hangs_is_named_moved_to_a_child_and_fails_alone(
    photos: Path, impatient: None, remarks: list[str]
) -> None:
    (photos / "bad.jpg").write_bytes(bad_photo(HANGS))
    report = index_folder(photos, encoder=ColourEncoder(), workers=1, batch_size=2)
    assert counts(report) == {"indexed": 4, "failed": 1}
    assert failures(photos) == {"bad.jpg": "decoding took longer than 1 s"}
    assert remarks == [
        "bad.jpg takes longer than 0.3 s to decode: unless it is done within 1 s more, in a "
        "process of its own, it fails alone (--decode-timeout SECONDS sets another limit)"
    ]
    # the next run knows it, and has no patience with it
    report = index_folder(photos, encoder=ColourEncoder(), retry=True)
    assert counts(report) == {"unchanged": 4, "failed": 1}
    assert len(remarks) == 1


def test_batches_are_stored_while_a_photo_hangs(photos: Path, impatient: None) -> None:
    (photos / "z.jpg").write_bytes(bad_photo(HANGS))
    encoder = ColourEncoder()
    with pytest.raises(KeyboardInterrupt):
        index_folder(photos, encoder=encoder, batch_size=4, progress=Interrupts(photos))
    assert len(content(photos)) == 4


class Interrupts:
    """Ctrl-C while the last photo hangs, once the database holds the others."""

    def __init__(self, photos: Path) -> None:
        self.photos = photos

    def __call__(self, step: Progress) -> None:
        if step.stage == "embedding" and step.done == 0:
            threading.Thread(target=self.interrupt).start()

    def interrupt(self) -> None:
        import _thread
        import sqlite3

        database = self.photos / ".vitsearch" / "photos.db"
        end = time.monotonic() + 30
        count = 0
        while count < 4 and time.monotonic() < end:
            with closing(sqlite3.connect(database)) as connection:
                (count,) = connection.execute("select count(*) from photos").fetchone()
            time.sleep(0.01)
        _thread.interrupt_main()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["z.jpg", "z.tif"])
def test_ctrl_c_ends_a_run_with_a_decoder_that_hangs(photos: Path, file: str) -> None:
    (photos / file).write_bytes(bad_photo(HANGS, "JPEG" if file == "z.jpg" else "TIFF"))
    with started(photos, "--batch-size", "4") as run:
        wait_for_photos(photos, 4)
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=120)
    assert run.returncode == 130
    assert said.decode().splitlines()[-1] == (
        "vitsearch: stopped; what was stored is kept, run the same command to go on"
    )
    assert not (photos / ".vitsearch" / NAME).exists()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(photos: Path) -> None:
    hangs = (
        "import threading, time\nfrom vitsearch.encoders.colour import ColourEncoder\n"
        "def hang(*_, prepare=ColourEncoder.prepare):\n"
        "    if threading.current_thread() is threading.main_thread(): return prepare(*_)\n"
        "    print('hangs', flush=True)\n    time.sleep(600)\n"
        "ColourEncoder.prepare = hang"
    )
    index_folder(photos, encoder=ColourEncoder())
    paint(photos / "new.png", shade(1))
    with started(photos, code=hangs) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"hangs\n"
        os.killpg(run.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(timeout=1)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=120) == 130
    assert len(content(photos)) == 4


def wait_for_photos(photos: Path, count: int) -> None:
    import sqlite3

    database = photos / ".vitsearch" / "photos.db"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if database.exists():
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                with_table = connection.execute(
                    "select count(*) from sqlite_master where name = 'photos'"
                ).fetchone()[0]
                if (
                    with_table
                    and count == connection.execute("select count(*) from photos").fetchone()[0]
                ):
                    return
        time.sleep(0.02)
    raise AssertionError(f"there were never {count} photos")


class TestOtherFormats:
    """What browsers do not read is decoded in a child at once."""

    def test_which_formats_are_trusted(self) -> None:
        assert [each.name for each in FORMATS if each.trusted] == ["JPEG", "PNG", "WebP"]

    @pytest.mark.slow
    def test_a_crash_fails_the_photo_alone(self, photos: Path) -> None:
        (photos / "bad.tif").write_bytes(bad_photo(CRASHES, "TIFF"))
        (photos / "good.tif").write_bytes(encoded(picture(1), "TIFF"))
        assert counts(index_folder(photos, encoder=ColourEncoder())) == {"indexed": 5, "failed": 1}
        assert failures(photos) == {"bad.tif": CRASHED}

    @pytest.mark.slow
    def test_a_slow_one_is_named(self, photos: Path, impatient: None, remarks: list[str]) -> None:
        (photos / "bad.tif").write_bytes(bad_photo(HANGS, "TIFF"))
        assert counts(index_folder(photos, encoder=ColourEncoder())) == {"indexed": 4, "failed": 1}
        assert failures(photos) == {"bad.tif": "decoding took longer than 1 s"}
        # on a busy machine a good photo may be late too
        assert [
            line.partition(" to decode")[0] for line in remarks if line.startswith("bad.tif")
        ] == ["bad.tif takes longer than 0.3 s"]

    def test_where_no_process_can_be_started_they_are_decoded_here(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (photos / "good.tif").write_bytes(encoded(picture(1), "TIFF"))
        for program in ("/no such program", "/bin/false"):
            monkeypatch.setattr(sys, "executable", program)
            assert read_photo(photos / "good.tif").image.size == (96, 64)
        assert counts(index_folder(photos, encoder=ColourEncoder())) == {"indexed": 5}


class TestEveryWay:
    """A TIFF whose decoder crashes is an error of one line, where it used to end the process."""

    @pytest.fixture
    def bad(self, tmp_path: Path) -> Path:
        file = tmp_path / "bad.tif"
        file.write_bytes(bad_photo(CRASHES, "TIFF"))
        return file

    @pytest.mark.slow
    def test_search_by_photo_and_explain(self, photos: Path, bad: Path) -> None:
        index_folder(photos, encoder=ColourEncoder())
        with Collection.open(photos, encoder=ColourEncoder()) as found:
            with pytest.raises(PhotoError, match=r"crashed \(signal 11\)"):
                found.similar(bad)
            with pytest.raises(PhotoError, match=r"crashed \(signal 11\)"):
                found.explain(bad)

    @pytest.mark.slow
    def test_contact_sheets(self, photos: Path, bad: Path) -> None:
        from vitsearch.outputs.pictures import small_pictures

        [problem] = small_pictures([bad.name], root=bad.parent, photos={}, side=100)
        assert str(problem) == CRASHED

    @pytest.mark.slow
    def test_import(
        self, photos: Path, bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("pyarrow")
        from vitsearch.interop import import_shards

        bad.rename(photos / "bad.tif")
        with monkeypatch.context() as patch:
            patch.delenv("PYTHONPATH")
            index_folder(photos, encoder=ColourEncoder())
        with Collection.open(photos, encoder=ColourEncoder()) as found:
            found.export(tmp_path / "shards", "shards")
        report = import_shards(
            tmp_path / "shards", photos, collection=tmp_path / "new", encoder=ColourEncoder()
        )
        assert (report.imported, report.unreadable) == (4, 1)

    def test_training_photos(self, bad: Path) -> None:
        from vitsearch.classifiers.finetune.settings import Example, open_example

        with PhotoDecoder() as opened, pytest.raises(PhotoError, match="bad.tif: the decoder cr"):
            open_example(bad.parent, Example(bad.name, 0), opened)

    @pytest.mark.slow
    def test_classify(self, photos: Path, bad: Path, tmp_path: Path) -> None:
        from helpers.classifiers import save_classifier
        from vitsearch import load_classifier

        save_classifier(tmp_path / "model")
        model = load_classifier(f"local-dir:{tmp_path / 'model'}", device="cpu")
        found = dict(model.stream([photos / "red.png", bad]))
        labels = found[str(photos / "red.png")]
        assert isinstance(labels, list)
        assert len(labels) == 5
        assert str(found[str(bad)]) == CRASHED

    @pytest.mark.slow
    def test_embedding_on_a_cluster(self, bad: Path) -> None:
        pytest.importorskip("pyarrow")
        from vitsearch.cluster import tasks

        job: Any = type("Job", (), {"exact": True, "max_pixels": 10**6, "colours": "srgb"})
        entry: Any = type("Entry", (), {"path": bad.name})
        with PhotoDecoder() as opened, pytest.raises(PhotoError, match="crashed"):
            tasks._loaded(entry, bad.read_bytes(), job, opened)


def test_only_the_decoder_and_its_child_decode_a_file() -> None:
    raw = "from vitsearch.photos.decode import"
    users = [
        file.relative_to(ROOT).as_posix()
        for file in sorted((ROOT / "vitsearch").rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith(raw) and "decode" in line.removeprefix(raw).replace(",", " ").split()
    ]
    assert users == ["vitsearch/photos/child.py", "vitsearch/photos/isolated.py"]


class TestJournal:
    CONTENT = bytes(range(16))

    def died(self, folder: Path) -> None:
        """Leave what a process leaves that dies while it decodes a.jpg."""
        with DecodeJournal(folder).entry(self.CONTENT, "a.jpg"):
            left = (folder / NAME).read_bytes()
        (folder / NAME).write_bytes(left)

    def test_what_is_in_hand_when_the_process_dies(self, tmp_path: Path) -> None:
        journal = DecodeJournal(tmp_path)
        with journal.entry(b"0" * 16, "done.jpg"):
            pass
        with (
            journal.entry(self.CONTENT, "a\udcff.jpg"),
            journal.entry(self.CONTENT, "x" * 600 + ".jpg"),
        ):
            left = DecodeJournal(tmp_path)
            assert (tmp_path / NAME).stat().st_size == 2 * RECORD
        assert [name[-6:] for name in left.left_in_hand] == ["a\udcff.jpg", "xx.jpg"]
        assert self.CONTENT in left
        assert b"0" * 16 not in left

    def test_it_outlives_a_run_that_did_not_meet_the_photo(self, tmp_path: Path) -> None:
        self.died(tmp_path)
        with (
            suppress(KeyboardInterrupt),
            DecodeJournal(tmp_path) as journal,
            journal.entry(b"1" * 16, "b.jpg"),
        ):
            assert DecodeJournal(tmp_path).left_in_hand == ["a.jpg", "b.jpg"]
            raise KeyboardInterrupt
        with DecodeJournal(tmp_path) as journal:
            assert journal.left_in_hand == ["a.jpg"]
        assert not (tmp_path / NAME).exists()

    def test_a_bad_photo_is_remembered_until_it_can_be_decoded(self, tmp_path: Path) -> None:
        with DecodeJournal(tmp_path) as journal:
            journal.keep(self.CONTENT, "a.jpg")
            assert self.CONTENT in DecodeJournal(tmp_path)
        with DecodeJournal(tmp_path) as journal:
            assert (journal.left_in_hand, self.CONTENT in journal) == ([], True)
            journal.forget(self.CONTENT)
        assert not (tmp_path / NAME).exists()

    @pytest.mark.parametrize("junk", [b"", b"h", b"h" * 2000, b"\0" * 5000, os.urandom(3000)])
    def test_junk_is_as_good_as_none(self, tmp_path: Path, junk: bytes) -> None:
        (tmp_path / NAME).write_bytes(junk)
        with DecodeJournal(tmp_path) as journal, journal.entry(self.CONTENT, "a.jpg"):
            assert "a.jpg" in DecodeJournal(tmp_path).left_in_hand
        with DecodeJournal(tmp_path):
            pass
        assert not (tmp_path / NAME).exists()

    def test_where_it_cannot_be_written_photos_are_decoded_all_the_same(
        self, tmp_path: Path
    ) -> None:
        data = encoded(picture(1), "JPEG")
        with (
            DecodeJournal(tmp_path / "not there") as journal,
            PhotoDecoder(journal=journal) as opened,
        ):
            assert opened.decode(data, name="a.jpg", fingerprint=self.CONTENT)[0].size == (96, 64)

    @pytest.mark.slow
    def test_a_suspect_that_can_be_decoded_is_forgotten(self, tmp_path: Path) -> None:
        data = encoded(picture(1), "JPEG")
        self.died(tmp_path)
        with (
            suppress(KeyboardInterrupt),
            DecodeJournal(tmp_path) as journal,
            PhotoDecoder(journal=journal) as opened,
        ):
            image, info = opened.decode(data, name="a.jpg", fingerprint=self.CONTENT)
            assert (image.tobytes(), info) == (decode(data)[0].tobytes(), decode(data)[1])
            raise KeyboardInterrupt
        assert not (tmp_path / NAME).exists()


def test_a_decoder_that_is_closed_lets_its_callers_go(impatient: None) -> None:
    opened = PhotoDecoder()
    reasons: list[str] = []

    def call() -> None:
        with pytest.raises(PhotoError) as raised:
            opened.decode(bad_photo(HANGS))
        reasons.append(str(raised.value))

    caller = threading.Thread(target=call)
    caller.start()
    time.sleep(0.1)
    opened.close()
    caller.join(timeout=120)
    assert reasons == ["the run was stopped before it was decoded"]


def test_the_consumer_of_a_map_may_work_while_it_waits() -> None:
    free = threading.Event()
    results = prefetch_map(
        lambda item: free.wait(60) and item, [1], workers=1, buffer=1, meanwhile=free.set
    )
    assert list(results) == [1]

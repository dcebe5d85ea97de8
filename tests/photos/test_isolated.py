"""Decoding in child processes: a photo that takes too long or crashes its decoder fails alone,
every other is as decoded in threads.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.cli import environment, one_line, vitsearch
from helpers.collections import content, counts
from helpers.libraries import HEAVY
from helpers.odd_files import (
    bad_contents,
    encoded,
    good_contents,
    make_odd_files,
    oriented,
    picture,
)
from helpers.photos import paint, shade
from vitsearch import (
    Collection,
    CollectionError,
    PhotoError,
    Progress,
    VitsearchError,
    index_folder,
)
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos import PhotoDecoder, prefetch_map
from vitsearch.photos.decode import decode

GENEROUS = 60.0
LIMIT = 0.4


def slow_jpeg(scans: int) -> bytes:
    """A small JPEG of 9 megapixels whose last, empty scan comes so many times: each takes some
    milliseconds.
    """
    whole = encoded(Image.new("RGB", (3000, 3000), "red"), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


SLOW, ENDLESS = slow_jpeg(250), slow_jpeg(40_000)


@pytest.fixture(scope="class")
def children() -> Iterator[PhotoDecoder]:
    decoders = PhotoDecoder(GENEROUS)
    yield decoders
    decoders.close()


def decoders(cwd: Path | None = None) -> list[psutil.Process]:
    """The processes that decode for this one, or those of anyone that were started in a folder."""
    around = psutil.Process().children() if cwd is None else psutil.process_iter()
    return [process for process in around if decodes(process, cwd)]


def decodes(process: psutil.Process, cwd: Path | None) -> bool:
    with suppress(psutil.Error):
        alive = process.status() != psutil.STATUS_ZOMBIE and any(
            "vitsearch.photos.child" in word for word in process.cmdline()
        )
        return alive and (cwd is None or process.cwd() == str(cwd))
    return False


def busy_decoders(cwd: Path | None = None) -> list[psutil.Process]:
    """Those that have worked for longer than it takes to start."""
    return [process for process in decoders(cwd) if process.cpu_times().user > 0.5]


def at_work(cwd: Path | None = None) -> psutil.Process:
    """Wait for a decoder to be at work, and return it."""
    assert waited_for(lambda: busy_decoders(cwd) != [])
    return busy_decoders(cwd)[0]


def frame(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">IQ", len(header), len(body)) + header + body


def waited_for(fact: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether a fact comes true within so many seconds."""
    end = time.monotonic() + seconds
    while not fact() and time.monotonic() < end:
        time.sleep(0.01)
    return fact()


def outcome(decoder: Callable[..., Any], data: bytes, **options: Any) -> Any:
    """The pixels and the facts of a photo, or why there are none."""
    try:
        image, info = decoder(data, **options)
    except PhotoError as error:
        return str(error)
    return image.mode, image.size, image.tobytes(), info


def in_collection(photos: Path, collection: Path | None = None) -> tuple[list[Any], list[Any]]:
    """The stored facts of every photo, and the failures."""
    with Collection.open(photos, collection=collection, encoder=ColourEncoder()) as found:
        return [
            (photo.path, photo.fingerprint, photo.info) for photo in found.photos()
        ], found.failures()


def failures(photos: Path) -> dict[str, str]:
    return {one.path: one.reason for one in in_collection(photos)[1]}


class TestTheSameAsInThreads:
    @pytest.mark.parametrize("name", [*good_contents(), *bad_contents()])
    def test_every_kind_of_file(self, children: PhotoDecoder, name: str) -> None:
        data = (good_contents() | bad_contents())[name]
        assert outcome(children.decode, data) == outcome(decode, data)

    def test_the_facts_of_a_photo_with_exif_and_its_reduced_size(
        self, children: PhotoDecoder
    ) -> None:
        exif = Image.Exif()
        exif[0x0112], exif[0x010F], exif[0x0110], exif[0x0132] = (
            6,
            "Müller",
            "Föto 3",
            "2019:07:14 10:11:12",
        )
        exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 31.5), 3: "E", 4: (151.0, 12.0, 40.1)})
        data = encoded(picture(1, (1600, 1200)), "JPEG", exif=exif)
        image, info = children.decode(data, at_least=256)
        assert (image.size, info.width, info.height, info["taken_at"]) == (
            (300, 400),
            1200,
            1600,
            "2019-07-14T10:11:12",
        )
        assert None not in (info["camera"], info["latitude"], info["longitude"])
        assert outcome(children.decode, data, at_least=256) == outcome(decode, data, at_least=256)

    @pytest.mark.slow
    @settings(deadline=None, max_examples=50)
    @given(
        seed=st.integers(0, 1000),
        size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
        turn=st.integers(1, 8),
        way=st.sampled_from(
            [
                ("JPEG", "RGB"),
                ("JPEG", "L"),
                ("PNG", "RGBA"),
                ("PNG", "I;16"),
                ("WEBP", "RGBA"),
                ("GIF", "P"),
                ("TIFF", "RGB"),
            ]
        ),
        at_least=st.one_of(st.none(), st.integers(1, 100)),
        cut=st.floats(0, 1),
    )
    def test_any_picture_whole_or_cut(self, children: PhotoDecoder, **drawn: Any) -> None:
        kind, mode = drawn["way"]
        image = picture(drawn["seed"], drawn["size"])
        image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
        data = encoded(image, kind) if kind == "GIF" else oriented(image, drawn["turn"], kind)
        data = data[: round(len(data) * (1 - drawn["cut"] ** 8))]
        options = {"at_least": drawn["at_least"], "max_pixels": 30_000}
        assert outcome(children.decode, data, **options) == outcome(decode, data, **options)

    @pytest.mark.slow
    def test_from_many_threads_at_once(self, children: PhotoDecoder) -> None:
        pictures = [encoded(picture(seed), "PNG") for seed in range(40)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda data: outcome(children.decode, data), pictures))
        assert found == [outcome(decode, data) for data in pictures]


@pytest.mark.slow
def test_a_folder_of_odd_files_is_indexed_as_in_threads(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    make_odd_files(photos)
    runs = []
    for name, limit in (("threads", None), ("children", GENEROUS), ("again", GENEROUS)):
        folder = tmp_path / name
        report = index_folder(
            photos, collection=folder, encoder=ColourEncoder(), decode_timeout=limit, workers=3
        )
        runs.append(
            (counts(report), content(photos, collection=folder), in_collection(photos, folder))
        )
    assert runs[0] == runs[1] == runs[2]
    assert decoders() == []


@pytest.fixture
def with_slow(photos: Path) -> Path:
    """The four photos, with one among them that takes far longer than LIMIT to decode."""
    (photos / "slow.jpg").write_bytes(SLOW)
    return photos


class TestTheLimit:
    @pytest.mark.slow
    def test_a_slow_photo_fails_alone_and_a_larger_limit_indexes_it(
        self, with_slow: Path, tmp_path: Path
    ) -> None:
        where = ("index", with_slow, "--encoder", "colour", "--batch-size", "1", "--json")
        report = vitsearch(*where, "--decode-timeout", str(LIMIT), cwd=tmp_path)
        assert (
            report.returncode,
            json.loads(report.stdout)["indexed"],
            json.loads(report.stdout)["failed"],
        ) == (0, 4, 1)
        listed = vitsearch("failures", with_slow)
        assert listed.stdout == b"failed\tslow.jpg\tdecoding took longer than 0.4 s\n"
        again = vitsearch(*where, "--decode-timeout", "60", "--retry", cwd=tmp_path)
        assert (json.loads(again.stdout)["indexed"], json.loads(again.stdout)["unchanged"]) == (
            1,
            4,
        )
        index_folder(with_slow, collection=tmp_path / "threads", encoder=ColourEncoder())
        assert content(with_slow) == content(with_slow, collection=tmp_path / "threads")
        assert decoders(tmp_path) == []

    @pytest.mark.parametrize("workers", [1, 4])
    @pytest.mark.slow
    def test_a_photo_that_is_never_done_costs_no_other(self, photos: Path, workers: int) -> None:
        for number in range(3):
            (photos / f"{number}.jpg").write_bytes(ENDLESS)
            paint(photos / f"{number}.png", shade(number))
        for retry in (False, True):
            report = index_folder(
                photos,
                encoder=ColourEncoder(),
                decode_timeout=LIMIT,
                workers=workers,
                batch_size=2,
                retry=retry,
            )
            assert (report.total, report.failed) == (7, 3)
            assert failures(photos) == dict.fromkeys(
                ("0.jpg", "1.jpg", "2.jpg"), "decoding took longer than 0.4 s"
            )
            assert decoders() == []

    def test_the_start_of_a_process_does_not_count(self) -> None:
        with closing(
            PhotoDecoder(0.15)
        ) as children:  # Python does not start and import NumPy in this time
            assert outcome(children.decode, encoded(picture(), "PNG")) == outcome(
                decode, encoded(picture(), "PNG")
            )

    def test_a_limit_beyond_every_clock(self) -> None:
        with closing(PhotoDecoder(1e300)) as children:
            assert children.decode(encoded(picture(), "PNG"))[0].size == (96, 64)

    @pytest.mark.parametrize("limit", [0, -1.5, float("nan"), float("inf"), "10"])
    def test_no_limit_of_time_is_refused(self, photos: Path, limit: Any, capfd: Any) -> None:
        with pytest.raises(
            CollectionError, match=f"a finite number of seconds above 0, got {limit!r}$"
        ):
            index_folder(photos, encoder=ColourEncoder(), decode_timeout=limit)
        if limit != "10":
            line = one_line(capfd, "index", photos, "--decode-timeout", limit, code=2)
            assert (
                f"'--decode-timeout': {float(limit)} is not a finite number of seconds above 0"
                in line
            )
        assert not (photos / ".vitsearch").exists()

    def test_without_a_limit_no_process_is_started(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", "/no such program")
        assert index_folder(photos, encoder=ColourEncoder()).indexed == 4


class TestCrashes:
    @pytest.mark.parametrize("sign", [signal.SIGSEGV, signal.SIGKILL])
    @pytest.mark.slow
    def test_a_decoder_that_is_killed_fails_its_photo_alone(
        self, photos: Path, sign: signal.Signals
    ) -> None:
        (photos / "slow.jpg").write_bytes(ENDLESS)
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(
                index_folder, photos, encoder=ColourEncoder(), decode_timeout=GENEROUS, workers=1
            )
            os.kill(at_work().pid, sign)
            assert counts(run.result()) == {"indexed": 4, "failed": 1}
        assert failures(photos) == {"slow.jpg": f"the decoder crashed (signal {int(sign)})"}
        assert decoders() == []

    @pytest.mark.slow
    def test_one_that_died_while_it_waited_is_replaced(self) -> None:
        data = encoded(picture(), "PNG")
        with closing(PhotoDecoder(GENEROUS)) as children:
            for _ in range(3):
                assert outcome(children.decode, data) == outcome(decode, data)
                (child,) = decoders()
                child.kill()
                os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    @pytest.mark.slow
    def test_one_that_cannot_be_started_stops_the_run(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        says = (
            r"^cannot start a process that decodes photos \({}\): index without a limit of the "
            r"time for decoding$"
        )
        for program, reason in (
            ("/no such program", "No such file or directory"),
            ("/bin/false", r"it crashed \(exit code 1\)"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(sys, "executable", program)
                with pytest.raises(VitsearchError, match=says.format(reason)):
                    index_folder(photos, encoder=ColourEncoder(), decode_timeout=GENEROUS)
        assert counts(index_folder(photos, encoder=ColourEncoder(), decode_timeout=GENEROUS)) == {
            "indexed": 4
        }

    @pytest.mark.parametrize(
        "answer",
        [
            b"not a frame at all",
            frame(b"not JSON"),
            frame(b"\xff"),
            frame(b"[" * 60_000),
            frame(b"[]"),
            frame(b"{}"),
            frame(b'{"size": 3, "info": {}}'),
            frame(b'{"size": [1, 1], "info": {}}', b"abc"),
            frame(b'{"size": [2, 2], "info": {"width": 2, "height": 2}}', b"abc"),
            frame(b'{"size": [-1, -1], "info": {"width": 2, "height": 2}}', b"abc"),
            struct.pack(">IQ", 2**31, 0),
            struct.pack(">IQ", 2, 2**63) + b"{}",
        ],
    )
    def test_an_answer_that_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
    ) -> None:
        program = tmp_path / "decoder"
        said = frame(b"{}") + answer
        program.write_text(
            f"#!{sys.executable}\nimport "
            f"sys\nsys.stdout.buffer.write({said!r})\nsys.stdout.flush()\nsys.stdin.read()\n"
        )
        program.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(program))
        with closing(PhotoDecoder(GENEROUS)) as children:
            assert (
                outcome(children.decode, encoded(picture(), "PNG"))
                == "the decoder gave no answer that can be read"
            )


class TestTheEnd:
    @pytest.mark.slow
    def test_closing_stops_what_is_being_decoded_and_starts_nothing(self) -> None:
        children = PhotoDecoder(GENEROUS)
        with ThreadPoolExecutor(2) as pool:
            slow = [pool.submit(outcome, children.decode, ENDLESS) for _ in range(2)]
            assert waited_for(lambda: len(busy_decoders()) == 2)
            children.close()
            assert [one.result() for one in slow] == ["the decoder crashed (signal 9)"] * 2
        assert outcome(children.decode, SLOW) == "the run was stopped before it was decoded"
        assert decoders() == []

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    @pytest.mark.slow
    def test_a_run_that_is_stopped_leaves_none_and_keeps_what_it_stored(
        self, photos: Path, error: type[BaseException]
    ) -> None:
        (photos / "z.jpg").write_bytes(ENDLESS)

        def progress(step: Progress) -> None:
            if step.stage == "embedding" and step.done >= 2:
                at_work()
                raise error

        with pytest.raises(error):
            index_folder(
                photos,
                encoder=ColourEncoder(),
                decode_timeout=GENEROUS,
                batch_size=1,
                workers=2,
                progress=progress,
            )
        assert decoders() == []
        assert list(content(photos))[:2] == ["green.png", "red.png"]
        assert "z.jpg" not in content(photos)

    @pytest.mark.slow
    def test_ctrl_c_at_the_terminal(self, photos: Path, tmp_path: Path) -> None:
        with running(photos, tmp_path, "60") as run:
            os.killpg(run.pid, signal.SIGINT)
            assert run.wait(timeout=120) == 130
            assert run.stderr.read().endswith(
                b"vitsearch: stopped; what was stored is kept, run the same command to go on\n"
            )
        assert decoders(tmp_path) == []

    @pytest.mark.slow
    def test_a_run_that_is_killed_leaves_none_that_goes_on_past_the_limit(
        self, photos: Path, tmp_path: Path
    ) -> None:
        with running(photos, tmp_path, "5") as run:
            run.kill()
            run.wait(timeout=120)
        assert waited_for(lambda: decoders(tmp_path) == [])


@pytest.mark.parametrize(("taken", "stopped"), [(1, 1), (5, 0)])
def test_a_map_that_is_left_early_stops_what_its_threads_are_at(taken: int, stopped: int) -> None:
    free, stops = threading.Event(), list[int]()

    def stop() -> None:
        stops.append(1)
        free.set()

    def function(item: int) -> int:
        return item if item == 0 or taken == 5 or free.wait(60) else -1

    results = prefetch_map(function, range(5), workers=2, buffer=3, on_stop=stop)
    assert [next(results) for _ in range(taken)] == list(range(taken))
    assert list(results) == [] if taken == 5 else results.close() is None  # type: ignore[attr-defined]
    assert len(stops) == stopped


@contextmanager
def running(photos: Path, cwd: Path, limit: str) -> Iterator[Any]:
    """The command line in a session of its own, at work on a photo that is never done."""
    (photos / "z.jpg").write_bytes(ENDLESS)
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from "
        "vitsearch.cli import main; main()"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "index",
        str(photos),
        "--encoder",
        "colour",
        "--decode-timeout",
        limit,
    ]
    with subprocess.Popen(
        command, cwd=cwd, env=environment(), stderr=subprocess.PIPE, start_new_session=True
    ) as run:
        try:
            at_work(cwd)
            yield run
        finally:
            run.kill()


@pytest.mark.slow
def test_a_child_loads_nothing_heavy_and_ends_with_its_input() -> None:
    code = (
        "import sys; from vitsearch.photos.child import serve; serve(); sys.stderr.write(' "
        "'.join(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        input=b"",
        capture_output=True,
        env=environment(),
        timeout=60,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in ended.stderr.decode().split()}
    assert {"vitsearch", "PIL"} <= loaded
    assert sorted({*HEAVY, "numpy", "click", "tqdm", "tokenizers", "safetensors"} & loaded) == []
    assert ended.stdout == frame(b"{}")

"""Several devices, a process on each, with two virtual ones on the CPU: the same vectors and the
same collections; what happens where memory runs out, a process dies, or a run is stopped.
"""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from helpers.cli import environment, one_line, vitsearch
from helpers.photos import paint, shade
from vitsearch import Collection, IndexReport, Progress, index_folder, load_encoder
from vitsearch.encoders import devices
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.devices import device_names, receive, send, shapes_of, unpacked
from vitsearch.encoders.onnx import usable_cores
from vitsearch.errors import EncoderError

TWO = "cpu,cpu"
LAB = '''
import logging, os, time
import numpy as np
from vitsearch.encoders import Encoder, ImageEncoder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import EncoderError


class Lab(ColourEncoder):
    """colour, with what can go wrong on a device."""

    def __init__(self, kind, device):
        self.name, self.kind, self.device = f"lab:{kind}", kind, device

    def note(self, what):
        if "LAB_NOTES" in os.environ:
            with open(os.environ["LAB_NOTES"], "a") as notes:
                notes.write(f"{os.getpid()} {what}\\n")

    def encode_prepared(self, batch):
        self.note(f"threads {os.environ['OMP_NUM_THREADS']}")
        if self.kind == "slow":
            time.sleep(0.2)
        if self.kind == "chatty":
            print("a library prints", flush=True)
            logging.getLogger("vitsearch").warning("the tower runs uncompiled")
        if self.kind == "small" and (len(batch) > 3 or any(each.mean() > 250 for each in batch)):
            raise MemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.kind == "faulty":
            raise RuntimeError("CUDA error:\\nan illegal memory access")
        return super().encode_prepared(batch)

    def tune(self, batch_size):
        self.note(f"tunes for {batch_size}")


class Silent(ImageEncoder):
    """The same without words."""

    def __init__(self, device):
        self.lab = Lab("silent", device)
        self.name, self.dim, self.fingerprint = self.lab.name, self.lab.dim, self.lab.fingerprint

    def prepare(self, image):
        return self.lab.prepare(image)

    def encode_prepared(self, batch):
        return self.lab.encode_prepared(batch)


def load(model, device, dtype):
    if device == "cpu:9":
        raise EncoderError(f"device {device!r} cannot be used here")
    if device == "cpu:8":
        os._exit(7)
    return Silent(device) if model == "silent" else Lab(model, device)
'''


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders ``lab:...`` of an installed package."""
    info = tmp_path / "site" / "lab-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vitsearch.encoders]\nlab = lab_encoders:load\n")
    (tmp_path / "site" / "lab_encoders.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("LAB_NOTES", str(tmp_path / "notes"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 photos of different colours."""
    for number in range(60):
        paint(tmp_path / "photos" / f"{number:03}.png", shade(number), shade(number + 7))
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    assert waited_for(lambda: processes() == [], 10)


def files(photos: Path) -> list[Path]:
    return sorted(photos.glob("*.png"))


def notes(tmp_path: Path) -> list[tuple[int, str]]:
    lines = (tmp_path / "notes").read_text().splitlines()
    return [(int(line.partition(" ")[0]), line.partition(" ")[2]) for line in lines]


def processes(parent: int | None = None) -> list[psutil.Process]:
    """The processes of devices that this one, or another, has started."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(parent).children()
        return [child for child in children if encodes(child)]
    return []


def encodes(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        words = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and "device_process" in words
    return False


def waited_for(fact: Callable[[], bool], seconds: float = 120) -> bool:
    """Whether a fact comes true within so many seconds."""
    end = time.monotonic() + seconds
    while not fact() and time.monotonic() < end:
        time.sleep(0.02)
    return fact()


def content(folder: Path) -> dict[str, bytes]:
    """The vector of every photo of a collection by path."""
    with Collection.open(folder, device="cpu") as collection:
        stored, vectors = collection.vectors()
        return {each.path: row.tobytes() for each, row in zip(stored, vectors, strict=True)}


def counts(report: IndexReport) -> tuple[int, int, int]:
    return report.indexed, report.unchanged, report.failed


# -- the same vectors ------------------------------------------------------------------------------


def test_vectors_identity_and_words_are_those_of_one_device(photos: Path, tmp_path: Path) -> None:
    single, several = (load_encoder("lab:plain", device) for device in ("cpu", TWO))
    assert (several.device, several.parallel_calls) == (TWO, 4)
    for name in ("name", "dim", "fingerprint", "dtype", "decode_at_least", "only_resizes"):
        assert getattr(several, name) == getattr(single, name)
    expected = single.embed(files(photos))
    np.testing.assert_array_equal(several.embed(files(photos), batch_size=5), expected)
    np.testing.assert_array_equal(
        several.encode_texts(["red", "two blue"]), single.encode_texts(["red", "two blue"])
    )
    assert several.encode_prepared([]).shape == several.encode_images([]).shape == (0, single.dim)
    again = pickle.loads(pickle.dumps(several))
    assert again.device == TWO
    np.testing.assert_array_equal(again.embed(photos / "007.png"), expected[7:8])
    share = str(max(1, usable_cores() // 2))
    share = os.environ.get("OMP_NUM_THREADS", share)
    of_children = {each for each in notes(tmp_path) if each[0] != os.getpid()}
    assert {what for _, what in of_children} == {f"threads {share}"}
    assert len({number for number, _ in of_children}) >= 3  # both, and one of `again`


@pytest.mark.slow
def test_an_encoder_that_reads_no_text_still_reads_none(photos: Path) -> None:
    single, several = (load_encoder("lab:silent", device) for device in ("cpu", TWO))
    assert not hasattr(several, "encode_texts")
    np.testing.assert_array_equal(several.embed(files(photos)), single.embed(files(photos)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [{"runtime": "torch", "decode": "device"}, {"runtime": "onnx"}],
    ids=lambda how: how["runtime"],
)
def test_a_model_in_a_folder_gives_the_same_collection(
    photos: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    """With JPEGs, which the first device decodes, and other photos, which the CPU does."""
    pytest.importorskip("open_clip", reason="needs the extra vitsearch[clip]")
    from helpers import tiny_models as tiny

    for number in range(12):
        Image.new("RGB", (64, 48), shade(number)).save(photos / f"{number}.jpg")
    tiny.save_open_clip(tmp_path / "model", tiny.SHALLOW_CONFIG)
    name, stored = f"local-dir:{tmp_path / 'model'}", []
    for number, device in enumerate(("cpu", TWO)):
        folder = tmp_path / f"collection{number}"
        report = index_folder(photos, collection=folder, encoder=name, device=device, **how)
        assert counts(report) == (72, 0, 0)
        with Collection.open(photos, collection=folder, device="cpu") as collection:
            rows = collection.vectors()[1]
            hits = [hit.path for hit in collection.search("a cat", 72)]
        stored.append((collection.config.encoder_fingerprint, rows.tobytes(), hits))
    assert stored[0] == stored[1]


@pytest.mark.slow
def test_a_folder_becomes_the_same_collection_at_the_command_line(
    photos: Path, tmp_path: Path
) -> None:
    for file in files(photos)[16:]:
        file.unlink()
    shown = vitsearch("index", photos, "--encoder", "mini", "--device", TWO)
    assert (shown.returncode, b"16 indexed" in shown.stdout) == (0, True), shown
    several = content(photos)
    index_folder(photos, collection=tmp_path / "other", encoder="mini", device="cpu")
    with Collection.open(photos, collection=tmp_path / "other") as other:
        stored, vectors = other.vectors()
        assert several == {
            each.path: row.tobytes() for each, row in zip(stored, vectors, strict=True)
        }


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.slow
def test_batches_are_halved_where_the_memory_of_a_device_runs_out(photos: Path) -> None:
    paint(photos / "white.png", (255, 255, 255))
    report = index_folder(photos, encoder="lab:small", device=TWO)
    assert counts(report) == (60, 0, 1)
    stored = content(photos)
    with Collection.open(photos) as collection:
        assert [each.reason for each in collection.failures()] == [
            "not enough memory to encode it, even by itself"
        ]
    index_folder(photos, collection=photos.parent / "other", encoder=ColourEncoder())
    with Collection.open(photos, collection=photos.parent / "other") as other:
        paths, vectors = other.vectors()
        expected = {each.path: row.tobytes() for each, row in zip(paths, vectors, strict=True)}
    assert stored == {path: row for path, row in expected.items() if path != "white.png"}


@pytest.mark.slow
def test_a_killed_process_is_named_what_is_stored_stays_and_the_next_run_goes_on(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def progress(step: Progress) -> None:
        if step.stage == "embedding" and step.done >= 8:
            for process in processes()[1:]:
                process.kill()

    with pytest.raises(EncoderError) as error:
        index_folder(photos, encoder="lab:slow", device=TWO, batch_size=2, progress=progress)
    assert str(error.value) == (
        "the process that encodes on device cpu was killed, signal 9: start again, what is stored "
        "stays"
    )
    assert waited_for(lambda: processes() == [])
    stored = content(photos)
    assert 8 <= len(stored) < 60
    report = index_folder(photos, device=TWO)
    assert counts(report) == (60 - len(stored), len(stored), 0)
    index_folder(photos, collection=photos.parent / "other", encoder="lab:plain", device="cpu")
    with Collection.open(photos, collection=photos.parent / "other") as other:
        paths, vectors = other.vectors()
        assert content(photos) == {
            each.path: row.tobytes() for each, row in zip(paths, vectors, strict=True)
        }


@pytest.mark.slow
def test_what_fails_is_said_in_one_line_with_the_device(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = one_line(capfd, "index", photos, "--encoder", "lab:faulty", "--device", TWO)
    assert line == ("vitsearch: RuntimeError: CUDA error: an illegal memory access (on device cpu)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cpu,cpu:9", "device 'cpu:9' cannot be used here (on device cpu:9)"),
        ("cpu:9,cpu", "device 'cpu:9' cannot be used here"),
        (
            "cpu,cpu:8",
            "the process that loads the model for device cpu:8 ended with exit code 7: --device "
            "cpu:8 alone says why",
        ),
        (
            "cpu,",
            "device 'cpu,': name each device, as in cuda:0,cuda:1; cuda:all is every GPU",
        ),
        (
            "cpu,auto",
            "device 'cpu,auto': name each device, as in cuda:0,cuda:1; cuda:all is every GPU",
        ),
    ],
)
def test_a_device_that_is_not_there_is_named_before_any_work(
    photos: Path, capfd: pytest.CaptureFixture[str], device: str, message: str
) -> None:
    line = one_line(capfd, "index", photos, "--encoder", "lab:plain", "--device", device)
    assert line == f"vitsearch: {message}"
    assert not (photos / ".vitsearch").exists()


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_names("auto") == ["auto"]
    assert device_names("cuda:0, cuda:3") == ["cuda:0", "cuda:3"]
    monkeypatch.setattr("vitsearch.index.backends.torch_gpu_count", lambda: 0)
    with pytest.raises(EncoderError, match="'cuda:all' cannot be used here: PyTorch sees no GPU"):
        load_encoder("mini", "cuda:all")
    monkeypatch.setattr("vitsearch.index.backends.torch_gpu_count", lambda: 2)
    assert device_names("cuda:all") == ["cuda:0", "cuda:1"]


def test_several_are_for_indexing_alone(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    index_folder(photos, encoder=ColourEncoder())
    line = "vitsearch: device 'cpu,cpu': only indexing uses several; name one, such as cuda:0"
    for command in (
        ("search", photos, "red"),
        ("serve", photos),
        ("embed", photos, tmp_path / "shards"),
    ):
        assert one_line(capfd, *command, "--device", TWO) == line


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_end_with_the_encoder_and_start_again_for_the_next_picture(photos: Path) -> None:
    encoder = load_encoder("lab:plain", TWO)
    row = encoder.embed(photos / "001.png")
    first = {process.pid for process in processes()}
    encoder.free_image_tower()
    assert processes() == []
    np.testing.assert_array_equal(encoder.embed(photos / "001.png"), row)
    second = {process.pid for process in processes()}
    assert (len(first), len(second), first & second) == (2, 2, set())
    del encoder
    assert processes() == []


@pytest.mark.slow
def test_a_dead_process_is_replaced_once_it_was_given_back(photos: Path) -> None:
    encoder = load_encoder("lab:plain", TWO)
    for process in processes():
        process.kill()
    for _ in range(2):
        with pytest.raises(EncoderError, match="was killed, signal 9"):
            encoder.embed(files(photos))
    encoder.free_image_tower()
    assert encoder.embed(files(photos)).shape == (60, encoder.dim)
    encoder.free_image_tower()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "error"), [("receive", MemoryError), ("send", KeyboardInterrupt)])
def test_a_message_that_is_broken_off_leaves_nobody_waiting(
    photos: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[BaseException]
) -> None:
    encoder = load_encoder("lab:plain", "cpu")
    encoder = devices.on_devices(encoder, ["cpu"], "auto")

    def broken(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(devices, name, broken)
        with pytest.raises((EncoderError, error)):
            # an answer to the first is waited for already
            [encoder.embed(photos / "001.png") for _ in range(2)]
    with pytest.raises(EncoderError, match="start again, what is stored stays"):
        encoder.embed(photos / "001.png")
    encoder.free_image_tower()
    assert encoder.embed(photos / "001.png").shape == (1, encoder.dim)
    encoder.free_image_tower()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_starts_processes_of_its_own(photos: Path) -> None:
    encoder = load_encoder("lab:plain", TWO)
    blue, red = (encoder.encoder.embed(photos / name) for name in ("001.png", "002.png"))  # type: ignore[attr-defined]
    child = os.fork()
    if child == 0:
        rows = [encoder.embed(photos / "001.png") for _ in range(20)]
        encoder.free_image_tower()
        os._exit(0 if all(np.array_equal(row, blue) for row in rows) else 1)
    for _ in range(20):
        np.testing.assert_array_equal(encoder.embed(photos / "002.png"), red)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(processes()) == 2
    encoder.free_image_tower()


@pytest.mark.slow
def test_each_device_tunes(tmp_path: Path) -> None:
    encoder = load_encoder("lab:plain", TWO)
    encoder.tune(48)
    assert [what for _, what in notes(tmp_path)] == ["tunes for 48"] * 2
    assert {number for number, _ in notes(tmp_path)} == {each.pid for each in processes()}
    encoder.free_image_tower()


@pytest.mark.slow
def test_remarks_come_with_the_device_and_prints_do_no_harm(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_encoder("lab:chatty", TWO)
    assert encoder.embed(files(photos), batch_size=60).shape == (60, encoder.dim)
    assert caplog.messages == ["cpu: the tower runs uncompiled"]


@contextmanager
def running(photos: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command line in a session of its own, after it stored some photos."""
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.path.insert(0, {str(photos.parent / 'site')!r}); "
        "from vitsearch.cli import main; main()"
    )
    options = ["--encoder", "lab:slow", "--device", TWO, "--batch-size", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", program, "index", str(photos), *options],
        env=environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as run:
        try:
            assert waited_for(lambda: has_stored(photos, 6))
            yield run
        finally:
            run.kill()


def has_stored(photos: Path, number: int) -> bool:
    with suppress(Exception):
        return len(content(photos)) >= number
    return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sign", ["SIGINT", "SIGKILL"])
def test_a_stopped_run_leaves_no_process_and_the_next_goes_on(photos: Path, sign: str) -> None:
    with running(photos) as run:
        children = processes(run.pid)
        assert len(children) == 2
        if sign == "SIGINT":  # as the terminal does, to all of them
            os.killpg(run.pid, signal.SIGINT)
            assert run.wait(timeout=120) == 130
            assert run.stderr is not None
            assert run.stderr.read().endswith(
                b"vitsearch: stopped; what was stored is kept, run the same command to go on\n"
            )
        else:
            run.kill()
            run.wait(timeout=120)
        assert waited_for(lambda: not any(map(encodes, children)), 30)
    stored = content(photos)
    assert 6 <= len(stored) < 60
    report = index_folder(photos, device=TWO)
    assert counts(report) == (60 - len(stored), len(stored), 0)


# -- messages --------------------------------------------------------------------------------------

numbers = arrays.arrays(
    st.sampled_from([np.uint8, np.float32, np.float16, np.int64]),
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
)


@given(batch=st.lists(numbers, max_size=6))
def test_arrays_of_any_shape_and_numbers_arrive_as_they_were_sent(batch: list[Any]) -> None:
    stream = io.BytesIO()
    batch = [*batch, *(each.T for each in batch)]  # not contiguous
    send(stream, {"shapes": shapes_of(batch)}, batch)
    stream.seek(0)
    header, body = receive(stream)
    received = unpacked(header["shapes"], body)
    assert [(each.dtype, each.shape) for each in received] == [
        (each.dtype, each.shape) for each in batch
    ]
    assert [each.tobytes() for each in received] == [each.tobytes() for each in batch]
    with pytest.raises(EOFError):
        receive(stream)


def test_objects_are_not_sent() -> None:
    with pytest.raises(EncoderError, match="not arrays of numbers: name one device"):
        shapes_of([np.array([{}])])

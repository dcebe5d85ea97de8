"""Indexing in a process of its own: how far it is, how it ends, that it ends with its parent."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from helpers.cli import environment
from helpers.photos import COLOURS, paint, shade
from helpers.web_client import wait_until
from vitsearch import Collection, QueryError
from vitsearch.collection.runs import IndexRunner, RunState, _message
from vitsearch.storage.filesystem import writer_lock

pytestmark = pytest.mark.slow

MANY = 80


@pytest.fixture
def runs(tmp_path: Path) -> IndexRunner:
    for colour in COLOURS:
        paint(tmp_path / f"{colour}.png", colour)
    (tmp_path / "broken.png").write_bytes(b"cut off")
    return IndexRunner(tmp_path, tmp_path / ".vitsearch")


def many(runs: IndexRunner) -> None:
    """Add photos that take a while."""
    for number in range(MANY):
        paint(runs.root / "many" / f"{number:03}.png", shade(number))


def children() -> list[psutil.Process]:
    every = psutil.Process().children()
    return [each for each in every if "collection.runs" in " ".join(each.cmdline())]


def test_a_run_is_followed_to_its_end(runs: IndexRunner) -> None:
    assert runs.state() == RunState()
    ends: list[str] = []
    runs.on_end = lambda: ends.append(runs.state().stage)
    runs.start({"encoder": "colour", "exclude": ["blue*"]})
    assert runs.state().is_active
    state = runs.wait()
    assert (state.status, state.done, state.total, state.failed) == ("done", 4, 4, 1)
    assert state.report is not None
    counted = {name: state.report[name] for name in ("indexed", "failed", "total", "left_out")}
    assert counted == {"indexed": 3, "failed": 1, "total": 3, "left_out": {"excluded": 1}}
    assert (state.error, state.rate, ends) == ("", None, ["opening"])
    assert runs.options == {"encoder": "colour", "exclude": ["blue*"]}
    runs.start({})
    assert runs.wait().status == "done"
    with Collection.open(runs.root) as found:
        assert len(found) == 4


def test_a_run_is_stopped_and_the_next_goes_on(runs: IndexRunner) -> None:
    many(runs)
    runs.start({"encoder": "mini"})
    with pytest.raises(QueryError, match="the photos are being indexed already"):
        runs.start({})
    wait_until(lambda: runs.state().done > 0)
    running = runs.state()
    assert (running.status, running.stage, running.total) == ("running", "embedding", MANY + 5)
    assert running.rate is not None
    assert running.remaining is not None
    runs.stop()
    runs.stop()
    assert runs.wait().status == "stopped"
    with Collection.open(runs.root) as found:
        stored = len(found)
    assert 0 < stored < MANY + 4
    runs.start({})
    report = runs.wait().report
    assert report is not None
    assert (report["indexed"], report["unchanged"]) == (MANY + 4 - stored, stored)
    runs.stop()  # there is nothing to stop
    assert runs.state().status == "done"


def test_what_cannot_be_is_said(runs: IndexRunner, tmp_path: Path) -> None:
    with writer_lock(runs.folder):
        runs.start({"encoder": "colour"})
        state = runs.wait()
    assert (state.status, state.error_kind) == ("failed", "CollectionLocked")
    assert "is writing to" in state.error
    runs.start({"encoder": "colour"})
    assert runs.wait().status == "done"
    runs.start({"encoder": "mini"})
    assert runs.wait().error_kind == "EncoderMismatch"
    gone = IndexRunner(tmp_path / "gone", tmp_path / "gone" / ".vitsearch")
    gone.start({})
    state = gone.wait()
    assert state.error.startswith(f"no such folder: {tmp_path / 'gone'}")
    assert state.remarks == ()


def test_files_of_the_working_folder_are_no_modules(
    runs: IndexRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"open({str(runs.root / 'was-run')!r}, 'w').close()"
    (runs.root / "json.py").write_text(program)
    (runs.root / "vitsearch").mkdir()
    (runs.root / "vitsearch" / "__init__.py").write_text(program)
    monkeypatch.chdir(runs.root)
    runs.start({"encoder": "colour"})
    state = runs.wait()
    assert not (runs.root / "was-run").exists()
    assert (state.status, state.done) == ("done", 5)


def test_what_opens_the_collection_may_fail(
    runs: IndexRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: out of memory\nmore lines")

    runs.on_end = fail
    runs.start({"encoder": "colour"})
    state = runs.wait()
    assert (state.status, state.error) == (
        "failed",
        "the collection cannot be opened (CUDA error: out of memory more lines): "
        "start the server again",
    )
    assert "cannot be opened after indexing" in caplog.text
    runs.on_end = lambda: None
    runs.start({})
    assert runs.wait().status == "done"


def test_lines_that_are_cut_off_say_nothing() -> None:
    lines = ['{"report": {"total": 1}}', '{"progress": {"st', "[1]", "", "loaded a library"]
    assert [_message(line) for line in lines] == [{"report": {"total": 1}}, {}, {}, {}, {}]


def test_a_process_that_dies_is_noticed(runs: IndexRunner) -> None:
    many(runs)
    runs.start({"encoder": "mini"})
    wait_until(lambda: runs.state().stage == "embedding")
    (child,) = children()
    child.send_signal(signal.SIGKILL)
    state = runs.wait()
    assert state.status == "failed"
    assert state.error == (
        "the run ended before it was done (exit code -9); start it again to go on"
    )
    runs.start({})
    closing = threading.Thread(target=runs.close)
    closing.start()
    closing.join()
    assert (runs.state().status, children()) == ("stopped", [])


def test_it_ends_with_its_parent(runs: IndexRunner) -> None:
    many(runs)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from vitsearch.collection.runs import IndexRunner\n"
        "root = Path(sys.argv[1])\n"
        "runs = IndexRunner(root, root / '.vitsearch')\n"
        "runs.start({'encoder': 'mini'})\n"
        "while runs.state().stage != 'embedding': time.sleep(0.01)\n"
        "print('there', flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(runs.root)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"there\n"
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
    wait_until(lambda: not child.is_running())
    with writer_lock(runs.folder):
        pass

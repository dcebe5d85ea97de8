"""Runs of indexing that a program goes on beside: in processes of their own, one at a time, how far
they are and how they ended; and again after each burst of changes, so that new photos are
searchable in seconds.

    parent -> child: a line of JSON, what `index_folder` is given; the end of the stream means stop
    child -> parent: lines of JSON, each with one key: progress, remark, and in the end report or
                     error
"""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, Unpack

from vitsearch.collection.diff import bursts
from vitsearch.errors import CollectionLocked, QueryError, VitsearchError
from vitsearch.options import IndexKeywords
from vitsearch.storage import collection_folder, photo_root
from vitsearch.types import IndexReport, OnProgress, Progress, no_progress
from vitsearch.untrusted import python_command, reason

NICENESS = 10  # half of what there is


def yield_processor() -> None:
    """Take what time of the processor other programs leave, from now on."""
    with suppress(AttributeError, OSError):  # Windows has no such thing
        os.nice(max(0, NICENESS - os.nice(0)))


def run_child() -> None:
    """Index as the first line on stdin says, until that ends: all that the child does."""
    from vitsearch.collection.update import index_folder

    yield_processor()
    # Pillow warns of damaged EXIF, which never fails a photo
    warnings.filterwarnings("ignore", module=r"PIL\.")
    answers = os.fdopen(os.dup(1), "w", encoding="ascii", buffering=1)
    # what a library may print must not get between the answers
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    lock = threading.Lock()

    def send(**message: Any) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")

    logger = logging.getLogger("vitsearch")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Remarks(lambda text: send(remark=text)))
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with, args=(sys.stdin,), daemon=True).start()

    def progress(step: Progress) -> None:
        send(progress=asdict(step))

    try:
        report = index_folder(request.pop("photos"), progress=progress, **request)
        send(report=asdict(report))
    except VitsearchError as error:
        send(error={"kind": type(error).__name__, "text": " ".join(str(error).split())})
    except MemoryError:
        send(error={"kind": "MemoryError", "text": "indexing needs more memory than there is"})
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # it was stopped: what is on disk is whole at any moment


class _Remarks(logging.Handler):
    """Hands on the log messages of the library."""

    def __init__(self, hand_on: Callable[[str], object]) -> None:
        super().__init__()
        self._hand_on = hand_on

    def emit(self, record: logging.LogRecord) -> None:
        self._hand_on(record.getMessage())


def _stop_with(stream: IO[str]) -> None:
    """Interrupt the run once the stream ends, however the parent does."""
    while stream.readline():
        pass
    if sys.platform == "win32":
        import _thread

        _thread.interrupt_main()
    else:  # a signal to this thread alone also wakes it where it waits
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


log = logging.getLogger("vitsearch")
# -- The parent ------------------------------------------------------------------------------------


Status = Literal["idle", "running", "stopping", "done", "stopped", "failed"]
GRACE = 20.0  # seconds that a run may take to stop, before its process is ended
MAX_REMARKS = 20
OPENING = "opening"  # the stage in which what was indexed is taken over


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run of indexing is, or how the last one ended; "idle" before the first.

    ``done`` of ``total`` photos of the ``stage`` are done, and ``failed`` of them could not be
    read. ``seconds`` is the time since the run began, ``rate`` photos a second in this stage,
    ``remaining`` the seconds that it will still take, None where nobody knows. ``report`` is that
    of `index_folder` as a dictionary. ``error`` says what went wrong, ``error_kind`` is the class
    of the exception.
    """

    status: Status = "idle"
    stage: str = ""
    done: int = 0
    total: int | None = None
    failed: int = 0
    seconds: float = 0.0
    rate: float | None = None
    remaining: float | None = None
    report: Mapping[str, Any] | None = None
    error: str = ""
    error_kind: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether the run goes on."""
        return self.status in ("running", "stopping")


@dataclass(slots=True)
class _Run:
    """A process, and what it has said."""

    process: subprocess.Popen[str]
    began: float
    stage_began: float = 0.0
    reader: threading.Thread | None = None
    remarks: list[str] = field(default_factory=list)


class IndexRunner:
    """Indexes a folder when it is told to, in a process that ends with this one.

    ``on_end`` is called after each run, in a thread of its own, before the state says that it has
    ended; what it raises becomes the run's error. Methods may be called from any
    thread.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.on_end: Callable[[], object] = lambda: None
        self.options: Mapping[str, Any] = {}  # of the last run
        self._lock = threading.RLock()
        self._run: _Run | None = None
        self._state = RunState()

    def start(self, options: Mapping[str, Any]) -> None:
        """Begin a run with keywords of `index_folder` that JSON can hold; raises QueryError while
        another one goes on.
        """
        with self._lock:
            if self._state.is_active:
                raise QueryError("the photos are being indexed already: wait, or stop that run")
            process = subprocess.Popen(
                python_command("from vitsearch.collection.runs import run_child; run_child()"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="ascii",
                errors="replace",
                start_new_session=True,  # Ctrl-C is for the server, which stops the run in order
            )
            self.options = dict(options)
            now = time.monotonic()
            run = self._run = _Run(process, now, now)
            self._state = RunState("running", "looking")
            places = {
                "photos": os.path.abspath(self.root),  # so messages name it whole
                "collection": os.path.abspath(self.folder),
            }
            request = {**places, **options}
            _write(process.stdin, json.dumps(request) + "\n")
            # with what the command has set, for the collection that `on_end` may open
            run.reader = threading.Thread(
                target=copy_context().run, args=(self._follow, run), daemon=True
            )
            run.reader.start()

    def stop(self) -> None:
        """End the run, if there is one; what it has stored stays. Returns at once."""
        with self._lock:
            if self._state.status == "running" and self._run is not None:
                self._state = replace(self._state, status="stopping")
                threading.Thread(target=_end, args=(self._run.process,), daemon=True).start()

    def state(self) -> RunState:
        """Return how far the run is, or how the last one ended."""
        with self._lock:
            state, run = self._state, self._run
            if not state.is_active or run is None:
                return state
            now = time.monotonic()
            rate = remaining = None
            if state.stage == "embedding" and state.done:
                rate = state.done / max(now - run.stage_began, 1e-9)
                remaining = ((state.total or state.done) - state.done) / rate
            return replace(state, seconds=now - run.began, rate=rate, remaining=remaining)

    def wait(self) -> RunState:
        """Wait until the run has ended, and return how."""
        run = self._run
        if run is not None and run.reader is not None:
            run.reader.join()
        return self.state()

    def close(self) -> None:
        """Stop the run, and wait until it has ended."""
        self.stop()
        self.wait()

    def _follow(self, run: _Run) -> None:
        """Note what the process says until it ends, and how it did."""
        outcome: dict[str, Any] = {}
        assert run.process.stdout is not None
        with run.process.stdout as lines:
            for line in lines:
                message = _message(line)
                if "progress" in message:
                    self._note(run, Progress(**message["progress"]))
                elif "remark" in message:
                    run.remarks = [*run.remarks, message["remark"]][-MAX_REMARKS:]
                elif message:
                    outcome = message
        code = run.process.wait()
        with self._lock:
            was_stopped = self._state.status == "stopping"
            self._state = replace(self._state, stage=OPENING)
        ended = _ended(outcome, code, was_stopped=was_stopped)
        try:
            self.on_end()
        except VitsearchError as error:
            ended = replace(ended, status="failed", error=ended.error or str(error))
        except Exception as error:  # of a library, such as a GPU without memory
            log.exception("the collection cannot be opened after indexing")
            problem = f"the collection cannot be opened ({reason(error)}): start the server again"
            ended = replace(ended, status="failed", error=ended.error or problem)
        with self._lock:
            _close(run.process.stdin)
            last, seconds = self._state, time.monotonic() - run.began
            self._state = replace(
                ended,
                done=last.done,
                total=last.total,
                failed=last.failed,
                seconds=seconds,
                remarks=tuple(run.remarks),
            )

    def _note(self, run: _Run, step: Progress) -> None:
        with self._lock:
            if step.stage != self._state.stage:
                run.stage_began = time.monotonic()
            self._state = replace(
                self._state, stage=step.stage, done=step.done, total=step.total, failed=step.failed
            )


def _message(line: str) -> dict[str, Any]:
    """Return what a line of the process says, nothing where it was cut off."""
    with suppress(ValueError):
        message = json.loads(line)
        return message if isinstance(message, dict) else {}
    return {}


def _ended(outcome: Mapping[str, Any], code: int, *, was_stopped: bool) -> RunState:
    """Return how a run ended, by the last that its process said."""
    if "report" in outcome:
        return RunState("done", report=outcome["report"])
    if was_stopped:
        return RunState("stopped")
    error = outcome.get("error") or {
        "kind": "",
        "text": f"the run ended before it was done (exit code {code}); start it again to go on",
    }
    return RunState("failed", error=error["text"], error_kind=error["kind"])


def _end(process: subprocess.Popen[str]) -> None:
    """Have a process stop, and end it where it does not within `GRACE`."""
    _close(process.stdin)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _write(stream: IO[str] | None, text: str) -> None:
    assert stream is not None
    with suppress(BrokenPipeError):  # it has ended: the reader finds out how
        stream.write(text)
        stream.flush()


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with suppress(BrokenPipeError):
            stream.close()


# -- A folder that is watched ----------------------------------------------------------------------


EVERY = 600.0  # seconds between walks through a folder that tells its changes: it may miss some
EVERY_UNTOLD = 10.0  # of one that does not, such as another machine's
_TICK = 2.0  # seconds between looks at the clock
MOUNTS = Path("/proc/self/mounts")
REMOTE = {
    *("9p", "afs", "ceph", "cifs", "nfs", "nfs4", "smb3", "smbfs"),
    *("fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
}
CHANGES = ("indexed", "moved", "restored", "removed")


def watch_folder(
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None = None,
    poll: float | None = None,
    stop: threading.Event | None = None,
    progress: OnProgress = no_progress,
    **options: Unpack[IndexKeywords],
) -> Iterator[IndexReport]:
    """Index a folder as `index_folder` does, and again after each burst of changes, until ``stop``
    is set; yields the report of the first run and of every later one that changed something.

    The folder is also walked every ten minutes, since not all file systems tell of all changes; one
    that tells of none (another machine's) every ten seconds, or every ``poll`` seconds. What the
    first run cannot do is raised; where a later one cannot go on (a disk is away, the collection is
    being written to), a remark says so once, and it is tried again.
    """
    from vitsearch.collection.update import index_folder

    root, stop = photo_root(photos), stop or threading.Event()
    folder = collection_folder(root, collection)
    run = partial(index_folder, root, collection=collection, progress=progress, **options)
    report, trouble = run(), ""
    failed = report.failed
    yield report
    for is_due in _ticks(root, folder, poll, stop):
        if not is_due and not trouble:
            continue
        try:
            report = run()
        except VitsearchError as error:
            if str(error) != trouble and not isinstance(error, CollectionLocked):
                log.warning(f"{error} (it is tried again)")
            trouble = str(error)
            continue
        trouble = ""
        if any(getattr(report, name) for name in CHANGES) or report.failed != failed:
            failed = report.failed
            yield report


def _ticks(root: Path, folder: Path, poll: float | None, stop: threading.Event) -> Iterator[bool]:
    """Yield every two seconds or after a burst of changes whether it is time to walk again."""
    is_told = poll is None and not is_remote(root)
    every = poll or (EVERY if is_told else EVERY_UNTOLD)
    signals = bursts(root, folder, stop, tick=_TICK) if is_told else _pauses(every, stop)
    walked = -math.inf  # what came while the first run ended was told to nobody
    while not stop.is_set():
        try:
            has_changed = next(signals, None)
        except (ImportError, OSError, RuntimeError) as error:
            reason = "pip install 'vitsearch[watch]'" if isinstance(error, ImportError) else error
            log.warning(
                f"{root} is walked every {EVERY_UNTOLD:g} s, its changes not told ({reason})"
            )
            every = EVERY_UNTOLD
            signals = _pauses(every, stop)
            continue
        if has_changed is None:  # it was stopped
            return
        is_due = has_changed or time.monotonic() - walked >= every
        if is_due:
            walked = time.monotonic()
        yield is_due


def _pauses(every: float, stop: threading.Event) -> Iterator[bool]:
    """Yield False every two seconds, or ``every`` seconds where that is less."""
    while not stop.wait(min(_TICK, every)):
        yield False


def is_remote(root: Path, mounts: Path = MOUNTS) -> bool:
    """Return whether a folder is on a file system of another machine, which tells nothing of the
    changes there; False where the system has no list of mounts.
    """
    try:
        rows = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return False
    absolute = root.resolve()
    above = [
        (len(mount.parts), kind)
        for mount, kind in (
            (Path(row[1].replace("\\040", " ")), row[2]) for row in rows if len(row) > 2
        )
        if absolute.is_relative_to(mount)
    ]
    return bool(above) and max(above)[1] in REMOTE

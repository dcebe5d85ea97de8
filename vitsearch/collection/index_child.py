"""A run of indexing in a process of its own, so that its parent goes on answering: the child's end
(the parent's is `vitsearch.collection.index_process`).

    parent -> child: a line of JSON, what `index_folder` is given; the end of the stream means stop
    child -> parent: lines of JSON, each with one key: progress, remark, and in the end report or
                     error
"""

import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from vitsearch.errors import VitsearchError
from vitsearch.types import Progress

NICENESS = 10  # half of what there is


def yield_processor() -> None:
    """Take what time of the processor other programs leave, from now on."""
    with suppress(AttributeError, OSError):  # Windows has no such thing
        os.nice(max(0, NICENESS - os.nice(0)))


def main() -> None:
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


if __name__ == "__main__":
    main()

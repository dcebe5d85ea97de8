"""What the process of one device runs: `serve`. It encodes batches that another process prepared
(`vitsearch.encoders.devices`; how the two talk is `vitsearch.encoders.devices`).
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.batching import is_out_of_memory
from vitsearch.encoders.checkpoints import one_line
from vitsearch.encoders.devices import Bytes, receive, send, unpacked
from vitsearch.errors import VitsearchError

Send = Callable[..., None]  # of a header and arrays


def serve() -> None:
    """Load an encoder and encode what comes on stdin until that ends: all that a child does."""
    # Ctrl-C is sent to parent and children: the parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # what a library may print must not get between the answers
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    requests = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  as long as the process
    lock = threading.Lock()

    def respond(header: Mapping[str, Any], *arrays: NDArray[Any]) -> None:
        with lock, suppress(BrokenPipeError):  # the parent is gone: the requests end too
            send(answers, header, arrays)

    logging.getLogger("vitsearch").addHandler(_Remarks(respond))
    chosen, _ = receive(requests)
    calls = chosen.pop("calls")
    try:
        encoder = load_encoder(**chosen, throughput=True)
    except Exception as error:
        respond(_problem(error))
        return
    calls = min(calls, encoder.parallel_calls)
    respond({"fingerprint": encoder.fingerprint, "calls": calls})
    # CUDA graphs belong to the thread that made them: on a GPU this is one thread
    pool = ThreadPoolExecutor(calls)
    with suppress(EOFError):
        while True:
            pool.submit(_answer, encoder, *receive(requests), respond)
    # at once, for nobody waits for what is being encoded
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


def _answer(encoder: ImageEncoder, request: Mapping[str, Any], body: Bytes, respond: Send) -> None:
    number = {"id": request["id"]}
    rows, problem = np.empty((0, encoder.dim), dtype=np.float32), {}
    try:
        if "tune" in request:
            encoder.tune(request["tune"])
        else:
            batch = unpacked(request["shapes"], body)
            rows = np.asarray(encoder.encode_prepared(batch), dtype=np.float32)
    except Exception as error:
        problem = _problem(error)
    # only now, when the memory of what failed is free for the halves that come next
    respond(number | problem, rows)


def _problem(error: Exception) -> dict[str, Any]:
    if is_out_of_memory(error):
        return {"memory": one_line(error)}
    if isinstance(error, VitsearchError):
        return {"error": " ".join(str(error).split())}
    return {"error": f"{type(error).__name__}: {one_line(error)}"}


class _Remarks(logging.Handler):
    """Hands on the log messages of the library."""

    def __init__(self, respond: Send) -> None:
        super().__init__()
        self._respond = respond

    def emit(self, record: logging.LogRecord) -> None:
        self._respond({"remark": record.getMessage()})

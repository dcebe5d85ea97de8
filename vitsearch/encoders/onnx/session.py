"""How ONNX Runtime uses the cores: all of them for one query, or one for each of several batches at
once.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import onnxruntime

from vitsearch.encoders.base import fingerprint_of
from vitsearch.encoders.checkpoints import one_line, weights_hash
from vitsearch.errors import EncoderError

Item = TypeVar("Item")

PICTURES_PER_CALL = (
    8  # enough to spread the reading of the weights, few enough to stay in the cache
)
CPU = ("CPUExecutionProvider",)
OPTIMISED = "optimised-"  # begins the names of graphs that are derived, and safe to delete

_sessions: WeakSet[onnxruntime.InferenceSession] = WeakSet()
_inherited: list[onnxruntime.InferenceSession] = []
if hasattr(os, "register_at_fork"):
    # the end of a session waits for its threads, which a forked process does not have: there those
    # of its parent never end
    os.register_at_fork(after_in_child=lambda: _inherited.extend(_sessions))


@dataclass(frozen=True, slots=True)
class Cores:
    """How many calls may usefully run at once (``callers``), and the threads that compute each of
    them (0: one a core).

    Threads of one batch wait for each other after every matrix, and wait long where another thread
    has their core. With many batches there is no need to: one thread for each is 4 to 10 % faster
    by itself, and more beside threads that decode (benchmarks/runtime.py).
    """

    callers: int = 1
    threads: int = 0


def thread_plan(throughput: bool) -> Cores:
    """Return how to use the cores: for many pictures (``throughput``), or for one query."""
    return Cores(callers=usable_cores(), threads=1) if throughput else Cores()


def usable_cores() -> int:
    """Return the number of cores that this process may use, which a container or `taskset` may have
    limited.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pad_single(batch: Sequence[Item], cores: Cores) -> Sequence[Item]:
    """Return a batch for ONNX Runtime; one alone comes twice where many are to be embedded, and the
    rows after the first are left out.

    One row takes another way through the matrices than several, and its last digit differs: stored
    vectors would depend on how photos happened to fall into batches.
    """
    return [batch[0], batch[0]] if len(batch) == 1 and cores.threads == 1 else batch


def trim_memory() -> None:
    """Give the system back what was freed: glibc keeps it for each thread that ever computed, a
    hundred megabytes after many batches.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def open_graph(
    file: Path,
    threads: int = 0,
    *,
    providers: Sequence[str] = CPU,
    optimised: bool = False,
    save_as: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Return a graph, ``threads`` computing one batch (0: one a core); raises EncoderError where it
    cannot be opened.

    One that is ``optimised`` for `this_runtime` is run as it is. ``save_as`` is where the graph is
    written as ONNX Runtime optimises it, its weights in a file beside it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # threads that spin after a query keep the cores from the search that follows it: a third of its
    # time on two cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_as is not None:
        options.optimized_model_filepath = str(save_as)
        outside = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{outside}_file_name", f"{save_as.name}.data")
        options.add_session_config_entry(f"{outside}_min_size_in_bytes", "1024")
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=list(providers))
    except Exception as error:  # ONNX Runtime raises classes of its own without a root
        raise EncoderError(f"ONNX Runtime cannot open {file} ({one_line(error)})") from error
    _sessions.add(session)
    return session


def this_runtime() -> dict[str, str]:
    """Return what an optimised graph is bound to: the version of ONNX Runtime and the processor."""
    processor = platform.processor()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as facts:
        processor = next((line for line in facts if line.startswith(("flags", "Features"))), "")
    facts_of = {"processor": processor, "machine": platform.machine()}
    return {"onnxruntime": onnxruntime.__version__, "processor": fingerprint_of(facts_of)}


def is_optimised(folder: Path, facts: Mapping[str, Any], graph: str | None = None) -> bool:
    """Return whether an export has a graph (None: every one that can be) as ONNX Runtime optimises
    it here; ``facts`` are those of `vitsearch.encoders.onnx.export.write_optimised`.
    """
    files = facts.get("files", {}) if facts.get("for") == this_runtime() else None
    if files is None or (graph is not None and graph not in files):
        return False
    try:
        return all(
            files[each] == weights_hash([folder / f"{OPTIMISED}{each}"])
            for each in ([graph] if graph is not None else files)
        )
    except OSError:
        return False

"""Exported CLIP and SigLIP models on ONNX Runtime, and how it uses the cores: all of them for one
query, or one for each of several batches at once.

The encoder has the same preprocessing and tokens as on PyTorch, which is not imported.
"""

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from vitsearch.arrays import unit_rows
from vitsearch.encoders.base import Encoder, Vectors, fingerprint_of
from vitsearch.encoders.checkpoints import ONE_QUERY, one_line, weights_hash
from vitsearch.encoders.preprocess import Box, Preprocess, normalise, prepare, seen_region
from vitsearch.encoders.tokenizer import PortableTokenizer, TextReader, rules_from, surely_fits
from vitsearch.errors import EncoderError

if TYPE_CHECKING:
    from vitsearch.encoders.torch_encoder import TorchEncoder

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
    unpacked: bool = False,
) -> onnxruntime.InferenceSession:
    """Return a graph, ``threads`` computing one batch (0: one a core); raises EncoderError where it
    cannot be opened.

    Weights that it stores in 8 bits become floats in every run, or with ``unpacked`` once, unless
    it is opened for one query. That takes four times their memory and half the time of one text.
    One that is ``optimised`` for `this_runtime` is run as it is. ``save_as`` is where the graph is
    written as ONNX Runtime optimises it, its weights in a file beside it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # threads that spin after a query keep the cores from the search that follows it: a third of its
    # time on two cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if ONE_QUERY.get():  # else all matrices are copied to where the processor likes them better
        options.add_session_config_entry("session.disable_prepacking", "1")
    elif unpacked:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
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
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as facts:
            processor = next((line for line in facts if line.startswith(("flags", "Features"))), "")
    except OSError:
        processor = platform.processor()  # starts a process on some systems
    facts_of = {"processor": processor, "machine": platform.machine()}
    return {"onnxruntime": onnxruntime.__version__, "processor": fingerprint_of(facts_of)}


def is_optimised(folder: Path, facts: Mapping[str, Any], graph: str | None = None) -> bool:
    """Return whether an export has a graph (None: every one that can be) as ONNX Runtime optimises
    it here; ``facts`` are those of `vitsearch.encoders.onnx_export.write_optimised`.
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


# -- The encoder -----------------------------------------------------------------------------------


IMAGE_BATCH = 16
TEXT_BATCH = 64
TOKENIZER = "tokenizer.json"
IMAGE = "image.onnx"
TEXT = "text.onnx"

Arrays = dict[str, NDArray[Any]]
# what makes tokens of texts, and tells whether a text is cut
Reader = tuple[Callable[[Sequence[str]], Arrays], Callable[[str], bool]]


class OnnxEncoder(Encoder):
    """An encoder around the two graphs of an export; safe to use from several threads, each
    graph opened when it is first needed.

    In float32 it has the fingerprint of the same model on PyTorch: an export is kept only where the
    vectors of both agree within 1e-4 (most differ by 1e-6), far less than the 5e-4 by which
    float16, as a collection stores them, moves a vector. So a collection opens with either. int8
    has its own. There, one picture or text is run at a time: the activations are quantised by the
    range of all that is computed together, and a vector must not depend on its neighbours.
    """

    holds_sessions = True

    def __init__(
        self,
        name: str,
        folder: Path,
        facts: Mapping[str, Any],
        in_torch: Callable[[], "TorchEncoder"],
        cores: Cores | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.dim: int = facts["dim"]
        self.logit_scale: float = facts["logit_scale"]
        self.logit_bias = facts["logit_bias"]
        self.dtype: str = facts["dtype"]
        self.fingerprint: str = facts["fingerprint"]
        self.preprocess: Preprocess = preprocess_from(facts["preprocess"])
        self.decode_at_least = self.preprocess.decode_at_least
        self.only_resizes = True
        self.in_torch = in_torch
        self._rules: Mapping[str, Any] | None = facts["tokens"]
        self._optimised: Mapping[str, Any] = facts.get("optimised") or {}
        self._cores = cores or Cores()
        self.parallel_calls = self._cores.callers
        self.pictures_per_call = PICTURES_PER_CALL if self.parallel_calls > 1 else None
        self._locks = {part: threading.Lock() for part in (IMAGE, TEXT, TOKENIZER)}
        self._sessions: dict[tuple[str, int], onnxruntime.InferenceSession] = {}
        self._opened: Reader | None = None

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Return the picture resized and cropped, ``(h, w, 3)`` uint8; may run in any thread."""
        return prepare(image, self.preprocess)

    def seen_region(self, image: Image.Image) -> Box:
        """Return what `prepare` keeps of a picture, (left, top, right, bottom) in its pixels;
        beyond its borders where it is padded.
        """
        return seen_region(image, self.preprocess)

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for ``n`` arrays of `prepare`."""
        return self._in_batches(
            IMAGE, batch, IMAGE_BATCH, lambda part: {"pixels": normalise(part, self.preprocess)}
        )

    def free_image_tower(self) -> None:
        """Give back the memory of the image tower; the next picture opens it again."""
        with self._locks[IMAGE]:
            self._sessions.pop((IMAGE, os.getpid()), None)
        trim_memory()

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for texts; a text longer than the model's context
        is cut.
        """
        if self._opened is None and self._rules is not None:
            with ThreadPoolExecutor(1) as pool:  # each takes as long to open as the other
                # what it raises is raised below
                pool.submit(copy_context().run, self._session, TEXT)
                self.tokenize([])
        return self._in_batches(TEXT, texts, TEXT_BATCH, self.tokenize)

    def tokenize(self, texts: Sequence[str]) -> Arrays:
        """Return what the text tower is given for each text: ``input_ids`` ``(n, t)`` int64 and,
        for some models, a mask.
        """
        return self._reader()[0](texts)

    def is_cut(self, text: str) -> bool:
        """Return whether a text is longer than the model's context; False where its tokenizer
        works in its library alone.
        """
        if self._rules is not None and surely_fits(text, self._rules["length"]):
            return False  # known without opening the tokenizer
        return self._reader()[1](text)

    def _reader(self) -> Reader:
        with self._locks[TOKENIZER]:
            if self._opened is None:
                self._opened = self._open_tokenizer()
            return self._opened

    def _open_tokenizer(self) -> Reader:
        if self._rules is None:  # one that is known only to the library that the model came with
            theirs = self.in_torch()
            return lambda texts: {
                name: tensor.numpy() for name, tensor in theirs.tokenize(texts).items()
            }, theirs.is_cut
        text = (self.folder / TOKENIZER).read_text(encoding="utf-8")
        reader = TextReader(PortableTokenizer(text, rules_from(self._rules)))
        return reader.tokenize, reader.is_cut

    def _in_batches(
        self, graph: str, items: Sequence[Any], size: int, inputs: Callable[[Sequence[Any]], Arrays]
    ) -> Vectors:
        step = 1 if self.dtype == "int8" else size
        rows = [np.empty((0, self.dim), dtype=np.float32)]
        for start in range(0, len(items), step):
            part = items[start : start + step]
            padded = pad_single(part, self._cores) if step > 1 else part
            outputs = self._session(graph).run(None, inputs(padded))
            rows += [output[: len(part)] for output in outputs]
        try:
            return unit_rows(np.concatenate(rows))
        except ValueError as error:
            raise EncoderError(
                f"encoder {self.name} overflows in {self.dtype}: use runtime torch"
            ) from error

    def _session(self, graph: str) -> onnxruntime.InferenceSession:
        # not one of before a fork: it would wait for threads that were left in the parent
        key = graph, os.getpid()
        with self._locks[graph]:
            if key not in self._sessions:
                self._sessions[key] = self._open(graph)
            return self._sessions[key]

    def _open(self, graph: str) -> onnxruntime.InferenceSession:
        if is_optimised(self.folder, self._optimised, graph):
            with suppress(EncoderError):
                file = self.folder / f"{OPTIMISED}{graph}"
                return open_graph(file, self._cores.threads, optimised=True)
        try:
            return open_graph(self.folder / graph, self._cores.threads)
        except EncoderError as error:
            raise EncoderError(f"{error}: delete that folder, or use runtime torch") from error


def preprocess_from(facts: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing from plain values."""
    return Preprocess(**{**facts, **{name: tuple(facts[name]) for name in ("size", "mean", "std")}})

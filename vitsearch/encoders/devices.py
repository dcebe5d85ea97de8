"""An encoder on several devices of one machine: a process for each, which loads the model by name
and encodes batches that this one prepares (their end is `vitsearch.encoders.device_process`).

The two talk in messages of two lengths, a JSON header and a body of raw bytes; nothing is
unpickled.

    parent -> child: first what is loaded (name, device, dtype, runtime, calls), then requests with
                     an id: a batch (its shapes, and the pixels), or tune (a size of batches)
    child -> parent: first the fingerprint and how many calls run at once, then for each id the rows
                     in float32, in any order; error or memory where there are none; between them
                     remarks for the log
"""

import json
import logging
import os
import struct
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, groupby
from queue import SimpleQueue
from threading import Lock, RLock, Thread
from typing import IO, Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitsearch.encoders.base import Encoder, ImageEncoder, Vectors
from vitsearch.errors import EncoderError
from vitsearch.photos.decode import upright_rgb
from vitsearch.photos.isolated import widen_pipe
from vitsearch.untrusted import python_command

Bytes = NDArray[np.uint8]
Shapes = list[tuple[int, str, list[int]]]  # so many arrays, their dtype, their shape
_LENGTHS = struct.Struct(">IQ")


def send(stream: IO[bytes], header: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Write a message whose body is the bytes of arrays, to an unbuffered stream."""
    body = [np.ascontiguousarray(each).reshape(-1).view(np.uint8).data for each in arrays]
    head = json.dumps(header).encode("ascii")
    head = _LENGTHS.pack(len(head), sum(map(len, body))) + head
    for rest in (memoryview(head), *body):
        while rest:
            rest = rest[stream.write(rest) :]


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], Bytes]:
    """Return the header and the body of the next message; raises EOFError where the stream ends."""
    head_size, body_size = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size).tobytes())
    header: dict[str, Any] = json.loads(_exactly(stream, head_size).tobytes())
    return header, _exactly(stream, body_size)


def shapes_of(batch: Sequence[NDArray[Any]]) -> Shapes:
    """Return what `unpacked` needs to know of arrays; raises EncoderError for those of objects."""
    if any(each.dtype.hasobject for each in batch):
        raise EncoderError("what this encoder prepares are not arrays of numbers: name one device")
    runs = groupby(batch, key=lambda each: (each.dtype.str, each.shape))
    return [(len(list(run)), dtype, list(shape)) for (dtype, shape), run in runs]


def unpacked(shapes: Shapes, body: Bytes) -> list[NDArray[Any]]:
    """Return the arrays whose bytes a body holds one behind the other; they share its memory."""
    arrays: list[NDArray[Any]] = []
    start = 0
    for number, dtype, shape in shapes:
        end = start + number * np.dtype(dtype).itemsize * int(np.prod(shape))
        arrays += list(body[start:end].view(dtype).reshape(number, *shape))
        start = end
    return arrays


def _exactly(stream: IO[bytes], size: int) -> Bytes:
    data = np.empty(size, dtype=np.uint8)
    rest = data.data
    while rest:
        read = stream.readinto(rest)  # type: ignore[attr-defined]
        if not read:
            raise EOFError
        rest = rest[read:]
    return data


log = logging.getLogger("vitsearch")
# -- The devices -----------------------------------------------------------------------------------


ALL_GPUS = "cuda:all"
_IMAGE_BATCH = 32
_STATEMENT = "from vitsearch.encoders.device_process import serve; serve()"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def device_names(device: str) -> list[str]:
    """Return the devices of a list such as "cuda:0,cuda:1", or of "cuda:all"; another name is
    itself.

    Raises EncoderError for a list with a gap or "auto" in it, and where PyTorch sees no GPU.
    """
    if device == ALL_GPUS:
        from vitsearch.index.backends import torch_gpu_count

        names = [f"cuda:{number}" for number in range(torch_gpu_count())]
        if not names:
            raise EncoderError(f"device {device!r} cannot be used here: PyTorch sees no GPU")
        return names
    names = [name.strip() for name in device.split(",")]
    if len(names) > 1 and {"", "auto", ALL_GPUS} & {*names}:
        raise EncoderError(
            f"device {device!r}: name each device, as in cuda:0,cuda:1; {ALL_GPUS} is every GPU"
        )
    return names


def ensure_single(device: str) -> None:
    """Raise EncoderError for the name of several devices, where there is too little work for
    them.
    """
    if device == ALL_GPUS or "," in device:
        raise EncoderError(
            f"device {device!r}: only indexing uses several; name one, such as cuda:0"
        )


def on_devices(encoder: ImageEncoder, devices: Sequence[str], runtime: str) -> ImageEncoder:
    """Return an encoder that runs on all devices, for one that was loaded by name on the first;
    raises EncoderError where a device cannot be used.
    """
    if isinstance(encoder, Encoder):
        return DevicesEncoder(encoder, devices, runtime)
    return DevicesImageEncoder(encoder, devices, runtime)


class DevicesImageEncoder(ImageEncoder):
    """An encoder whose image tower runs in a process on each device; what it prepares, it prepares
    in this one.

    ``encoder`` was loaded on the first device. ``parallel_calls`` keep all devices busy, with one
    batch more on its way to each.
    """

    holds_sessions = True

    def __init__(self, encoder: ImageEncoder, devices: Sequence[str], runtime: str) -> None:
        self.encoder, self.devices, self.runtime = encoder, tuple(devices), runtime
        self.name, self.dim, self.fingerprint = encoder.name, encoder.dim, encoder.fingerprint
        self.dtype, self.device = encoder.dtype, ",".join(devices)
        self.decode_at_least = encoder.decode_at_least
        self.pictures_per_call = encoder.pictures_per_call
        self.only_resizes, self.preprocess = encoder.only_resizes, encoder.preprocess
        self._starting = Lock()
        self._processes: _Processes | None = None
        self._process_id = os.getpid()
        self._end: finalize[..., Any]
        self.parallel_calls = self._started().parallel_calls

    def _started(self) -> "_Processes":
        with self._starting:
            if self._process_id != os.getpid():  # forked: those of the parent answer the parent
                self._processes, self._process_id = None, os.getpid()
                self._end.detach()
            if self._processes is None:
                self._processes = _Processes(self.encoder, self.devices, self.runtime)
                # also where nobody frees them, and at the end of the program
                self._end = finalize(self, self._processes.close)
            return self._processes

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Return the model's input for one RGB picture."""
        return self.encoder.prepare(image)

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for prepared pictures, encoded on a device that is
        free.

        Raises MemoryError where its memory runs out, and EncoderError where its process died.
        """
        if not len(batch):
            return np.empty((0, self.dim), dtype=np.float32)
        return self._started().encode(batch).reshape(len(batch), self.dim)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for pictures, in batches on all devices."""

        def rows(start: int) -> Vectors:
            part = images[start : start + _IMAGE_BATCH]
            return self.encode_prepared([self.prepare(upright_rgb(image)) for image in part])

        with ThreadPoolExecutor(self.parallel_calls) as pool:
            parts = [*pool.map(rows, range(0, len(images), _IMAGE_BATCH))]
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *parts])

    def free_image_tower(self) -> None:
        """End the processes, until the next picture."""
        self.encoder.free_image_tower()
        with self._starting:
            if self._processes is not None:
                self._end()
                self._processes = None

    def tune(self, batch_size: int) -> None:
        """Let each device measure how it encodes batches of ``batch_size`` fastest."""
        self._started().tune(batch_size)


class DevicesEncoder(DevicesImageEncoder, Encoder):
    """An encoder whose image tower runs on several devices, and whose text tower on the first, in
    this process.
    """

    encoder: Encoder

    def __init__(self, encoder: Encoder, devices: Sequence[str], runtime: str) -> None:
        super().__init__(encoder, devices, runtime)
        self.logit_scale, self.logit_bias = encoder.logit_scale, encoder.logit_bias
        self.languages = encoder.languages

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return ``(n, dim)`` float32 unit rows for texts."""
        return self.encoder.encode_texts(texts)

    def is_cut(self, text: str) -> bool:
        """Return whether a text is longer than the model reads."""
        return self.encoder.is_cut(text)


class _Processes:
    """The processes of all devices, the model loaded in each."""

    def __init__(self, encoder: ImageEncoder, devices: Sequence[str], runtime: str) -> None:
        from vitsearch.encoders.onnx import usable_cores

        threads = max(1, usable_cores() // len(devices))
        self._all: list[_Process] = []
        try:
            for device in devices:
                self._all.append(_Process(encoder, device, runtime, threads))
            calls = [process.wait_until_loaded() for process in self._all]
        except BaseException:
            self.close()
            raise
        # each takes one batch more than it encodes, so that none waits for pixels; in turns, so
        # that the first batches go to all
        self._free: SimpleQueue[_Process] = SimpleQueue()
        for turn in range(max(calls) + 1):
            for process, number in zip(self._all, calls, strict=True):
                if turn <= number:
                    self._free.put(process)
        self.parallel_calls = sum(calls) + len(calls)

    def encode(self, batch: Sequence[NDArray[Any]]) -> Vectors:
        process = self._free.get()
        try:
            shapes = shapes_of(batch)
            return process.request({"shapes": shapes}, batch).result().view(np.float32)
        finally:
            self._free.put(process)

    def tune(self, batch_size: int) -> None:
        for answer in [process.request({"tune": batch_size}) for process in self._all]:
            answer.result()

    def close(self) -> None:
        for process in self._all:
            process.kill()


class _Process:
    """The process of one device; requests may come from any thread."""

    def __init__(self, encoder: ImageEncoder, device: str, runtime: str, threads: int) -> None:
        self.device, self._encoder, self._was_stopped = device, encoder, False
        self._answers: dict[int, Future[Bytes]] = {}
        self._numbers = count()
        self._reader: Thread | None = None
        self._sending, self._has_ended = RLock(), False
        chosen = {"name": encoder.name, "device": device, "dtype": encoder.dtype}
        try:
            self._process = subprocess.Popen(
                python_command(_STATEMENT),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict.fromkeys(_THREADS, str(threads)) | os.environ,
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._to, self._from = self._process.stdin, self._process.stdout
            widen_pipe(self._to.fileno())
            send(self._to, {**chosen, "runtime": runtime, "calls": threads})
        except OSError as error:
            raise EncoderError(
                f"no process can be started for device {device} ({error.strerror})"
            ) from error

    def wait_until_loaded(self) -> int:
        """Return how many calls it takes at once; raises EncoderError where it cannot load."""
        try:
            header, _ = self._receive()
        except EOFError:
            raise EncoderError(
                f"the process that loads the model for device {self.device} {self._ending()}: "
                f"--device {self.device} alone says why"
            ) from None
        if problem := header.get("error") or header.get("memory"):
            raise EncoderError(f"{problem} (on device {self.device})")
        if header["fingerprint"] != self._encoder.fingerprint:
            raise EncoderError(f"the model {self._encoder.name} has changed: try again")
        self._reader = Thread(target=self._read, name=f"vitsearch-{self.device}", daemon=True)
        self._reader.start()
        calls: int = header["calls"]
        return calls

    def request(
        self, header: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()
    ) -> "Future[Bytes]":
        """Return the body of the answer, which may also be MemoryError or EncoderError."""
        answer: Future[Bytes] = Future()
        with self._sending:
            if self._has_ended:
                raise self._death()
            number = next(self._numbers)
            self._answers[number] = answer
            try:
                send(self._to, {"id": number, **header}, arrays)
            except OSError:
                log.debug("%s is gone", self.device)  # whoever reads its answers says so
            except BaseException:  # a part of a message would be read as the beginning of the next
                self._has_ended = True
                self._process.kill()
                raise
        return answer

    def kill(self) -> None:
        """End the process at once; what it was encoding is lost."""
        self._was_stopped = True
        self._process.kill()
        self._process.wait()
        with self._sending:
            self._to.close()
        if self._reader is None:
            self._from.close()

    def _read(self) -> None:
        """Hand out the answers until the process ends."""
        try:
            while True:
                header, body = self._receive()
                answer = self._answers.pop(header["id"])
                if "memory" in header:
                    answer.set_exception(MemoryError(header["memory"]))
                elif "error" in header:
                    problem = f"{header['error']} (on device {self.device})"
                    answer.set_exception(EncoderError(problem))
                else:
                    answer.set_result(body)
        except EOFError:
            log.debug("%s has ended", self.device)
        except Exception:  # what cannot be read here leaves nothing to read after it
            log.debug("%s cannot be read", self.device, exc_info=True)
            self._process.kill()
        self._from.close()
        with self._sending:
            self._has_ended = True
        while self._answers:
            _, answer = self._answers.popitem()
            answer.set_exception(self._death())

    def _receive(self) -> tuple[dict[str, Any], Bytes]:
        while True:
            header, body = receive(self._from)
            if "remark" not in header:
                return header, body
            log.warning("%s: %s", self.device, header["remark"])

    def _ending(self) -> str:
        code = self._process.wait()
        if self._was_stopped:
            return "was stopped"
        return f"was killed, signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _death(self) -> EncoderError:
        return EncoderError(
            f"the process that encodes on device {self.device} {self._ending()}: start again, what "
            "is stored stays"
        )

"""Decodes JPEGs where a model runs, and prepares them there for it: on an NVIDIA GPU by nvJPEG.

nvJPEG reads the files of strangers and is not a decoder that browsers trust, so it runs in a
process of its own (`vitsearch.encoders.device_jpegs`): where that crashes or hangs, the photos that
it had are decoded by the CPU, and another process is started. Whatever is not a plain JPEG
(ITU-T T.81), which it may read otherwise than libjpeg or not at all, is left to the CPU from the
start, and so is what the device has no memory for.
"""

import importlib.util
import io
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.devices import device_names
from vitsearch.encoders.preprocess import Layout, Preprocess, layout_of
from vitsearch.errors import EncoderError, VitsearchError
from vitsearch.photos.columns import read_metadata
from vitsearch.photos.decode import TURNS, Colours
from vitsearch.photos.exif import read_tags
from vitsearch.photos.isolated import PATIENCE, ChildDecoder, DecoderNotStarted
from vitsearch.photos.profiles import PROFILE, changing_profile, to_srgb
from vitsearch.types import MAX_PIXELS, PhotoInfo

MAX_SEGMENTS = 1_000  # before the first scan: 64 MB of notes
_START, _SCAN, _END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of every process
_READ_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, of Huffman
# sampling factors of grey, 4:4:4, 4:2:2 and 4:2:0
_SAMPLINGS = (b"\x11", b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")
_YCBCR = b"\x01\x02\x03"  # the components' numbers
_YCBCR_TRANSFORM = 1  # of Adobe's segment


@dataclass(frozen=True, slots=True)
class PlainJpeg:
    """What the head of a JPEG says: the width and height that are stored, the EXIF orientation, the
    size as shown and the metadata, and an RGB profile that changes its colours.
    """

    size: tuple[int, int]
    orientation: int
    info: PhotoInfo
    profile: bytes | None = None


def read_plain_jpeg(data: bytes, *, colours: Colours = "profile") -> PlainJpeg | None:
    """Return what the head of a file's content says where it is a plain JPEG, else None.

    Plain is one that has its end, is baseline or progressive in 8 bits, grey or YCbCr in 4:4:4,
    4:2:2 or 4:2:0, and without a grey profile that changes it. Nothing is decoded, and nothing is
    raised.
    """
    try:
        frame = _frame_of(data)
        if frame is None or not _is_plain(frame):
            return None
        image = JpegImageFile(io.BytesIO(data), "")
        if image.info.get("adobe_transform", _YCBCR_TRANSFORM) != _YCBCR_TRANSFORM:
            return None
        tags = read_tags(image)
        size = (int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big"))
        profile = None
        if colours != "raw":
            profile = changing_profile(image.mode, image.info.get(PROFILE))
        if image.size != size or 0 in size or (profile and image.mode == "L"):
            return None
        shown = size[::-1] if tags.orientation >= 5 else size
        orientation = tags.orientation if tags.orientation in TURNS else 1
        return PlainJpeg(size, orientation, PhotoInfo(*shown, read_metadata(tags)), profile)
    except Exception:  # whatever is odd here is said by the reader of all JPEGs
        return None


def _is_plain(frame: bytes) -> bool:
    """Return whether a frame header has 8 bits, and components and a sampling that are read."""
    count = frame[5]
    components = frame[6 : 6 + 3 * count]
    return (
        frame[0] == 8
        and len(frame) == 6 + 3 * count
        and components[1::3] in _SAMPLINGS
        and (count == 1 or components[::3] == _YCBCR)
    )


def _frame_of(data: bytes) -> bytes | None:
    """Return the frame header of a JPEG whose segments follow each other up to the first scan, and
    that has an end behind it; None where that is not so or the process is another.
    """
    if not data.startswith(_START):
        return None
    at, frames = len(_START), list[bytes]()
    for _ in range(MAX_SEGMENTS):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # fill bytes are left to libjpeg
            return None
        body = data[at + 4 : (end := at + 2 + int.from_bytes(data[at + 2 : at + 4], "big"))]
        if end < at + 4 or marker == 0 or 0xD0 <= marker <= 0xD9:
            return None
        if marker == _SCAN:
            return frames[0] if len(frames) == 1 and data.rfind(_END, end) > 0 else None
        if marker in _FRAMES:
            if marker not in _READ_FRAMES:
                return None
            frames.append(body)
        at = end
    return None


log = logging.getLogger("vitsearch")
# -- The decoder -----------------------------------------------------------------------------------


MAX_CALL = 32  # JPEGs decoded in one call
MAX_CALL_PIXELS = 200_000_000  # 0.6 GB of the device
MAX_CALL_BYTES = 256_000_000
MAX_PHOTO_PIXELS = 100_000_000  # 1.5 GB of the device while it is resized
MAX_DEATHS = 5  # of the process, until all photos are left to the CPU
INTERPOLATIONS = ("bilinear", "bicubic")  # that PyTorch filters as Pillow does

Pixels = NDArray[np.uint8]


def check_device_decoding(encoder: ImageEncoder) -> None:
    """Raise EncoderError where photos cannot be decoded on the device of an encoder."""
    steps, device = encoder.preprocess, device_names(encoder.device)[0]
    if steps is None or steps.interpolation not in INTERPOLATIONS:
        raise EncoderError(
            f"encoder {encoder.name} prepares photos in its own way, on the CPU: leave out "
            "--decode device"
        )
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise EncoderError(
            f"JPEGs are decoded on cpu or cuda, not on {device}: leave out --decode device"
        )
    missing = [name for name in ("torch", "torchvision") if not importlib.util.find_spec(name)]
    if missing:
        raise EncoderError(
            f"--decode device needs {missing[0]}, which is not installed: pip install "
            "'vitsearch[clip]'"
        )


@dataclass(frozen=True, slots=True)
class _Job:
    """A JPEG that waits for the device, with what its head says and what it becomes."""

    data: bytes
    jpeg: PlainJpeg
    layout: Layout
    pixels: "Future[Pixels | None]" = field(default_factory=Future)

    @property
    def pixel_count(self) -> int:
        return self.jpeg.size[0] * self.jpeg.size[1]


class DeviceDecoder:
    """Decodes and prepares JPEGs on the device of an encoder, from any thread, until it is closed.

    The JPEGs of all threads that wait are decoded in one call, which ends after ``seconds`` for
    each.
    Raises EncoderError where the device or the encoder does not allow it.
    """

    def __init__(self, encoder: ImageEncoder, *, seconds: float | None = None) -> None:
        check_device_decoding(encoder)
        assert encoder.preprocess is not None
        self._how: Preprocess = encoder.preprocess
        self.device = device_names(encoder.device)[0]
        self._seconds = seconds or PATIENCE
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._held: _Job | None = None
        self._lock = threading.Lock()
        self._closed, self._deaths = False, 0
        self._child: ChildDecoder | None = self._started()
        try:
            self._ask(self._child, ())
        except DecoderNotStarted as error:
            self._child.close()
            raise EncoderError(
                f"the process that decodes on {self.device} does not start: `{sys.executable} -c "
                "'import torch, torchvision'` says why; or leave out --decode device"
            ) from error
        except VitsearchError as error:
            self._child.close()
            raise EncoderError(
                f"JPEGs cannot be decoded on {self.device} ({error}): leave out --decode device"
            ) from error
        self._thread = threading.Thread(
            target=self._work, name="vitsearch-device-decoder", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "DeviceDecoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(
        self, data: bytes, *, max_pixels: int = MAX_PIXELS, colours: Colours = "profile"
    ) -> tuple[Pixels, PhotoInfo] | None:
        """Return the encoder's input for the content of a photo file, ``(h, w, 3)`` uint8, upright
        and in its colours, with the photo's size and metadata; None where the CPU is to decode it.
        """
        jpeg = read_plain_jpeg(data, colours=colours) if len(data) <= MAX_CALL_BYTES else None
        layout = layout_of(jpeg.info, self._how) if jpeg else None
        if jpeg is None or layout is None:
            return None
        job = _Job(data, jpeg, layout)
        if job.pixel_count > min(max_pixels, MAX_PHOTO_PIXELS) or not self._put(job):
            return None
        pixels = job.pixels.result()
        if pixels is None:
            return None
        if jpeg.profile:
            pixels = np.array(to_srgb(Image.fromarray(pixels), jpeg.profile))
        return pixels, jpeg.info

    def close(self) -> None:
        """End the process; what waits is left to the CPU."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)
            if self._child:
                self._child.kill()
        self._thread.join()
        if self._child:
            self._child.close()

    def _put(self, job: _Job) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._jobs.put(job)
            return True

    def _work(self) -> None:
        """Decode what waits, until the decoder is closed."""
        while batch := self._next_batch():
            decoded: Sequence[Pixels | None] = [None] * len(batch)
            try:
                if self._child:
                    decoded = self._ask(self._child, batch)
            except Exception as error:  # whatever it is, threads wait for an answer
                self._replace_child(error, len(batch))
            for job, pixels in zip(batch, decoded, strict=True):
                job.pixels.set_result(pixels)

    def _next_batch(self) -> list[_Job]:
        """Wait for a JPEG, and return it with the others that wait; none when it is closed."""
        first, self._held = self._held or self._jobs.get(), None
        batch = [first] if first else []
        pixels, size = (first.pixel_count, len(first.data)) if first else (0, 0)
        with suppress(Empty):
            while batch and len(batch) < MAX_CALL:
                job = self._jobs.get_nowait()
                if job is None:
                    self._jobs.put(None)  # for the next round
                    break
                pixels, size = pixels + job.pixel_count, size + len(job.data)
                if pixels > MAX_CALL_PIXELS or size > MAX_CALL_BYTES:
                    self._held = job
                    break
                batch.append(job)
        return batch

    def _ask(self, child: ChildDecoder, batch: Sequence[_Job]) -> list[Pixels | None]:
        """Return the pictures of a call, None where the CPU is to decode one."""
        fill = self._how.fill_color
        jpegs = [
            {
                "bytes": len(job.data),
                "size": job.jpeg.size,
                "becomes": {
                    "orientation": job.jpeg.orientation,
                    "layout": asdict(job.layout),
                    "fill_color": fill,
                },
            }
            for job in batch
        ]
        shapes = [(*job.layout.crop, 3) for job in batch]
        limits = {"jpegs": jpegs, "max_pixels": sum(height * width for height, width, _ in shapes)}
        content = b"".join(job.data for job in batch)
        return child.ask(
            content,
            limits,
            lambda reply, body: _pictures(reply, body, shapes),
            seconds=self._seconds * max(1, len(batch)),
        )

    def _started(self) -> ChildDecoder:
        return ChildDecoder(
            f"from vitsearch.encoders.device_decoder import serve; serve({self.device!r})"
        )

    def _replace_child(self, error: Exception, count: int) -> None:
        with self._lock:
            if self._closed or self._child is None:
                return
            self._child.close()
            self._child, self._deaths = None, self._deaths + 1
            log.warning("decoding on %s: %s; %d photos go to the CPU", self.device, error, count)
            if self._deaths == MAX_DEATHS:
                log.warning("decoding on %s has failed too often: the CPU goes on", self.device)
                return
            with suppress(VitsearchError):
                self._child = self._started()


def _pictures(
    reply: Mapping[str, Any], body: bytearray, shapes: Sequence[tuple[int, int, int]]
) -> list[Pixels | None]:
    """Return the pictures of an answer; raises ValueError, TypeError or KeyError where that is not
    one.
    """
    pictures: list[Pixels | None] = []
    pixels, start = np.frombuffer(body, dtype=np.uint8), 0
    for answered, shape in zip(reply["shapes"], shapes, strict=True):
        if answered is None:
            pictures.append(None)
            continue
        end = start + int(np.prod(shape))
        if tuple(answered) != shape:
            raise ValueError
        pictures.append(pixels[start:end].reshape(shape))
        start = end
    return pictures


def serve(device: str) -> None:
    """Decode on a device what comes on stdin until it ends: all that the process does.

    Its torchvision is the package without its own module, which loads all models for half of the
    seconds in which the process starts, and JPEGs need none.
    """
    if spec := importlib.util.find_spec("torchvision"):
        sys.modules["torchvision"] = importlib.util.module_from_spec(spec)
    from vitsearch.encoders.device_jpegs import serve as serve_jpegs

    serve_jpegs(device)

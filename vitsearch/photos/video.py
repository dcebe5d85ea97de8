"""Reads a video with FFmpeg (PyAV): upright RGB pictures of its moments, and its metadata.

This is native code on the files of strangers, so only a child process calls it
(`vitsearch.photos.child`). The first bytes choose the demuxer: those of play lists would open other
files.
"""

import contextlib
import math
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos.columns import camera_name, read_metadata
from vitsearch.photos.dates import DateTaken, parse_date
from vitsearch.photos.decode import TURNS
from vitsearch.photos.depth import standard_range
from vitsearch.photos.exif import FileTags, iso_boxes, on_earth, one_line
from vitsearch.photos.formats import HEAD, container_of
from vitsearch.types import PhotoInfo, Value

MAX_TEXT_LENGTH = 100
_ZERO_DAYS = ("1904-01-01", "1970-01-01")  # the beginnings of the clocks of QuickTime and Unix
# where a container says when it was recorded, in the order in which it is trusted
_DATES = (
    ("com.apple.quicktime.creationdate", "QuickTime:CreationDate"),
    ("date", "QuickTime:ContentCreateDate"),
    ("creation_time", "QuickTime:CreateDate"),
)
_POSITIONS = ("com.apple.quicktime.location.iso6709", "location", "location-eng")
_MAKERS = ("com.apple.quicktime.make", "com.android.manufacturer", "make")
_MODELS = ("com.apple.quicktime.model", "com.android.model", "model")
_ISO6709 = re.compile(r"([+-])(\d+)(\.\d+)?([+-])(\d+)(\.\d+)?", re.ASCII)


def read_container(tags: Mapping[str, str], duration: float | None) -> Mapping[str, Value | None]:
    """Return the metadata columns of a video from its tags, by the names that FFmpeg gives them,
    and from its XMP packet, which is one of them.
    """
    texts = {key.lower(): value for key, value in tags.items()}
    values: dict[str, Value | None] = {"duration": duration}
    if date := _date(texts):
        values |= {"taken_at": date.at, "taken_from": date.source}
        values["taken_offset"] = date.offset or None
    if camera := camera_name(_first(texts, _MAKERS), _first(texts, _MODELS)):
        values["camera"] = camera
    position = next(filter(None, (_position(texts.get(key, "")) for key in _POSITIONS)), None)
    if position:
        values |= {"latitude": position[0], "longitude": position[1]}
    xmp = texts.get("xmp", "").encode("utf-8", "surrogateescape")[:1_000_000]
    return read_metadata(FileTags(xmp=xmp, video=values))


def _first(texts: Mapping[str, str], names: tuple[str, ...]) -> str:
    written = (one_line(texts.get(name, ""), MAX_TEXT_LENGTH) for name in names)
    return next(filter(None, written), "")


def _date(texts: Mapping[str, str]) -> DateTaken | None:
    for key, source in _DATES:
        date = parse_date(texts.get(key, ""))
        if date is not None and not date[0].startswith(_ZERO_DAYS):
            return DateTaken(date[0], source, date[1])
    return None


def _position(text: str) -> tuple[float, float] | None:
    """Return latitude and longitude of ISO 6709 in degrees, None for none and for 0,0."""
    match = _ISO6709.match(text.strip())
    if match is None:
        return None
    latitude = _degrees(match[1], match[2], match[3] or "", 2)
    return on_earth(latitude, _degrees(match[4], match[5], match[6] or "", 3))


def _degrees(sign: str, digits: str, fraction: str, width: int) -> float:
    """Return an angle written as degrees, with minutes, or with minutes and seconds."""
    degrees, rest = digits[:width], digits[width:]
    parts = [degrees, *(rest[start : start + 2] for start in range(0, len(rest), 2))]
    parts[-1] += fraction
    total = sum(float(part) / 60**power for power, part in enumerate(parts))
    return round(-total if sign == "-" else total, 7)


MAX_MOMENTS = 1000  # of one video: a longer one has them farther apart
MAX_BAD_PACKETS = 1000  # after which the rest is given up
HD_HEIGHT = 720  # from which a video that does not name its colours has those of BT.709
_MISSING_SECONDS = 1.0  # at the end of a video, from which it counts as cut off
_ROUNDED = 1e-3  # seconds: times are rounded to milliseconds
_MATRIX = 9  # numbers of a display matrix
# EXIF orientations by the signs of display matrices: x and y of their column, x and y of their row
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}

Moment = tuple[Image.Image, PhotoInfo]
_Packet = Any  # av.Packet, which is generic for type checkers alone


@dataclass(frozen=True, slots=True)
class _Video:
    """An open video: its picture stream, when it begins and how long it lasts, in seconds."""

    container: InputContainer
    stream: VideoStream
    start: float
    duration: float | None
    at_least: int | None
    metadata: Mapping[str, Value | None]

    def seconds(self, pts: int | None) -> float | None:
        """Return the time of a picture or a packet from the beginning, at least 0."""
        if pts is None or self.stream.time_base is None:
            return None
        return max(0.0, float(pts * self.stream.time_base) - self.start)

    def seek(self, seconds: float) -> None:
        """Go on with the last key packet before a time, as far as that can be told."""
        base = self.stream.time_base
        self.stream.codec_context.flush_buffers()
        with contextlib.suppress(av.error.FFmpegError):
            if seconds > 0 and base is not None:
                target = int((seconds + self.start + _ROUNDED) / base)
                self.container.seek(target, stream=self.stream)
            else:
                self.container.seek(0)

    def moment(self, frame: VideoFrame) -> Moment:
        """Return a decoded picture, upright, with its facts."""
        width, height = _displayed(frame, self.stream)
        turn = TURNS.get(_orientation(frame))
        upright = _picture(frame, _reduced(width, height, self.at_least))
        if turn is not None:
            upright = upright.transpose(turn)
        if _orientation(frame) >= 5:
            width, height = height, width
        time = round(self.seconds(frame.pts) or 0.0, 3)
        return upright, PhotoInfo(width, height, {**self.metadata, "time": time})


def read_moments(
    path: str, *, every: float, max_pixels: int, at_least: int | None
) -> Generator[Moment, None, str]:
    """Yield the key frames of a video in the order of time, at most one in ``every`` seconds and
    `MAX_MOMENTS` in all, and return a note about what could not be read, or "".

    The pictures are upright, in square pixels, 8-bit sRGB, and with ``at_least`` their short side
    has no more than so many pixels; ``info`` has the full size, and the column ``time`` in seconds
    from the beginning. Raises only PhotoError, with a short reason.
    """
    with _opened(path, max_pixels, at_least) as video:
        if video.duration:
            every = max(every, video.duration / MAX_MOMENTS)
        reading = _Reading(video)
        count = yield from reading.moments(reading.key_packets(every), every)
        if not count:  # no picture stands for itself: some encoders refresh a part at a time
            reading = _Reading(video)
            video.seek(0)
            count = yield from reading.moments(reading.packets(), every)
        if not count:
            raise PhotoError(f"no picture of the video can be decoded{reading.reason}")
        return reading.note()


def read_moment(path: str, *, at: float, max_pixels: int, at_least: int | None) -> Moment:
    """Return the key frame of a video that is shown ``at`` so many seconds, or the last one before;
    otherwise as `read_moments`.
    """
    with _opened(path, max_pixels, at_least) as video:
        video.stream.codec_context.thread_type = "SLICE"  # others would want more pictures first
        reading = _Reading(video)
        for back in (0, 20, 120, at):  # without an index a seek may end anywhere
            if at > 0:
                video.seek(at - back)
            for moment in reading.moments(reading.key_packet_at(at), 0):
                return moment
        for packets in (reading.key_packets(0), reading.packets()):
            video.seek(0)
            for moment in reading.moments(packets, 0):
                return moment
        raise PhotoError(f"no picture of the video can be decoded{reading.reason}")


class _Reading:
    """One pass over the packets of a video; ``reason`` is the last error, for a message."""

    def __init__(self, video: _Video) -> None:
        self._video = video
        self._bad = 0
        self._last = 0.0
        self.reason = ""

    def packets(self) -> Iterator[_Packet]:
        """Yield the packets of the picture stream until they end or cannot be read any more."""
        try:
            for packet in self._video.container.demux(self._video.stream):
                time = self._video.seconds(packet.pts)
                self._last = max(self._last, time or 0.0)
                yield packet
        except (av.error.FFmpegError, OSError) as error:
            self._failed(error)

    def key_packets(self, every: float) -> Iterator[_Packet]:
        """Yield key packets, at most one in ``every`` seconds, then the one that ends them."""
        # the demuxer could skip the others itself, but that of MP4 then gives wrong times
        due = -math.inf
        for packet in self.packets():
            if packet.size == 0:
                yield packet
                continue
            time = self._video.seconds(packet.pts if packet.pts is not None else packet.dts)
            if packet.is_keyframe and (time is None or time >= due):
                if time is not None:
                    due = time + every - 1e-3
                yield packet

    def key_packet_at(self, at: float) -> Iterator[_Packet | None]:
        """Yield the last key packet that is not after a time, and what makes it come out."""
        latest = None
        for packet in self.key_packets(0):
            time = self._video.seconds(packet.pts)
            is_later = time is not None and time > at + _ROUNDED
            if packet.size == 0 or is_later:
                break
            latest = packet
        if latest is not None:
            yield latest
        yield None

    def moments(
        self, packets: Iterator[_Packet | None], every: float
    ) -> Generator[Moment, None, int]:
        """Yield the decoded pictures, at most one in ``every`` seconds, and return how many."""
        count, due = 0, -math.inf
        for packet in packets:
            try:
                frames = self._video.stream.codec_context.decode(packet)
            except (av.error.FFmpegError, ValueError) as error:
                self._failed(error)
                if self._bad > MAX_BAD_PACKETS:
                    break
                continue
            for frame in frames:
                time = self._video.seconds(frame.pts)
                if frame.is_corrupt or (time is not None and time < due) or count >= MAX_MOMENTS:
                    continue
                due = (time or 0.0) + every - 1e-3
                count += 1
                yield self._video.moment(frame)
        return count

    def _failed(self, error: Exception) -> None:
        self._bad += 1
        self.reason = f": {_reason(error)}"

    def note(self) -> str:
        """Return what a person should know of a video that was read in part, or ""."""
        duration = self._video.duration or 0.0
        rate = self._video.stream.average_rate
        gap = 3 / float(rate) if rate else 0.0
        if duration - self._last > max(_MISSING_SECONDS, gap, 0.05 * duration):
            return f"read up to {self._last:.0f} of {duration:.0f} seconds{self.reason}"
        return f"parts could not be decoded{self.reason}" if self._bad else ""


# -- Opening ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: str, max_pixels: int, at_least: int | None) -> Iterator[_Video]:
    try:
        demuxer = None
        with open(path, "rb") as file:
            demuxer = container_of(file.read(HEAD))
            if demuxer is None:
                raise PhotoError("not a video: its content is of no container that is read here")
            file.seek(0)
            with av.open(
                file,
                "r",
                format=demuxer,
                metadata_errors="replace",
                container_options={"protocol_whitelist": "file", "export_xmp": "1"},
                buffer_size=1 << 18,
            ) as container:
                yield _video(container, max_pixels, at_least)
    except PhotoError:
        raise
    except MemoryError:
        raise PhotoError("not enough memory to decode it") from None
    except av.error.InvalidDataError as error:
        raise PhotoError(_damage(path, demuxer)) from error
    except Exception as error:
        raise PhotoError(f"cannot be decoded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or str(error), 160) or type(error).__name__


def _damage(path: str, demuxer: str | None) -> str:
    """Return what is wrong with a file that cannot be opened."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        kinds = {kind for kind, _, _ in iso_boxes(content)}
    if demuxer == "mov" and b"moov" not in kinds:
        return "it is cut off: its table of contents (moov), which is at the end, is missing"
    return "its content is damaged"


def _video(container: InputContainer, max_pixels: int, at_least: int | None) -> _Video:
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        sound = "only sound" if container.streams.audio else "no stream of pictures"
        raise PhotoError(f"the video holds {sound}")
    readable = [each for each in streams if each.codec_context is not None]
    if not readable:
        raise PhotoError("the video is of a codec that this PyAV does not decode")
    # a phone's file may hold a preview or a depth map beside the picture
    stream = max(readable, key=lambda each: (each.width or 0) * (each.height or 0))
    context = stream.codec_context
    if context.width * context.height > max_pixels:
        raise PhotoError(
            f"{context.width} x {context.height} = {context.width * context.height:,} pixels, "
            f"over the cap of {max_pixels:,} (raise max_pixels to read it)"
        )
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    context.thread_type, context.thread_count = "AUTO", min(8, os.cpu_count() or 1)
    context.skip_frame = "DEFAULT"
    context.options = {"max_pixels": str(max_pixels)} | _lowres(context, at_least)
    start = container.start_time
    base = stream.time_base
    if start is not None:
        begin = start / av.time_base
    else:
        begin = float(stream.start_time * base) if stream.start_time and base else 0.0
    duration = _duration(container, stream)
    return _Video(
        container,
        stream,
        begin,
        duration,
        at_least,
        read_container(stream.metadata | container.metadata, duration),
    )


def _lowres(context: Any, at_least: int | None) -> dict[str, str]:
    """Return the option of a codec that decodes at a half, a quarter or an eighth of the size."""
    short = min(context.width, context.height)
    if at_least is None or context.name not in ("mpeg2video", "mpeg1video", "mjpeg", "mpeg4"):
        return {}
    power = min(3, int(math.log2(max(1.0, short / at_least))))
    return {"lowres": str(power)} if power else {}


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Return how long the pictures last in seconds, None where the file does not say."""
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / av.time_base
    return round(seconds, 3) if 0 < seconds < math.inf else None


# -- Pictures --------------------------------------------------------------------------------------


def _displayed(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Return the size of a picture in square pixels, before it is turned."""
    context = stream.codec_context
    width, height = context.width or frame.width, context.height or frame.height
    shape = stream.sample_aspect_ratio or context.sample_aspect_ratio
    if shape and 0.1 <= shape <= 10:
        width = max(1, round(width * shape))
    return width, height


def _reduced(width: int, height: int, at_least: int | None) -> tuple[int, int]:
    scale = 1.0 if at_least is None else min(1.0, at_least / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _orientation(frame: VideoFrame) -> int:
    """Return the display matrix of a picture as the EXIF orientation that means the same."""
    side_data: Iterable[Any] = frame.side_data  # wrongly typed as texts
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), dtype=np.int32)
            if len(matrix) == _MATRIX:
                xx, xy, yx, yy = (_sign(int(matrix[index])) for index in (0, 1, 3, 4))
                return _ORIENTATIONS.get((xx, xy, yx, yy), 1)
    return 1


def _sign(number: int) -> int:
    return 0 if abs(number) < 1 << 14 else 1 if number > 0 else -1  # below a quarter is a tilt


def _picture(frame: VideoFrame, size: tuple[int, int]) -> Image.Image:
    """Return a frame as an 8-bit sRGB picture of this size; of an interlaced one, one field."""
    high_range = frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
    wide = high_range or frame.color_primaries == ColorPrimaries.BT2020
    colours = frame.colorspace if frame.colorspace not in (2, 0) else None
    if colours is None and frame.height >= HD_HEIGHT:
        colours = 1
    width, height = size
    fields = frame.interlaced_frame and frame.height >= 2
    reformatted = frame.reformat(
        frame.width if fields else width,
        frame.height if fields else height,
        format="rgb48le" if wide else "rgb24",
        src_colorspace=colours,
        src_color_range=frame.color_range,
        interpolation=Interpolation.AREA if height < frame.height else Interpolation.BICUBIC,
        threads=1,
    )
    pixels: NDArray[Any] = reformatted.to_ndarray()
    if wide:
        pixels = standard_range(pixels, frame.color_trc if high_range else None)
    if fields:
        field = Image.fromarray(np.ascontiguousarray(pixels[::2]))
        return field.resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray(pixels)

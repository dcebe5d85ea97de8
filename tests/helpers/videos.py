"""Small videos of plain colours, written by PyAV: one colour after the other, a second each."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from vitsearch.encoders.colour import WORDS

FRAMES = 10  # a second, and from one key frame to the next


@dataclass(frozen=True, kw_only=True)
class Clip:
    """How a video is written; ``corner`` marks its upper left quarter in white."""

    codec: str = "libx264"
    size: tuple[int, int] = (64, 48)
    key_every: int = FRAMES
    pixels: str = "yuv420p"
    rotation: int = 0  # degrees, counterclockwise
    shape: Fraction = Fraction(1)
    corner: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    stream: dict[str, str] = field(default_factory=dict)  # options
    container: dict[str, str] = field(default_factory=dict)
    demuxer: str | None = None


PLAIN = Clip()


def make_video(path: Path, *colours: str, clip: Clip = PLAIN) -> Path:
    """Write a video of colours (words of the colour encoder) and return its path."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = clip.size
    rate = 25 if clip.codec == "mpeg2video" else FRAMES
    with av.open(str(path), "w", format=clip.demuxer, options=clip.container) as output:
        output.metadata.update(clip.tags)
        options = {"g": str(clip.key_every), "keyint_min": str(clip.key_every), "sc_threshold": "0"}
        stream = output.add_stream(clip.codec, rate=rate, options=options | clip.stream)
        stream.width, stream.height, stream.pix_fmt = width, height, clip.pixels
        stream.sample_aspect_ratio = clip.shape
        if clip.rotation:
            stream.set_display_rotation(clip.rotation)
        for number in range(rate * len(colours)):
            pixels = np.empty((height, width, 3), dtype=np.uint8)
            pixels[:] = WORDS[colours[number // rate]]
            if clip.corner:
                pixels[: height // 2, : width // 2] = 255
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


def make_sound(path: Path) -> Path:
    """Write a file of sound without pictures."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path

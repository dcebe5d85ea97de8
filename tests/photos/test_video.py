"""Videos: which moments are read, how they look, what their container says, and what is refused."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

from helpers.videos import Clip, make_sound, make_video
from vitsearch.encoders.colour import WORDS
from vitsearch.errors import PhotoError
from vitsearch.photos.decode import read_fingerprint
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.formats import HEAD, VIDEO, container_of, video_type
from vitsearch.photos.isolated import DecoderDied
from vitsearch.photos.video import read_container, read_moment, read_moments
from vitsearch.types import MAX_PIXELS

LIMITS: dict[str, Any] = {"max_pixels": MAX_PIXELS, "at_least": None}
COLOURS = ("red", "green", "blue", "yellow")


def moments(path: Path, every: float = 1, **limits: Any) -> tuple[list[tuple[float, str]], str]:
    """Return the times of a video's moments with the colours of their lower right corners, and the
    note.
    """
    reading, seen = read_moments(str(path), every=every, **LIMITS | limits), []
    while True:
        try:
            image, info = next(reading)
        except StopIteration as end:
            return seen, end.value
        seen.append((float(info["time"] or 0), colour(image.getpixel((-3, -3)))))


def colour(pixel: Any) -> str:
    return min(WORDS, key=lambda word: np.abs(np.subtract(WORDS[word], pixel)).sum())


ALL = [(0.0, "red"), (1.0, "green"), (2.0, "blue"), (3.0, "yellow")]
KINDS = {
    "a.mp4": Clip(),
    "a.mov": Clip(),
    "a.m4v": Clip(demuxer="mp4"),
    "a.mkv": Clip(),
    "a.webm": Clip(codec="libvpx"),
    "a.avi": Clip(codec="mpeg4"),
    "a.3gp": Clip(codec="mpeg4"),
    "a.mts": Clip(demuxer="mpegts"),
    "a.m2ts": Clip(demuxer="mpegts", container={"mpegts_m2ts_mode": "1"}),
    "a.wmv": Clip(codec="wmv2", demuxer="asf"),
    "fragments.mp4": Clip(container={"movflags": "frag_keyframe+empty_moov"}),
    "motion.avi": Clip(codec="mjpeg", pixels="yuvj420p"),
    "ten.mov": Clip(codec="prores_ks", pixels="yuv422p10le"),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_key_frames_of_every_container(name: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / name, *COLOURS, clip=KINDS[name])
    assert path.suffix[1:] in VIDEO.suffixes
    assert moments(path) == (ALL, "")
    assert moments(path, every=2) == ([ALL[0], ALL[2]], "")


def test_a_moment_is_the_one_that_was_read(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mts", "a.mkv"):
        path = make_video(tmp_path / name, *COLOURS, clip=KINDS[name])
        for time, word in ALL:
            image, info = read_moment(str(path), at=time, **LIMITS)
            assert (info["time"], colour(image.getpixel((-3, -3)))) == (time, word)
        assert read_moment(str(path), at=2.6, **LIMITS)[1]["time"] == 2.0
        assert read_moment(str(path), at=99, **LIMITS)[1]["time"] == 3.0


def corner(path: Path, **limits: Any) -> tuple[tuple[int, int], tuple[int, int], list[bool]]:
    """Return the sizes of picture and video, and which corners are white, as one reads."""
    image, info = read_moment(str(path), at=0, **LIMITS | limits)
    right, bottom = image.width - 3, image.height - 3
    white = [min(image.getpixel(place)) > 200 for place in ((2, 2), (right, 2), (2, bottom))]
    return (
        image.size,
        (info.width, info.height),
        [*white, min(image.getpixel((right, bottom))) > 200],
    )


def test_pictures_are_upright_in_square_pixels(tmp_path: Path) -> None:
    def made(**facts: Any) -> Path:
        return make_video(
            tmp_path / f"{len([*tmp_path.iterdir()])}.mp4", "red", clip=Clip(corner=True, **facts)
        )

    wide, tall = (64, 48), (48, 64)
    assert corner(made()) == (wide, wide, [True, False, False, False])
    assert corner(made(rotation=90)) == (tall, tall, [False, False, True, False])
    assert corner(made(rotation=-90)) == (tall, tall, [False, True, False, False])
    assert corner(made(rotation=180)) == (wide, wide, [False, False, False, True])
    assert corner(made(shape=Fraction(2))) == ((128, 48), (128, 48), [True, False, False, False])
    assert corner(made(), at_least=24) == ((32, 24), wide, [True, False, False, False])
    turned = made(rotation=90, shape=Fraction(2))
    assert corner(turned, at_least=24) == ((24, 64), (48, 128), [False, False, True, False])


def test_high_dynamic_range_and_interlaced_fields(tmp_path: Path) -> None:
    for transfer in ("smpte2084", "arib-std-b67", "bt2020-10"):
        options = {
            "x265-params": f"log-level=none:colorprim=bt2020:transfer={transfer}:"
            "colormatrix=bt2020nc"
        }
        clip = Clip(codec="libx265", pixels="yuv420p10le", stream=options)
        path = make_video(tmp_path / f"{transfer}.mp4", "white", "black", clip=clip)
        white = read_moment(str(path), at=0, **LIMITS)[0].getpixel((9, 9))
        black = read_moment(str(path), at=1, **LIMITS)[0].getpixel((9, 9))
        assert min(white) > 240, transfer
        assert max(black) < 16, transfer
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    path = make_video(tmp_path / "fields.mp4", *COLOURS, clip=Clip(corner=True, stream=options))
    assert moments(path) == (ALL, "")
    assert corner(path) == ((64, 48), (64, 48), [True, False, False, False])


TAGS = {
    "creation_time": "2019-07-04T10:01:02.000000Z",
    "com.apple.quicktime.creationdate": "2019-07-04T12:01:02+0200",
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.model": "iPhone X",
    "com.apple.quicktime.location.ISO6709": "+38.7223-009.1393+015.000/",
}


def test_what_a_container_says(tmp_path: Path) -> None:
    clip = Clip(tags=TAGS, container={"movflags": "use_metadata_tags"})
    path = make_video(tmp_path / "a.mov", "red", clip=clip)
    _, info = read_moment(str(path), at=0, **LIMITS)
    assert info.metadata == {
        "taken_at": "2019-07-04T12:01:02",
        "taken_from": "QuickTime:CreationDate",
        "taken_offset": "+02:00",
        "camera": "Apple iPhone X",
        "latitude": 38.7223,
        "longitude": -9.1393,
        "duration": 1.0,
        "time": 0.0,
    }


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (
            {"creation_time": "2019-07-04T10:01:02.000000Z"},
            ("2019-07-04T10:01:02", "QuickTime:CreateDate", "+00:00"),
        ),
        (
            {"creation_time": "2019-07-04T10:01:02.000000Z", "date": "2019-07-04T12:01:02+0200"},
            ("2019-07-04T12:01:02", "QuickTime:ContentCreateDate", "+02:00"),
        ),
        ({"creation_time": "1904-01-01T00:00:00.000000Z"}, (None, None, None)),
        ({"creation_time": "1970-01-01T00:00:00.000000Z"}, (None, None, None)),
        ({"creation_time": "yesterday"}, (None, None, None)),
    ],
)
def test_when(tags: dict[str, str], expected: tuple[str | None, ...]) -> None:
    values = read_container(tags, None)
    assert tuple(values.get(f"taken_{name}") for name in ("at", "from", "offset")) == expected


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("+38.7223-009.1393/", (38.7223, -9.1393)),
        ("-3352.5-15112.25/", (-33.875, -151.2041667)),  # minutes
        ("+485130+0021743/", (48.8583333, 2.2952778)),  # minutes and seconds
        ("+00.0000+000.0000/", (None, None)),
        ("+99.0000+000.1000/", (None, None)),
        ("somewhere", (None, None)),
    ],
)
def test_where(text: str, place: tuple[float | None, float | None]) -> None:
    values = read_container({"location": text}, 3.5)
    assert (values.get("latitude"), values.get("longitude")) == place
    assert values["duration"] == 3.5


def test_cut_off_videos(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mp4", *COLOURS).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PhotoError, match=r"^it is cut off: .*\(moov\).* is missing$"):
        moments(cut)
    clip = Clip(codec="mpeg4", container={"movflags": "faststart"})
    data = make_video(tmp_path / "b.mp4", *COLOURS, clip=clip).read_bytes()
    start = data.index(b"mdat")
    cut.write_bytes(data[: start + (len(data) - start) * 6 // 10])
    seen, note = moments(cut)
    assert seen == ALL[:3]
    assert note == "read up to 2 of 4 seconds"


def test_what_is_no_video(tmp_path: Path) -> None:
    def reason(data: bytes) -> str:
        path = tmp_path / "x.mp4"
        path.write_bytes(data)
        with pytest.raises(PhotoError) as raised:
            moments(path)
        return str(raised.value)

    assert reason(make_sound(tmp_path / "sound.mp4").read_bytes()) == "the video holds only sound"
    for data in (b"#EXTM3U\n/etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n", b"text"):
        assert reason(data).startswith("not a video: ")  # these would open other files
    assert reason(b"\0\0\0\x20ftypisom" + bytes(4000)).startswith("it is cut off")
    make_video(tmp_path / "big.mp4", "red")
    with pytest.raises(PhotoError, match="over the cap of 100"):
        moments(tmp_path / "big.mp4", max_pixels=100)


def test_a_cover_is_no_moment(tmp_path: Path) -> None:
    import av

    plain = make_video(tmp_path / "plain.mp4", "red", "green")
    covered = tmp_path / "covered.mp4"
    with av.open(str(plain)) as source, av.open(str(covered), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 200, 200, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        pixels = np.zeros((200, 200, 3), np.uint8)
        output.mux(cover.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    assert moments(covered) == (ALL[:2], "")


@pytest.mark.slow
def test_the_decoder_of_photos_reads_them_in_a_child(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", *COLOURS)
    with PhotoDecoder() as decoder:
        times = [info["time"] for _, info in decoder.moments(str(path), every=1)]
        assert times == [0.0, 1.0, 2.0, 3.0]
        image, info = decoder.moment(str(path), at=2.0)
        assert (colour(image.getpixel((9, 9))), info["time"]) == ("blue", 2.0)
        with open(path, "rb", buffering=0) as file:
            picture = decoder.decode_file(file, at=3.0, at_least=24)
        assert (picture.size, colour(picture.getpixel((9, 9)))) == ((32, 24), "yellow")
    with PhotoDecoder(1e-3) as decoder, pytest.raises(DecoderDied, match="longer than 0.001 s"):
        [*decoder.moments(str(path), every=1)]


def test_the_content_of_a_container(tmp_path: Path) -> None:
    kinds = {}
    for name in ("a.mp4", "a.mkv", "a.webm", "a.avi", "a.mts", "a.m2ts", "a.wmv"):
        data = make_video(tmp_path / name, "red", clip=KINDS[name]).read_bytes()
        kinds[name] = (container_of(data[:HEAD]), video_type(data[:HEAD]))
        assert read_fingerprint(tmp_path / name)[1] == data[:HEAD]
    assert kinds == {
        "a.mp4": ("mov", "video/mp4"),
        "a.mkv": ("matroska", "video/x-matroska"),
        "a.webm": ("matroska", "video/webm"),
        "a.avi": ("avi", "video/x-msvideo"),
        "a.mts": ("mpegts", "video/mp2t"),
        "a.m2ts": ("mpegts", "video/mp2t"),
        "a.wmv": ("asf", "video/x-ms-wmv"),
    }

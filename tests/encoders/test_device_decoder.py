"""JPEGs decoded and prepared where a model runs: what comes back is what the CPU makes of them, or
it is left to the CPU. Here the device is the CPU itself, in the same process and by the same code.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from helpers.lazy import library
from helpers.odd_files import bad_contents, encoded, good_contents
from helpers.profiles import grey_profile, rgb_profile
from helpers.remarks import logged_remarks
from helpers.standard_mini import StandardMini
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.device_decoder import DeviceDecoder, check_device_decoding, read_plain_jpeg
from vitsearch.encoders.preprocess import Preprocess, layout_of, prepare
from vitsearch.errors import EncoderError
from vitsearch.photos.decode import decode
from vitsearch.photos.profiles import prepared

torch = library("torch", reason="needs the extra vitsearch[clip]")
library("torchvision", reason="needs the extra vitsearch[clip]")
skimage = library("skimage", reason="its sample photos")

pytestmark = pytest.mark.slow

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
ORIENTATION = 0x112
CLOSE = 0.995


@pytest.fixture(scope="module", params=DEVICES)
def decoder(request: pytest.FixtureRequest) -> Iterator[DeviceDecoder]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    with DeviceDecoder(StandardMini(request.param)) as opened:
        yield opened


@pytest.fixture(scope="module")
def encoder() -> StandardMini:
    return StandardMini()


def photo(name: str) -> Image.Image:
    """A photograph of scikit-image, with odd sides where it is coffee or a cat."""
    image = Image.fromarray(getattr(skimage.data, name)())
    return image.crop((0, 0, image.width - 1, image.height - 3)) if name == "coffee" else image


def by_cpu(data: bytes, encoder: StandardMini) -> tuple[NDArray[Any], Any]:
    """What indexing gives the encoder for a photo that is decoded whole by the CPU."""
    image, info = decode(data, colours="profile")
    return prepared(image, encoder.prepare, resizes=True), info


def check_alike(decoder: DeviceDecoder, encoder: StandardMini, data: bytes) -> None:
    """A photo has the facts of the CPU's way, and its vector within the promised cosine."""
    ready = decoder.prepare(data)
    assert ready is not None
    pixels, info = by_cpu(data, encoder)
    assert ready[1] == info
    assert ready[0].shape == pixels.shape
    # nvJPEG has another inverse DCT and fills in colours otherwise
    assert np.abs(ready[0].astype(int) - pixels).mean() < (0.01 if decoder.device == "cpu" else 4)
    first, second = encoder.encode_prepared([ready[0], pixels])
    assert float(first @ second) >= CLOSE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["4:4:4", "4:2:2", "4:2:0", "grey", "progressive"])
def test_photos_of_every_kind_are_as_by_the_cpu(
    decoder: DeviceDecoder, encoder: StandardMini, kind: str, orientation: int
) -> None:
    image = photo("camera" if kind == "grey" else "coffee")
    assert image.mode == ("L" if kind == "grey" else "RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x110] = "A camera"
    options: dict[str, Any] = {"quality": 90, "exif": exif}
    if kind.startswith("4"):
        options["subsampling"] = kind
    check_alike(decoder, encoder, encoded(image, "JPEG", **options, progressive=kind[0] == "p"))


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "rocket", "hubble_deep_field"])
def test_photographs_are_as_by_the_cpu(
    decoder: DeviceDecoder, encoder: StandardMini, name: str
) -> None:
    check_alike(decoder, encoder, encoded(photo(name), "JPEG", quality=85))


def test_twelve_megapixels_are_as_by_the_cpu(decoder: DeviceDecoder, encoder: StandardMini) -> None:
    image = photo("astronaut").resize((4032, 3024), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    check_alike(decoder, encoder, encoded(image, "JPEG", quality=92, exif=exif))


def test_a_colour_profile_is_applied(decoder: DeviceDecoder, encoder: StandardMini) -> None:
    for space in ("p3", "adobe"):
        data = encoded(photo("coffee"), "JPEG", quality=90, icc_profile=rgb_profile(space))
        assert read_plain_jpeg(data).profile, space  # type: ignore[union-attr]
        check_alike(decoder, encoder, data)


@pytest.mark.parametrize(
    "how",
    [
        Preprocess(size=(32, 32)),
        Preprocess(size=(32, 32), resize_to=40, half_pixel="down"),
        Preprocess(size=(48, 32)),
        Preprocess(size=(32, 32), interpolation="bilinear"),
        Preprocess(size=(32, 32), resize_mode="longest", fill_color=77),
        Preprocess(size=(33, 47), resize_mode="squash"),
        Preprocess(size=(32, 32), resize_mode="squash", resize_to=40),
        Preprocess(size=(40, 40), resize_to=31, fill_color=9),
        Preprocess(size=(8, 8), resize_mode="patches", max_patches=40),
    ],
)
def test_each_preprocessing_is_that_of_pillow(how: Preprocess) -> None:
    from vitsearch.encoders import device_jpegs

    for size in ((97, 64), (64, 97), (20, 20), (5, 31), (1, 1)):
        image = photo("chelsea").resize(size)
        layout = layout_of(image, how)
        assert layout is not None
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        facts = {"size": layout.size, "crop": layout.crop, "top": layout.top, "left": layout.left}
        facts["interpolation"] = layout.interpolation
        made = device_jpegs.prepared(pixels, 1, facts, how.fill_color).numpy()
        expected = prepare(image, how)
        assert made.shape == expected.shape
        assert np.abs(made.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_turned_as_exif_says(orientation: int) -> None:
    from vitsearch.encoders.device_jpegs import turned

    content, upright = oriented_content(orientation)
    stored = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    made = turned(torch.from_numpy(stored).permute(2, 0, 1), orientation).permute(1, 2, 0)
    assert np.array_equal(made.numpy(), upright)


def oriented_content(orientation: int) -> tuple[bytes, NDArray[Any]]:
    """A picture of an orientation as a PNG, and its pixels upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(photo("chelsea").crop((0, 0, 7, 5)), "PNG", exif=exif)
    return data, np.array(decode(data)[0])


def with_app14_rgb(image: Image.Image) -> bytes:
    """A JPEG whose three components are red, green and blue."""
    return encoded(image, "JPEG", keep_rgb=True)


def not_plain() -> dict[str, bytes]:
    image = photo("coffee")
    whole = encoded(image, "JPEG", quality=90)
    frame = whole.index(b"\xff\xc0")
    return {
        "another format": encoded(image, "PNG"),
        "CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "RGB components": with_app14_rgb(image),
        "4:1:1": encoded(image, "JPEG", subsampling="4:1:1")
        if b"\x41\x11\x11" in whole
        else whole.replace(b"\x01\x22\x00", b"\x01\x41\x00", 1),
        "a grey profile": encoded(photo("camera"), "JPEG", icc_profile=grey_profile(1.0)),
        "cut off": whole[: len(whole) // 2],
        "no scan": whole[: whole.index(b"\xff\xda")],
        "arithmetic coding": whole[:frame] + b"\xff\xc9" + whole[frame + 2 :],
        "12 bits": whole[: frame + 4] + b"\x0c" + whole[frame + 5 :],
        "two frames": whole[:frame] + whole[frame : frame + 19] + whole[frame:],
        "junk before a segment": whole[:2] + b"\0\0" + whole[2:],
        "a head": whole[:3],
        "a million segments": whole[:2] + b"\xff\xee\0\2" * 1_000_000 + whole[2:],
        "no height": whole[: frame + 5] + b"\0\0" + whole[frame + 7 :],
        "nothing": b"",
    }


@pytest.mark.parametrize("name", not_plain())
def test_what_is_not_a_plain_jpeg_is_left_to_the_cpu(name: str) -> None:
    assert read_plain_jpeg(not_plain()[name]) is None


def test_odd_files_are_left_to_the_cpu_or_are_as_by_it(
    decoder: DeviceDecoder, encoder: StandardMini
) -> None:
    for name, data in bad_contents().items():
        assert decoder.prepare(data) is None, name
    done = {name for name, data in good_contents().items() if decoder.prepare(data) is not None}
    for name in done:
        check_alike(decoder, encoder, good_contents()[name])
    assert done


def test_what_is_beyond_the_limits_is_left_to_the_cpu(decoder: DeviceDecoder) -> None:
    data = encoded(photo("coffee"), "JPEG")
    width, height = photo("coffee").size
    assert decoder.prepare(data, max_pixels=width * height) is not None
    assert decoder.prepare(data, max_pixels=width * height - 1) is None
    assert decoder.prepare(encoded(photo("coffee").resize((9, 9000)), "JPEG")) is None


def test_a_picture_that_may_be_half_missing_is_left_to_the_cpu(decoder: DeviceDecoder) -> None:
    whole = encoded(photo("coffee"), "JPEG", quality=90)
    assert decoder.prepare(whole) is not None
    # its end is there, and what libjpeg fills up is grey
    assert decoder.prepare(whole[: len(whole) // 2] + b"\xff\xd9") is None
    black = photo("coffee")
    black.paste((0, 0, 0), (0, black.height - 40, black.width, black.height))
    assert decoder.prepare(encoded(black, "JPEG")) is None
    white = photo("coffee")
    white.paste((255, 255, 255), (0, white.height - 40, white.width, white.height))
    assert decoder.prepare(encoded(white, "JPEG")) is not None


def test_damage_in_the_middle_spoils_no_neighbour(
    decoder: DeviceDecoder, encoder: StandardMini
) -> None:
    whole = encoded(photo("coffee"), "JPEG", quality=90)
    rng = np.random.default_rng(1)
    damaged = []
    for _ in range(24):
        data = bytearray(whole)
        for at in rng.integers(2, len(whole), 12):
            data[at] = rng.integers(0, 256)
        damaged.append(bytes(data))
    answers: list[Any] = [None] * 2 * len(damaged)

    def ask(number: int) -> None:
        data = damaged[number // 2] if number % 2 else whole
        answers[number] = decoder.prepare(data)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(answers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = by_cpu(whole, encoder)[0]
    for pixels, _ in answers[::2]:
        assert np.abs(pixels.astype(int) - expected).mean() < 0.5


def test_a_process_that_dies_or_hangs_costs_no_photo(encoder: StandardMini) -> None:
    data = encoded(photo("coffee"), "JPEG", quality=90)
    with DeviceDecoder(encoder, seconds=60) as own, logged_remarks() as remarks:
        own._child.kill()  # type: ignore[union-attr]
        assert own.prepare(data) is None
        assert own.prepare(data) is not None  # another process
        os.kill(own._child.pid, signal.SIGSTOP)  # type: ignore[union-attr]
        own._seconds = 0.5
        assert own.prepare(data) is None
    assert remarks == [
        "decoding on cpu: the decoder crashed (signal 9); 1 photos go to the CPU",
        "decoding on cpu: decoding took longer than 0.5 s; 1 photos go to the CPU",
    ]
    assert own.prepare(data) is None  # closed


def test_what_cannot_decode_on_a_device_says_so_in_one_line(
    encoder: StandardMini, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(of: ImageEncoder) -> str:
        with pytest.raises(EncoderError) as refused:
            check_device_decoding(of)
        return str(refused.value)

    assert said(load_encoder("mini")) == (
        "encoder mini prepares photos in its own way, on the CPU: leave out --decode device"
    )
    lanczos = StandardMini()
    lanczos.preprocess = Preprocess(interpolation="lanczos")
    assert said(lanczos) == (
        "encoder standard-mini prepares photos in its own way, on the CPU: leave out "
        "--decode device"
    )
    assert said(StandardMini("mps")) == (
        "JPEGs are decoded on cpu or cuda, not on mps: leave out --decode device"
    )
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert said(encoder) == (
        "--decode device needs torchvision, which is not installed: pip install 'vitsearch[clip]'"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_before_any_photo() -> None:
    with pytest.raises(EncoderError, match=r"^JPEGs cannot be decoded on cuda \(.+\): leave out"):
        DeviceDecoder(StandardMini("cuda"))

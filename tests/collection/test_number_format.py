"""``dtype="auto"``: int8 where a trial on the user's own photos says so; random weights."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

for library in ("torch", "open_clip", "transformers", "onnxscript", "onnx_ir"):
    pytest.importorskip(library, reason="needs the extra vitsearch[clip]")

from helpers import tiny_models as tiny  # noqa: E402
from helpers.photos import paint, shade  # noqa: E402
from vitsearch import Collection, index_folder  # noqa: E402
from vitsearch.arrays import unit_rows  # noqa: E402
from vitsearch.collection.diff import FolderScan  # noqa: E402
from vitsearch.collection.run_facts import (  # noqa: E402
    Int8Trial,
    Sample,
    choose_number_format,
    compare_vectors,
)
from vitsearch.encoders import ImageEncoder, load_encoder  # noqa: E402
from vitsearch.encoders.colour import ColourEncoder  # noqa: E402
from vitsearch.errors import EncoderMismatch  # noqa: E402
from vitsearch.options import IndexOptions  # noqa: E402
from vitsearch.photos import WalkOptions  # noqa: E402
from vitsearch.storage import Decoding  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "open_clip"
    tiny.save_open_clip(folder, tiny.SHALLOW_CONFIG)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITSEARCH_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def blots(folder: Path, count: int) -> Path:
    """Write photos of random soft blots that all look different."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((40, 32), Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")
    return folder


def chosen(
    encoder: ImageEncoder, photos: Path, *, min_photos: int, runtime: str = "auto"
) -> tuple[str, str]:
    files = FolderScan(photos, WalkOptions()).first_photos(min_photos)
    sample = Sample(photos, photos.parent, files, Decoding(10**6), 2)
    options = IndexOptions(dtype="auto", runtime=runtime)
    encoder, reason = choose_number_format(encoder, options, sample, min_photos=min_photos)
    return encoder.dtype, reason


def test_how_near_vectors_are() -> None:
    rows = unit_rows(np.random.default_rng(2).normal(size=(30, 8)))
    assert compare_vectors(rows, rows) == Int8Trial(30, pytest.approx(1), 1.0)
    other = rows.copy()
    other[0] = -rows[0]
    trial = compare_vectors(rows, other)
    assert trial.cosine == pytest.approx(-1)
    assert 0.8 < trial.agreement < 1
    assert not trial.passed
    assert Int8Trial(64, 0.99, 0.95).passed
    assert not Int8Trial(64, 0.9899, 1.0).passed
    assert not Int8Trial(64, 1.0, 0.949).passed


def test_the_trial_decides(model: str, tmp_path: Path) -> None:
    encoder = load_encoder(model, "cpu", export=True)
    photos = blots(tmp_path / "blots", 66)
    (photos / "0.jpg").write_bytes(b"not a photo")
    (photos / "000a.png").write_bytes((photos / "000.png").read_bytes())  # once is enough
    dtype, reason = chosen(encoder, photos, min_photos=66)
    assert dtype == "int8"
    assert reason.startswith("dtype auto: int8: on 64 of these photos the least cosine of int8")
    assert reason.endswith("are the same (asked: 95%); --dtype float32 forces float32")
    for number in range(70):  # whose order by likeness hangs on the last digits
        paint(tmp_path / "greys" / f"{number}.png", (100 + number % 8, 100 + number // 8, 100))
    dtype, reason = chosen(encoder, tmp_path / "greys", min_photos=70)
    assert dtype == "float32"
    assert reason.startswith("dtype auto: float32: on 64 of these photos the least cosine")


def test_where_there_is_no_trial(model: str, tmp_path: Path) -> None:
    encoder = load_encoder(model, "cpu", export=True)
    photos = blots(tmp_path / "blots", 12)
    assert chosen(encoder, photos, min_photos=13) == (
        "float32",
        "dtype auto: float32 (int8 is tried for 13 photos or more, and here are 12)",
    )
    assert chosen(encoder, photos, min_photos=12, runtime="torch")[1].startswith(
        "dtype auto: float32 (int8 needs ONNX Runtime"
    )
    assert chosen(ColourEncoder(), photos, min_photos=12) == (
        "float32",
        "dtype auto: float32 (colour has no int8)",
    )
    for file in sorted(photos.iterdir())[5:]:
        file.write_bytes(b"not a photo")
    assert chosen(encoder, photos, min_photos=12) == (
        "float32",
        "dtype auto: float32 (only 5 different photos of the first 12 are read)",
    )


def test_a_collection_keeps_its_number_format(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vitsearch")
    photos = blots(tmp_path / "photos", 64)
    content = [file.read_bytes() for file in sorted(photos.iterdir())]
    for number in range(64, 1_000):  # other content to a collection
        (photos / f"{number:03}.png").write_bytes(content[number % 64] + bytes([number % 251, 1]))
    report = index_folder(photos, encoder=model, device="cpu", dtype="auto")
    assert report.total == 1_000
    (line,) = [line for line in caplog.messages if line.startswith("dtype auto")]
    paint(photos / "new.png", shade(1))
    caplog.clear()
    assert index_folder(photos, device="cpu", dtype="auto").indexed == 1
    assert not [line for line in caplog.messages if line.startswith("dtype auto")]
    with Collection.open(photos, device="cpu") as collection:
        facts = collection.info()
    assert line.startswith("dtype auto: int8: on 64 of these photos")
    assert (facts["dtype"], facts["dtype_reason"]) == ("int8", line)
    with pytest.raises(EncoderMismatch):
        index_folder(photos, device="cpu", dtype="float32", retry=True, reread="new.png")


def test_float32_is_forced_and_the_default(model: str, tmp_path: Path) -> None:
    for dtype in ("float32", None):
        photos = blots(tmp_path / str(dtype), 3)
        index_folder(photos, encoder=model, device="cpu", dtype=dtype)
        with Collection.open(photos, device="cpu") as collection:
            facts = collection.info()
        assert (facts["dtype"], facts["dtype_reason"]) == ("float32", None)

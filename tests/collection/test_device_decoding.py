"""A folder indexed with `--decode device`: the same photos, facts and failures as by the CPU, and
vectors within the promised cosine.
"""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.cli import vitsearch
from helpers.collections import counts
from helpers.odd_files import encoded, make_odd_files
from helpers.remarks import logged_remarks
from helpers.standard_mini import StandardMini
from vitsearch import Collection, CollectionError, EncoderError, index_folder
from vitsearch.storage.store import PhotoStore

torch = pytest.importorskip("torch", reason="needs the extra vitsearch[clip]")
pytest.importorskip("torchvision", reason="needs the extra vitsearch[clip]")
skimage = pytest.importorskip("skimage", reason="its sample photos")

pytestmark = pytest.mark.slow

CLOSE = 0.995
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def fill(folder: Path) -> None:
    """Real photos, and files of every odd kind beside them."""
    for name in ("astronaut", "coffee", "chelsea", "camera"):
        image = Image.fromarray(getattr(skimage.data, name)())
        exif = Image.Exif()
        exif[0x112], exif[0x110] = 6, f"A camera for {name}"
        (folder / f"{name}.jpg").write_bytes(encoded(image, "JPEG", quality=90, exif=exif))
    shutil.copy(folder / "coffee.jpg", folder / "coffee again.jpg")
    whole = (folder / "astronaut.jpg").read_bytes()
    (folder / "cut a little.jpg").write_bytes(whole[:-300])
    (folder / "half of it.jpg").write_bytes(whole[: len(whole) // 2])
    make_odd_files(folder)


def facts(store: PhotoStore) -> list[Any]:
    return sorted(
        (photo.path, photo.size, photo.fingerprint, photo.info) for photo in store.photos()
    )


def stored(folder: Path) -> tuple[list[Any], list[Any], dict[str, Any], dict[str, Any]]:
    """Facts and failures of a collection, its vectors by path, and how its photos were decoded."""
    with Collection.open(folder, encoder=StandardMini()) as collection:
        photos, rows = collection.vectors()
        vectors = dict(zip((photo.path for photo in photos), rows, strict=True))
    with closing(PhotoStore(folder / ".vitsearch" / "photos.db")) as store:
        failures = sorted((each.path, each.reason) for each in store.failures())
        how = {name: store.get_meta(name) for name in ("decode", "decoder", "colours")}
        return facts(store), failures, vectors, how


@pytest.mark.parametrize("device", DEVICES)
def test_photos_failures_and_vectors_are_those_of_the_cpu(tmp_path: Path, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    reports, contents = {}, {}
    for way in ("cpu", "device"):
        folder = tmp_path / way
        folder.mkdir()
        fill(folder)
        encoder = StandardMini(device)
        with logged_remarks() as remarks:
            report = index_folder(folder, encoder=encoder, decode=way, exact_decode=True, workers=4)
        reports[way], contents[way] = counts(report), stored(folder)
        slow = "the model runs on the CPU: --decode device gains nothing here"
        assert (slow in remarks) == (way == "device" and device == "cpu")
        assert [remark for remark in remarks if "go to the CPU" in remark] == []
    assert reports["device"] == reports["cpu"]
    (photos, failures, vectors, how), by_cpu = contents["device"], contents["cpu"]
    assert (photos, failures) == by_cpu[:2]
    assert min(float(row @ by_cpu[2][path]) for path, row in vectors.items()) >= CLOSE
    assert any(not np.array_equal(row, by_cpu[2][path]) for path, row in vectors.items())
    assert how == {"decode": "exact", "decoder": "device", "colours": "srgb"}
    assert by_cpu[3] == {"decode": "exact", "decoder": None, "colours": "srgb"}

    # a run by the CPU goes on, whole, and says that both made the vectors
    (tmp_path / "device" / "new.jpg").write_bytes(encoded(Image.new("RGB", (90, 60)), "JPEG"))
    assert index_folder(tmp_path / "device", encoder=StandardMini()).indexed == 1
    assert stored(tmp_path / "device")[3] == how | {"decoder": "mixed"}


def test_a_collection_of_reduced_photos_is_told_of_whole_ones(tmp_path: Path) -> None:
    for name in ("astronaut", "coffee"):
        image = Image.fromarray(getattr(skimage.data, name)())
        (tmp_path / f"{name}.jpg").write_bytes(encoded(image, "JPEG"))
        with logged_remarks() as remarks:
            way = "cpu" if name == "astronaut" else "device"
            index_folder(tmp_path, encoder=StandardMini(), decode=way)
    mixed = [remark for remark in remarks if remark.startswith("photos decoded whole and at")]
    assert len(mixed) == 1
    assert stored(tmp_path)[3] == {"decode": "mixed", "decoder": "mixed", "colours": "srgb"}


def test_what_cannot_be_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(Image.new("RGB", (90, 60)), "JPEG"))
    with pytest.raises(EncoderError) as refused:
        index_folder(tmp_path, decode="device")
    assert str(refused.value) == (
        "encoder mini prepares photos in its own way, on the CPU: leave out --decode device"
    )
    with pytest.raises(CollectionError) as both:
        index_folder(tmp_path, decode="device", exact_decode=False)
    assert str(both.value) == (
        "the device decodes JPEGs whole: leave out either --decode device or --scaled-decode"
    )
    with pytest.raises(CollectionError) as neither:
        index_folder(tmp_path, decode="gpu")
    assert str(neither.value) == "JPEGs are decoded on cpu or device, not on 'gpu'"
    assert [entry.name for entry in tmp_path.iterdir()] == ["photo.jpg"]


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(Image.new("RGB", (90, 60)), "JPEG"))
    done = vitsearch("index", tmp_path, "--decode", "device")
    assert done.returncode != 0
    assert (
        done.stderr.decode()
        .strip()
        .splitlines()[-1]
        .endswith(
            "encoder mini prepares photos in its own way, on the CPU: leave out --decode device"
        )
    )

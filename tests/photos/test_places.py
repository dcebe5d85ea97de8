"""The names of places: from the position, for new photos and those of before, and only with it."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.collections import CountingEncoder
from helpers.odd_files import encoded, picture
from vitsearch import Collection, index_folder
from vitsearch.types import PhotoInfo, Value

pytest.importorskip("reverse_geocode")
LISBON, SUVA, TAVEUNI, AT_SEA = (38.7223, -9.1393), (-18.14, 178.44), (-16.8, -179.99), (0, -30)


def names(latitude: float, longitude: float) -> dict[str, Value | None]:
    from vitsearch.photos.places import with_places

    info = PhotoInfo(4, 3, {"latitude": latitude, "longitude": longitude})
    return {name: with_places([info])[0][name] for name in ("city", "region", "country")}


@pytest.mark.slow
def test_the_nearest_town_also_beyond_the_date_line() -> None:
    assert names(*LISBON) == {"city": "Lisbon", "region": "Lisbon", "country": "Portugal"}
    assert names(47.585, 7.56) == {
        "city": "Saint-Louis",
        "region": "Grand Est",
        "country": "France",
    }
    assert names(*SUVA)["country"] == names(*TAVEUNI)["country"] == "Fiji"
    assert set(names(*AT_SEA).values()) == {None}
    assert csv.field_size_limit() == 131_072


def put(file: Path, number: int, *degrees: float) -> None:
    exif = Image.Exif()
    if degrees:
        north, east = degrees
        exif.get_ifd(0x8825).update({1: "N", 2: (north, 0.0, 0.0), 3: "W", 4: (-east, 0.0, 0.0)})
    file.write_bytes(encoded(picture(number), "JPEG", exif=exif.tobytes()))


def countries(folder: Path) -> dict[str, Value | None]:
    with Collection.open(folder) as collection:
        return {photo.path: photo.info["country"] for photo in collection.photos()}


@pytest.mark.slow
def test_old_photos_get_names_once_the_extra_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "a.jpg", 1, *LISBON)
    put(tmp_path / "b.jpg", 2)
    put(tmp_path / "c.jpg", 3, *AT_SEA)
    nowhere = "vitsearch.storage.metadata._DISTRIBUTION", "not-installed-here"
    with monkeypatch.context() as without:
        without.setattr(*nowhere)
        index_folder(tmp_path, encoder=CountingEncoder())
    assert set(countries(tmp_path).values()) == {None}
    encoder = CountingEncoder()
    index_folder(tmp_path, encoder=encoder)
    named = {"a.jpg": "Portugal", "b.jpg": None, "c.jpg": None}
    assert (countries(tmp_path), encoder.embedded) == (named, 0)
    with Collection.open(tmp_path, encoder=encoder) as collection:
        hits = collection.search("red", where="country = 'Portugal' and city like 'lis%'")
    assert [hit.path for hit in hits] == ["a.jpg"]
    put(tmp_path / "d.jpg", 4, *LISBON)
    index_folder(tmp_path, encoder=encoder)
    assert countries(tmp_path) == {**named, "d.jpg": "Portugal"}


@pytest.mark.slow
def test_without_a_position_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    put(tmp_path / "b.jpg", 2)
    program = (
        "import sys; from vitsearch import index_folder; "
        "from vitsearch.encoders.colour import ColourEncoder; "
        "index_folder(sys.argv[1], encoder=ColourEncoder()); "
        "print('reverse_geocode' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")

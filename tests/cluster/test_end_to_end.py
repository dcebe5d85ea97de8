"""The whole way: photos in an object store, embedded, pushed into Milvus, searched and looked at on
the page.
"""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from helpers.cluster import command
from helpers.photos import paint, shade
from helpers.s3 import put, s3_client
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos.decode import fingerprint_of
from vitsearch.shards import photo_id
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app
from vitsearch.web.privacy import key_cookie
from vitsearch.web.schemas import json_id
from vitsearch.web.service import PhotoService
from vitsearch.web.source import RemotePhotoCache


@pytest.mark.engines
@pytest.mark.slow
def test_photos_of_an_object_store_on_the_page(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    files = {
        f"trips/{number}.png": paint(tmp_path / f"{number}.png", shade(number)).read_bytes()
        for number in range(8)
    }
    files["trips/black.png"] = paint(tmp_path / "black.png", "black").read_bytes()
    put({f"photos/{name}": data for name, data in files.items()})
    place = f"milvus://{tmp_path / 'a.db'}/trips"
    for step in (
        ["embed", f"{s3}/photos", f"{s3}/vectors", "--encoder", "colour"],
        ["push", f"{s3}/vectors", "--milvus", place, "--index", "FLAT"],
    ):
        done = command(*step)
        assert done.returncode == 0, done.stderr
    found = command("search", place, "black", "-k", "1", "--paths")
    assert (found.returncode, found.stdout) == (0, "trips/black.png\n")
    settings = ServeSettings()
    service = PhotoService.open(place, encoder=ColourEncoder(), settings=settings)
    with TestClient(
        make_app(service, settings),
        base_url="http://127.0.0.1:8765",
        client=("127.0.0.1", 50_000),
        cookies=dict([key_cookie(settings)]),
    ) as site:
        black = photo_id("trips/black.png")
        assert site.get("/api/search?q=black&k=1").json()["results"][0]["id"] == json_id(black)
        shown = site.get(f"/api/photos/{black}/image")
        assert (shown.status_code, shown.headers["content-type"], shown.content) == (
            200,
            "image/png",
            files["trips/black.png"],
        )
        assert (
            site.get(f"/api/photos/{black}/thumbnail?size=160").headers["content-type"]
            == "image/webp"
        )
        s3_client().delete_object(Bucket="photos", Key="photos/trips/0.png")
        gone = site.get(f"/api/photos/{photo_id('trips/0.png')}/image")
        assert (gone.status_code, gone.json()["error"]["message"]) == (
            404,
            (
                f"photo {photo_id('trips/0.png')} cannot be fetched from {s3}/photos: cannot be "
                "opened: No such file or directory"
            ),
        )
    service.close()


def test_copies_of_an_object_store_stay_few(tmp_path: Path) -> None:
    from vitsearch.photos.sources import open_source
    from vitsearch.types import Photo, PhotoInfo

    photos, data = [], []
    for number in range(6):
        file = tmp_path / "photos" / f"{number}.bmp"
        file.parent.mkdir(exist_ok=True)
        data.append(b"BM" + bytes([number]) * 998)
        file.write_bytes(data[-1])
        photos.append(Photo(number, file.name, 1000, 0, fingerprint_of(data[-1]), PhotoInfo(1, 1)))
    fetched = RemotePhotoCache(
        open_source(tmp_path / "photos"), tmp_path / "copies", max_bytes=3000
    )
    for photo in [*photos[:3], photos[0], photos[3], photos[4]]:
        with fetched.open_photo(photo) as file:
            assert file.readall() == data[photo.photo_id]
    kept = {file.name for file in (tmp_path / "copies").iterdir()}
    assert kept == {photos[number].fingerprint.hex() for number in (0, 3, 4)}

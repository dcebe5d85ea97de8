"""The outlines of countries, read from shapefiles, made simpler and cut into tiles by GEOS."""

from pathlib import Path
from typing import Any

import numpy as np
import shapefile
import shapely


def simple_outlines(archive: Path, tolerance: float) -> bytes:
    """Return the polygons of a shapefile in a ZIP as one collection in WKB, simplified so that
    neighbours still meet (Visvalingam and Whyatt 1993); those hardly larger than the tolerance, in
    degrees, are left out.
    """
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
    return shapefile.Reader(str(archive), encoding="utf-8")


class Outlines:
    """Polygons to cut tiles from."""

    def __init__(self, content: bytes) -> None:
        self._tree = shapely.STRtree(shapely.get_parts(shapely.from_wkb(content)))

    def cut(self, west: float, south: float, east: float, north: float) -> bytes:
        """Return the rings in a box: their number and the number of points of each as uint32, then
        x and y of every point as uint16, from 0 to 65,535 across the box, all little-endian.
        """
        inside = self._tree.geometries[self._tree.query(shapely.box(west, south, east, north))]
        parts = shapely.get_parts(shapely.clip_by_rect(inside, west, south, east, north))
        rings = shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
        lengths = shapely.get_num_coordinates(rings)
        points = shapely.get_coordinates(rings) - [west, south]
        units = np.clip(points / [east - west, north - south], 0, 1)
        head = np.array([len(rings), *lengths], "<u4")
        return head.tobytes() + np.rint(units * 65_535).astype("<u2").tobytes()

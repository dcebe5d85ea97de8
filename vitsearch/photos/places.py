"""The names of places, by the towns of GeoNames (CC BY 4.0) that the library carries: no network is
asked, and only photos with a position have it loaded (2 to 3 s, 350 MB at its peak).
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import reverse_geocode

from vitsearch.types import PhotoInfo

MIN_CITY, CITY_KM = 250_000, 10  # people, and how far from its middle one is in a city
MAX_KM = 200  # from a town: whoever is farther is at sea
_KEYS = {"city": "city", "region": "state", "country": "country"}  # column: key of the library
_EARTH_KM = 6371.0
_MAX_FIELD = 131_072
Point = tuple[float, float]
Town = Mapping[str, Any]

csv.field_size_limit(_MAX_FIELD)  # which the library lifts for the whole program
if not Path(reverse_geocode.__file__).with_name("geocode.gz").is_file():  # it would fetch it
    raise ImportError("reverse-geocode lacks its data: install it again")


def with_places(infos: Sequence[PhotoInfo]) -> list[PhotoInfo]:
    """Return facts of photos with a position, in this order, with city, region and country."""
    points = [(float(info["latitude"] or 0), float(info["longitude"] or 0)) for info in infos]
    return [
        replace(info, metadata={**info.metadata, **names})
        for info, names in zip(infos, _names(points), strict=True)
    ]


def _names(points: Sequence[Point]) -> Iterator[dict[str, str]]:
    towns, cities = _nearest(points), _nearest(points, MIN_CITY)
    for (far, town), (to_city, city) in zip(towns, cities, strict=True):
        names = {column: town[key] for column, key in _KEYS.items() if town.get(key)}
        # else most photos of a city would be of its quarters and suburbs
        if to_city <= CITY_KM and city["country_code"] == town["country_code"]:
            names["city"] = city["city"]
        yield names if far <= MAX_KM else {}


def _nearest(points: Sequence[Point], population: int = 0) -> list[tuple[float, Town]]:
    """Return for each point the nearest town of at least so many people, and how far it is, in km.

    The library takes degrees for a plane: towns beyond the date line are asked for by themselves.
    """
    turned = [(lat, lon - 360 if lon > 0 else lon + 360) for lat, lon in points]
    both = (reverse_geocode.search(each, population) for each in (points, turned))
    return [
        min(((_distance(point, town), town) for town in towns), key=itemgetter(0))
        for point, *towns in zip(points, *both, strict=True)
    ]


def _distance(point: Point, town: Town) -> float:
    """Return the distance of a point from a town in km, along the great circle (haversine)."""
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*point, town["latitude"], town["longitude"]))
    half = math.sin((lat_a - lat_b) / 2) ** 2
    half += math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_a - lon_b) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(math.sqrt(min(1.0, half)))

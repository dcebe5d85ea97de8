"""What the words of a query say besides the picture: when, where, with what, which files.

``beach in Portugal last summer`` is a picture of a beach, a country and three months. A small
grammar, English and Spanish, finds such phrases; what they leave is the text of the picture. A word
of two meanings (``may``, ``turkey``, ``canon``) is one of the picture unless its form makes the
other one plain, and names of places, cameras, folders and labels count only where the collection
has them. The words are in `vitsearch.filters.word_lists`, the rules in
`vitsearch.filters.contexts` and `vitsearch.filters.phrases`;
docs/search.md explains them.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from vitsearch.filters.tree import And, Filter, Or
from vitsearch.filters.word_lists import LISTS, comma_words

PLACES = ("city", "region", "country")  # columns, where there are such
NAMED = (*PLACES, "camera", "label")  # columns whose values are words of a query

TOKEN = re.compile(r"[^\W_]+")
QUOTED = re.compile(r"\"[^\"]*\"|“[^“”]*”|„[^„“”]*[“”]|«[^«»]*»|(?<!\w)['‘][^'’]*['’](?!\w)")


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words of a query that are a filter: their ``(start, end)`` in the text, what they are called
    (``July 2019``), and the filter. Phrases of one ``kind`` are alternatives.
    """

    start: int
    end: int
    title: str
    where: Filter
    kind: str


@dataclass(frozen=True)
class Vocabulary:
    """What a collection has words for: its columns that may be used, and the values of those of
    `NAMED`, the folders, the years of ``taken_at``, and whether it has files that pass a filter.
    """

    columns: frozenset[str]
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folders: Sequence[str] = ()
    years: frozenset[int] = frozenset()
    has_files: Callable[[Filter], bool] = lambda _: True

    @cached_property
    def places(self) -> dict[str, list[tuple[str, str]]]:
        """The (column, value) of each place by its plain names, in other languages too."""
        names: dict[str, list[tuple[str, str]]] = {}
        for column in PLACES:
            for value in self.values.get(column, ()) if column in self.columns else ():
                names.setdefault(plain_name(value), []).append((column, value))
        names.pop("", None)
        for name, others in LISTS["aliases"].items():
            for other in others if name in names else ():
                meanings = names.setdefault(other, [])
                meanings += [each for each in names[name] if each not in meanings]
        return names

    @cached_property
    def cameras(self) -> dict[str, tuple[str, ...]]:
        """The words of each camera by its name."""
        cameras = self.values.get("camera", ()) if "camera" in self.columns else ()
        return {name: tuple(plain_name(name).split()) for name in cameras}

    @cached_property
    def camera_words(self) -> frozenset[str]:
        """All words of the names of cameras."""
        return frozenset(word for name in self.cameras.values() for word in name)

    @cached_property
    def labels(self) -> dict[str, list[str]]:
        """The stored labels by their plain names."""
        names: dict[str, list[str]] = {}
        for value in self.values.get("label", ()):
            names.setdefault(plain_name(value), []).append(value)
        return names

    @cached_property
    def folder_names(self) -> dict[str, list[str]]:
        """The folders by their plain names, of the last part and of all."""
        names: dict[str, list[str]] = {}
        for folder in self.folders:
            for name in {plain_name(folder), plain_name(folder.rpartition("/")[2])}:
                names.setdefault(name, []).append(folder)
        return names


def picture_words(text: str, phrases: Sequence[Phrase]) -> str:
    """Return what phrases leave of a text, "" where nothing of it says what a picture shows."""
    if not phrases:
        return text
    starts = [0, *(phrase.end for phrase in phrases)]
    ends = [*(phrase.start for phrase in phrases), len(text)]
    pieces = [
        _trimmed(text[start:end], left=start > 0, right=end < len(text))
        for start, end in zip(starts, ends, strict=True)
    ]
    asking = words_of("photos") | words_of("anything") | words_of("requests")
    showing = [each for each in pieces if not {*plain_name(each).split()} <= asking]
    rest = " ".join(" ".join(showing).split())
    left = {*plain_name(rest).split()}
    return "" if left <= asking | words_of("fillers") and (left & asking or not left) else rest


def all_of(phrases: Sequence[Phrase]) -> Filter | None:
    """Return the filter of all phrases together: those of one kind are alternatives."""
    kinds: dict[str, list[Filter]] = {}
    for phrase in phrases:
        kinds.setdefault(phrase.kind, []).append(phrase.where)
    parts = [Or(tuple(each)) if len(each) > 1 else each[0] for each in kinds.values()]
    return And(tuple(parts)) if len(parts) > 1 else next(iter(parts), None)


def plain_name(text: str) -> str:
    """Return the words of a name in lower case, without accents (but ñ) and signs."""
    return " ".join(TOKEN.findall(plain(text)))


def plain(text: str) -> str:
    """Return a text of the same length in lower case without accents, ñ apart."""
    return "".join(_plain_character(character) for character in text)


@cache
def _plain_character(character: str) -> str:
    lower = character.lower()
    if lower != "ñ":
        lower = unicodedata.normalize("NFD", lower)[:1]
    return {"’": "'", "‘": "'", "`": "'"}.get(lower, lower) or character


@cache
def words_of(name: str) -> frozenset[str]:
    """Return one of the lists of `vitsearch.filters.word_lists`."""
    return frozenset(LISTS["lists"][name])


def _trimmed(text: str, *, left: bool, right: bool) -> str:
    """Return a text without the signs and function words that phrases beside it have left."""
    text = text.strip()
    while left or right:
        before = text
        if left:
            text = re.sub(r"^-+ ", "", text.lstrip(" ,;|&–—.:)"))
            first, _, rest = text.partition(" ")
            text = rest if plain(first) in words_of("left_edges") else text
        if right:
            text = re.sub(r" -+$", "", text.rstrip(" ,;|&–—:("))
            rest, _, last = text.rpartition(" ")
            text = rest if plain(last) in words_of("edges") else text
        if text == before:
            break
    return text.strip()


# -- The kinds of files that a query may name: screenshots, videos, panoramas ----------------------


def _of_format(name: str, form: str) -> dict[str, Any]:
    """Return the kind of files of a format, whose name nothing else has."""
    return {
        "kind": "file",
        "title": f"{name} files",
        "stems": comma_words("jpg, jpeg" if name == "JPEG" else form[:3]),
        "forms": [
            rf"{form}s",
            rf"{form} (?:files|PHOTOS)",
            rf"(?:archivos|fotos|imagenes) (?:en )?{form}",
            rf"START{form}(?= (?:from|of|de|in|en|last|this|\d)|END)",
        ],
        "format": name,
    }


_PLACE = (
    r"(?:an? |any |la )?(?:gps|geotags?|locations?|places?|coordinates|coordenadas|ubicacion|lugar)"
    r"(?: data| coordinates| information)?"
)

# Each has regular expressions over a query in lower case without accents, read only where it has
# one of the ``stems``, and a filter. START and END are those of the query, PHOTOS words for photos,
# AFTER stands behind such a word.
FILE_KINDS: list[dict[str, Any]] = [
    {
        "kind": "file",
        "title": "screenshots",
        "stems": comma_words("screen, captura, pantallazo"),
        "forms": [
            r"screen ?(?:shots|grabs|captures|caps)",
            r"capturas(?: de pantalla)?",
            r"pantallazos",
            r"START(?:screen ?shot|captura de pantalla|pantallazo)"
            r"(?= (?:of|from|with|de|con|in|en|last|this|\d)|END)",
        ],
        "where": (
            "path like '%screenshot%' "
            "or path like '%screen shot%' "
            "or path like '%screen_shot%' "
            "or path like '%captura de pantalla%' "
            "or path like '%capturas de pantalla%'"
        ),
    },
    {
        "kind": "file",
        "title": "videos",
        "stems": comma_words("video, clip"),
        "forms": [
            r"(?<!music )(?<!game )(?<!home )videos(?! (?:games?|calls?|cameras?))",
            r"START(?:(?:video |movie )?clip|video)s?(?= (?:of|from|de|del) )",
            r"START(?:video|video clip)s?(?= (?:last|this|\d))",
            r"START(?:video|video clip|movie clip)s?(?=END)",
        ],
        "format": "Video",
    },
    {
        "kind": "file",
        "title": "RAW files",
        "stems": comma_words("raw"),
        "forms": [
            r"raw (?:files|PHOTOS)",
            r"(?:archivos|fotos) (?:en )?raw",
        ],
        "format": "RAW",
    },
    {
        "kind": "file",
        "title": "GIFs",
        "stems": comma_words("gif"),
        "forms": [
            r"(?:animated )?gifs(?: animados)?",
            r"(?:animated )?gif (?:files|PHOTOS)",
            r"START(?:an? )?(?:animated )?gif(?= (?:of|from|de) )",
        ],
        "format": "GIF",
    },
    *(
        _of_format(name, form)
        for name, form in {
            "PNG": "png",
            "JPEG": "jpe?g",
            "HEIC": "hei[cf]",
            "WebP": "webp",
            "AVIF": "avif",
            "TIFF": "tiff?",
        }.items()
    ),
    {
        "kind": "shape",
        "title": "panoramas",
        "stems": comma_words("panoram"),
        "forms": [
            r"panoramas",
            r"panoram(?:a|ic) (?:PHOTOS|shots|views?)",
            r"(?:fotos|imagenes|vistas) panoramicas",
            r"START(?:panorama|panoramica)(?= (?:of|from|de) |END)",
            r"panorama(?=END)",
            r"panoramicas",
        ],
        "where": "aspect >= 2",
    },
    {
        "kind": "shape",
        "title": "portrait format",
        "stems": comma_words("portrait, vertical"),
        "forms": [
            r"portrait (?:PHOTOS|shots|orientation|format)",
            r"(?<= in )portrait(?=END)",
            r"vertical (?:PHOTOS|shots|orientation|format)",
            r"(?:portrait|vertical)(?= videos)",
            r"(?<=videos )(?:en )?vertical(?:es)?",
            r"verticales",
            r"(?:fotos?|imagen|imagenes) (?:en )?vertical(?:es)?",
            r"(?<= en )vertical(?=END)",
        ],
        "where": "aspect < 1",
    },
    {
        "kind": "shape",
        "title": "landscape format",
        "stems": comma_words("landscape, horizontal, apaisad"),
        "forms": [
            r"landscape (?:orientation|format)",
            r"horizontal (?:PHOTOS|shots|orientation|format)",
            r"(?:landscape|horizontal)(?= videos)",
            r"(?<=videos )(?:en )?(?:horizontal(?:es)?|apaisad[oa]s?)",
            r"(?:fotos?|imagen|imagenes) (?:en )?(?:horizontal"
            r"(?:es)?|apaisad[oa]s?)",
        ],
        "where": "aspect > 1",
    },
    {
        "kind": "shape",
        "title": "square photos",
        "stems": comma_words("square, cuadrad"),
        "forms": [
            r"square (?:PHOTOS|format|crops?)",
            r"square(?= videos)",
            r"(?:fotos|imagenes) cuadradas",
        ],
        "where": "aspect between 0.98 and 1.02",
    },
    {
        "kind": "fact",
        "title": "without a place",
        "stems": comma_words("gps, locat, geotag, place, coord, ubica, lugar"),
        "forms": [rf"AFTER(?:without|with no|sin) {_PLACE}(?=END)"],
        "where": "latitude is null",
    },
    {
        "kind": "fact",
        "title": "with a place",
        "stems": comma_words("gps, locat, geotag, coord, ubica"),
        "forms": [rf"AFTER(?:with|that have|con|que tienen) {_PLACE}(?=END)", "geotagged PHOTOS"],
        "where": "latitude is not null",
    },
    {
        "kind": "fact",
        "title": "without a date",
        "stems": comma_words("date, fecha"),
        "forms": [
            r"AFTER(?:without|with no|sin) (?:an? |any )?(?:dates?|fecha)(?=END)",
            "undated PHOTOS",
        ],
        "where": "taken_at is null",
    },
]

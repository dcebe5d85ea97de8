"""Files that belong to a photo beside them and are no photo of their own: the RAW of a JPEG, the
clip of a Live Photo.
"""

from collections import defaultdict
from collections.abc import Iterable

from vitsearch.paths import caseless
from vitsearch.photos.formats import CLIP_SUFFIXES, FORMATS, SUFFIXES, VIDEO, PhotoFormat, suffix_of

_RANKS = {entry.name: rank for rank, entry in enumerate(FORMATS)}


def companions_of(paths: Iterable[str]) -> dict[str, str]:
    """Return the paths of the files that belong to a photo among the paths, each with the path of
    that photo.

    Both lie in one folder under one name, but for the suffixes, in any case and any normal form of
    Unicode: ``IMG_1.CR2``, ``img_1.cr2`` or ``IMG_1.CR2.jpg`` beside ``IMG_1.JPG``. Which formats
    belong to which says `PhotoFormat.companion_of`. Of several photos it is the one that is spelled
    alike, then a JPEG, then the one of the shortest name.
    """
    formats = {path: entry for path in paths if (entry := _format(path))}
    named = {path: _stem(path) for path, entry in formats.items() if entry.companion_of}
    if not named:
        return {}
    photos: dict[str, list[str]] = defaultdict(list)
    keys = {_key(stem) for stem in named.values()}
    for path, entry in formats.items():
        if not entry.companion_of and (key := _key(_stem(path))) in keys:
            photos[key].append(path)
    pairs = {}
    for path, stem in named.items():
        fitting = [
            photo
            for photo in photos[_key(stem)]
            if formats[photo].name in formats[path].companion_of
        ]
        if fitting:
            pairs[path] = min(fitting, key=lambda photo: _order(photo, stem, formats[photo]))
    return pairs


def _order(photo: str, stem: str, photo_format: PhotoFormat) -> tuple[bool, int, int, str]:
    return _stem(photo) != stem, _RANKS[photo_format.name], len(photo), photo


def _format(path: str) -> PhotoFormat | None:
    suffix = suffix_of(_name(path))
    return VIDEO if suffix in CLIP_SUFFIXES else SUFFIXES.get(suffix)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    """Return a path without the suffixes of photos that its name ends with."""
    while _format(path):
        path = path.rpartition(".")[0]
    return path


def _key(stem: str) -> str:
    folder, slash, name = stem.rpartition("/")
    return folder + slash + caseless(name)

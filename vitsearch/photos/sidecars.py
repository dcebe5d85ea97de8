"""Files beside a photo that belong to it: XMP sidecars, the JSON of Google Takeout, the RAW of a
JPEG, the clip of a Live Photo.

Which files are a photo's is told by their names alone. XMP sidecars (ISO 16684-3) are
``PHOTO.jpg.xmp`` (darktable, digiKam) before ``PHOTO.xmp`` (Lightroom). Takeout names its files
``PHOTO.jpg.json`` or ``PHOTO.jpg.supplemental-metadata.json``, cut after 46 characters, has the
number of ``PHOTO(1).jpg`` behind (``PHOTO.jpg(1).json``), and writes none for an edited copy.
"""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import eq
from typing import Any

from vitsearch.errors import PhotoError
from vitsearch.paths import caseless
from vitsearch.photos.columns import joined_words, read_metadata
from vitsearch.photos.dates import DATES, MODIFIED, UTC_OFFSET
from vitsearch.photos.decode import read_bytes
from vitsearch.photos.exif import MAX_WORDS_LENGTH, FileTags, on_earth, one_line, usual_packet
from vitsearch.photos.formats import CLIP_SUFFIXES, FORMATS, SUFFIXES, VIDEO, PhotoFormat, suffix_of
from vitsearch.types import PhotoInfo, Value
from vitsearch.untrusted import parse_json

MAX_XMP_BYTES = 16 * 1024 * 1024  # with the masks and the history of an editor
MAX_JSON_BYTES = 1024 * 1024
SEPARATOR = "/"  # of a list of sidecars: no name has it

_CUT = range(51, 43, -1)  # characters after which Takeout cuts a name, with or without its suffix
_SUPPLEMENT = ".supplemental-metadata"
_NUMBERED = re.compile(r"(.+)\((\d{1,5})\)", re.DOTALL | re.ASCII)
# what Takeout puts behind the name of an edited copy, in the language of the account
_EDITED = (
    "-edited", "-bearbeitet", "-editada", "-editado", "-editat", "-modifié", "-modificato",
    "-bewerkt", "-edytowane", "-redigerad", "-redigeret", "-redigert", "-muokattu", "-upraveno",
    "-upravené", "-düzenlendi", "-szerkesztett", "-измененный", "-изменено", "-відредаговано",
    "-編集済み", "-已修改", "-已編輯", "-已编辑", "-편집됨", "-수정됨", "-diedit", "-đã chỉnh sửa",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACES = ("geoData", "geoDataExif")
_RANKS = {entry.name: rank for rank, entry in enumerate(FORMATS)}
Metadata = Mapping[str, Value | None]  # metadata columns by name


# -- Which files -----------------------------------------------------------------------------------


class FolderSidecars:
    """The sidecars of the photos of one folder, given the names of those that may be one.

    ``of`` are the names of the sidecars of each photo that has any, the one that goes before the
    others first; ``used`` are all of these.
    """

    def __init__(self, names: Iterable[str], photos: Iterable[str]) -> None:
        self._xmp: dict[str, list[str]] = {}
        self._json: dict[tuple[str, str], list[str]] = {}
        for name in sorted(names):
            if name[-4:].lower() == ".xmp":
                self._xmp.setdefault(caseless(name[:-4]), []).append(name)
            else:
                for key in _json_keys(caseless(name[:-5])):
                    self._json.setdefault(key, []).append(name)
        self.of = {photo: names for photo in photos if (names := self._find(photo))}
        self.used = frozenset(name for names in self.of.values() for name in names)

    def _find(self, photo: str) -> list[str]:
        stem = photo.rpartition(".")[0]
        named = [self._xmp.get(caseless(name), []) for name in (photo, stem)]
        named.append(next(filter(None, map(self._json_of, _photo_keys(caseless(photo)))), []))
        return [_nearest(names, photo) for names in named if names]

    def _json_of(self, key: tuple[str, str]) -> list[str]:
        return self._json.get(key, [])


def is_sidecar(name: str) -> bool:
    """Return whether a file of this name may be a sidecar."""
    return name[-4:].lower() == ".xmp" or name[-5:].lower() == ".json"


def _nearest(names: Sequence[str], photo: str) -> str:
    """Return the name that begins with the same letters as the photo's in the same case."""
    return max(names, key=lambda name: sum(map(eq, name, photo)))


def _json_keys(base: str) -> Iterator[tuple[str, str]]:
    """Yield the names of the photo that a JSON file without its suffix may belong to, each with the
    number of the photo.
    """
    number = ""
    if match := _NUMBERED.fullmatch(base):
        yield base, ""
        base, number = match.groups()
    yield base, number
    for length in range(len(_SUPPLEMENT), 0, -1):
        if base.endswith(_SUPPLEMENT[:length]):
            base = base[:-length]
            yield base, number
            break
    if suffix_of(base) in SUFFIXES:  # a clip or another version of the photo
        yield base.rpartition(".")[0] + "/", number


def _photo_keys(photo: str) -> Iterator[tuple[str, str]]:
    """Yield what the JSON of a photo may be filed under, the likeliest first."""
    names = list(_originals(photo))
    for name, number in names:
        yield name, number
    for name, number in [each for each in names if each[1]] or names:
        for length in _CUT:
            if len(name) > length:
                yield name[:length], number
    for name, number in names:
        stem = name.rpartition(".")[0]
        yield stem, number
        yield stem + "/", number


def _originals(photo: str) -> Iterator[tuple[str, str]]:
    """Yield a photo's name, and those of which it may be a numbered or an edited copy."""
    yield photo, ""
    stem, dot, suffix = photo.rpartition(".")
    suffix = dot + suffix
    number = ""
    if match := _NUMBERED.fullmatch(stem):
        stem, number = match.groups()
        yield stem + suffix, number
    if original := _unedited(stem, is_cut=len(photo) in _CUT):
        yield original + suffix, number
        if match := _NUMBERED.fullmatch(original):
            yield match[1] + suffix, match[2]


def _unedited(stem: str, *, is_cut: bool) -> str:
    """Return the stem of the photo of which this is the edited copy, "" for none."""
    for word in map(caseless, _EDITED):
        for length in range(len(word), 1 if is_cut else len(word) - 1, -1):
            if stem.endswith(word[:length]):
                return stem[:-length]
    return ""


def signature_of(entries: Iterable[os.DirEntry[str]]) -> str:
    """Return names, sizes and times of sidecars, each part with `SEPARATOR` before the next; what
    is not a regular file is passed over.
    """
    parts: list[str] = []
    for entry in entries:
        with suppress(OSError):
            facts = entry.stat()
            if stat.S_ISREG(facts.st_mode):
                parts += (entry.name, str(facts.st_size), str(facts.st_mtime_ns))
    return SEPARATOR.join(parts)


# -- What they say ---------------------------------------------------------------------------------


def read_sidecars(folder: str, signature: str) -> list[Metadata]:
    """Return what the sidecars of a photo say that say anything, in their order.

    ``signature`` is that of `signature_of`. One that is damaged, or of another program, says
    nothing; raises OSError for one that cannot be read now.
    """
    names = signature.split(SEPARATOR)[::3] if signature else []
    return [facts for name in names if (facts := _read_sidecar(os.path.join(folder, name)))]


def _read_sidecar(file: str) -> Metadata:
    is_json = file.lower().endswith(".json")
    try:
        data = read_bytes(file, max_bytes=MAX_JSON_BYTES if is_json else MAX_XMP_BYTES)
    except PhotoError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from error
        return {}
    with suppress(Exception):  # as tags of a photo, broken ones say nothing
        facts = _takeout(data) if is_json else _xmp(data)
        return {name: value for name, value in facts.items() if value is not None}
    return {}


def _xmp(data: bytes) -> Metadata:
    facts = read_metadata(FileTags(xmp=usual_packet(data)))
    source = facts.get("taken_from")
    return facts if source is None else {**facts, "taken_from": f"sidecar {source}"}


def _takeout(data: bytes) -> Metadata:
    written = parse_json(data, MAX_JSON_BYTES)
    if not isinstance(written, dict) or not written.keys() & {"photoTakenTime", *_PLACES}:
        return {}
    facts: dict[str, Value | None] = {}
    with suppress(TypeError, ValueError, OverflowError, KeyError):
        if seconds := int(written["photoTakenTime"]["timestamp"]):
            moment = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None)
            date = (moment.isoformat(), "Takeout photoTakenTime", UTC_OFFSET)
            facts.update(zip(DATES, date, strict=True))
    for name in reversed(_PLACES):
        with suppress(TypeError, ValueError, KeyError):
            facts.update(_position(written[name]))
    people = written["people"] if isinstance(written.get("people"), list) else []
    names = [each.get("name") for each in people if isinstance(each, dict)]
    facts["keywords"] = joined_words(name for name in names if isinstance(name, str))
    description = written.get("description")
    if isinstance(description, str):
        facts["description"] = one_line(description, MAX_WORDS_LENGTH) or None
    return facts


def _position(facts: Mapping[str, Any]) -> Metadata:
    position = on_earth(float(facts["latitude"]), float(facts["longitude"]))
    if position is None:
        return {}
    return {"latitude": round(position[0], 7), "longitude": round(position[1], 7)}


def with_sidecars(info: PhotoInfo, sidecars: Iterable[Metadata]) -> PhotoInfo:
    """Return the facts of a photo with those of its sidecars where the file does not say.

    A date goes before that of the last change; no stars are as good as none, since cameras write
    so; keywords add up.
    """
    facts = dict(info.metadata)
    for sidecar in sidecars:
        added = dict(sidecar)
        if facts.get("taken_from") in (None, MODIFIED) and "taken_at" in added:
            facts = {name: value for name, value in facts.items() if name not in DATES}
        elif "taken_at" in facts:
            added = {name: value for name, value in added.items() if name not in DATES}
        if "latitude" in facts:
            added.pop("latitude", None)
            added.pop("longitude", None)
        if not facts.get("rating") and "rating" in added:
            facts.pop("rating", None)
        words = [str(each["keywords"]) for each in (facts, added) if "keywords" in each]
        facts = {**added, **facts}
        if len(words) > 1:
            facts["keywords"] = joined_words(word for text in words for word in text.split(", "))
    return replace(info, metadata=facts)


# -- The RAW of a JPEG, the clip of a Live Photo ---------------------------------------------------


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

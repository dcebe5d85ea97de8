"""The captions that data sets bring with their photos: beside them in a tar, or in a column."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from vitsearch.photos.exif import MAX_WORDS_LENGTH, one_line
from vitsearch.types import PhotoInfo

COLUMNS = ("caption", "text", "TEXT")  # of Parquet files, the first that is there
SUFFIXES = (".txt", ".json")  # of members of a tar, the first wins (webdataset, img2dataset)
MAX_BYTES = 64 * 1024


class SampleTexts:
    """The text and JSON members of a tar by the samples that they belong to.

    A member of the name of the photo, but for the last suffix, is its text; otherwise, as in
    webdataset, where the name ends at its first dot, if one photo and no other has that name.
    """

    def __init__(self) -> None:
        self._by_stem: dict[str, dict[str, bytes]] = {}
        self._by_key: dict[str, list[tuple[str, bytes]]] = {}

    def add(self, member: str, data: bytes) -> None:
        """Add a member."""
        stem, suffix = os.path.splitext(member)
        self._by_stem.setdefault(stem, {})[suffix] = data
        self._by_key.setdefault(key_of(member), []).append((suffix, data))

    def captions(self, photos: Sequence[str]) -> list[str | None]:
        """Return the caption of each photo, by the names of all that the tar holds."""
        counts = Counter(map(key_of, photos))
        return [self._caption(photo, alone=counts[key_of(photo)] == 1) for photo in photos]

    def _caption(self, photo: str, *, alone: bool) -> str | None:
        texts = self._by_stem.get(os.path.splitext(photo)[0])
        if texts is None and alone:
            members = self._by_key.get(key_of(photo), [])
            texts = dict(members) if len(dict(members)) == len(members) else None
        for suffix in SUFFIXES if texts else ():
            if texts and suffix in texts and (caption := _read(suffix, texts[suffix])):
                return caption
        return None


def key_of(member: str) -> str:
    """Return what the members of one sample share: the path up to the first dot of the name."""
    folder, slash, name = member.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _read(suffix: str, data: bytes) -> str | None:
    text: object = data.decode("utf-8", "replace")
    if suffix == ".json":
        try:
            record = json.loads(data)
        except (ValueError, RecursionError):
            return None
        values = [record.get(name) for name in COLUMNS] if isinstance(record, dict) else []
        text = next((value for value in values if isinstance(value, str)), None)
    return readable(text)


def readable(text: object) -> str | None:
    """Return a caption on one line, None for what is not a text or is empty."""
    return one_line(text, MAX_WORDS_LENGTH) or None if isinstance(text, str) else None


def with_caption(info: PhotoInfo, caption: str | None) -> PhotoInfo:
    """Return the facts of a photo with a caption as its description, where it has none itself."""
    if caption is None or info["description"]:
        return info
    return replace(info, metadata={**info.metadata, "description": caption})

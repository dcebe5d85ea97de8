"""The captions that data sets bring with their photos: beside them in a tar, or in a column."""

import json
from collections.abc import Iterable
from dataclasses import replace

from vitsearch.photos.exif import MAX_WORDS_LENGTH, one_line
from vitsearch.types import PhotoInfo

COLUMNS = ("caption", "text")  # of Parquet files, the first that is there
SUFFIXES = (".txt", ".json")  # of members of a tar, the first wins (webdataset, img2dataset)
MAX_BYTES = 64 * 1024


def key_of(member: str) -> str:
    """Return what the members of one sample share: the path up to the first dot of the name."""
    folder, slash, name = member.rpartition("/")
    return folder + slash + name.partition(".")[0]


def caption_of(members: Iterable[tuple[str, bytes]]) -> str | None:
    """Return the caption in the text and JSON members of a sample, as (suffix, content)."""
    texts = dict(members)
    for suffix in SUFFIXES:
        if suffix in texts and (caption := _read(suffix, texts[suffix])):
            return caption
    return None


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

"""Sets in the layout of CLIP_benchmark's webdatasets: ``classnames.txt``, templates of prompts, and
tars of photos with the number of their class, or with captions.
"""

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

from vitsearch.errors import QueryError
from vitsearch.labels import Label
from vitsearch.photos.sources.source import is_photo, key_of
from vitsearch.records import atomic_folder
from vitsearch.untrusted import parse_json, read_bounded

CLASSES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
TARS = "test/*.tar"
UNPACKED = "unpacked"  # a folder in the set, with a folder of photos for each class
CAPTIONS = "captions.tsv"
_TARS = "tars.json"  # in that folder: the tars that it was unpacked from, and their sizes
_MAX_TEXT = 65_536  # bytes of the captions of a photo


@dataclass(frozen=True, slots=True)
class BenchmarkSet:
    """A set on disk: its photos in a folder for each class, all its classes (those without a photo
    too), and the templates of its prompts; no labels where the photos have captions instead.
    """

    folder: Path
    labels: list[Label] | None
    templates: list[str]


def is_webdataset(folder: Path) -> bool:
    """Return whether a folder holds a set in this layout."""
    return next(folder.glob(TARS), None) is not None


def unpack(folder: Path) -> BenchmarkSet:
    """Return the set in a folder, its photos unpacked beside the tars where they are not yet, or
    where the tars are others now, by name and size.

    Raises QueryError for a tar that is damaged, for photos whose class is not one number (sets
    of several labels a photo), and for a folder of that name that holds something else.
    """
    tars = sorted(folder.glob(TARS), key=lambda tar: (len(tar.stem), tar.stem))
    names = _lines(folder / CLASSES)
    target = folder / UNPACKED
    sizes = {tar.name: tar.stat().st_size for tar in tars}
    if not target.exists() or _sizes_of(target) != sizes:
        with atomic_folder(target, prefix=".unpacking-") as aside:
            captions = [line for tar in tars for line in _unpack_tar(tar, aside, names)]
            if captions:
                (aside / CAPTIONS).write_text("\n".join(captions) + "\n", encoding="utf-8")
            elif not names:
                raise QueryError(f"{folder} has no {CLASSES}, and its photos have no captions")
            (aside / _TARS).write_text(json.dumps(sizes), encoding="utf-8")
    labels = [Label(_folder_of(number), (name,)) for number, name in enumerate(names)]
    if not any((target / label.name).is_dir() for label in labels):
        labels = []
    templates = [line.replace("{c}", "{}") for line in _lines(folder / TEMPLATES)]
    return BenchmarkSet(target, labels or None, templates)


def _sizes_of(target: Path) -> object:
    """Return the names and sizes of the tars that a folder was unpacked from; raises QueryError
    where it was not.
    """
    try:
        return parse_json(read_bounded(target / _TARS))
    except (OSError, ValueError) as error:
        raise QueryError(
            f"{target} is where the photos of the set are unpacked, and it holds something else: "
            "move it away"
        ) from error


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"cannot read {file} ({error}): fetch the set again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _folder_of(number: int) -> str:
    return f"{number:05d}"


def _unpack_tar(tar: Path, target: Path, classes: list[str]) -> Iterator[str]:
    """Write the photos of a tar into the folders of their classes, and yield the lines of their
    captions.
    """
    try:
        with tarfile.open(tar, mode="r:") as archive:
            members = (member for member in archive if member.isreg())
            for key, sample in groupby(members, key=lambda member: _split(member.name)[0]):
                parts = {_split(member.name)[1]: member for member in sample}
                photo = next((suffix for suffix in parts if is_photo(f"a.{suffix}")), None)
                if photo is None:
                    continue
                name = f"{tar.stem}-{re.sub(r'[^A-Za-z0-9-]', '_', key)}.{photo}"
                if "cls" in parts:
                    number = _class_of(_text(archive, parts["cls"]), classes, tar, key)
                    name = f"{_folder_of(number)}/{name}"
                name = _unused(target, name)
                if "cls" not in parts and "txt" in parts:
                    captions = _text(archive, parts["txt"]).splitlines()
                    yield from (f"{name}\t{line.strip()}" for line in captions if line.strip())
                elif "cls" not in parts:
                    raise QueryError(
                        f"{tar}: {key} has neither a class (.cls) nor captions (.txt): sets with "
                        "several labels a photo are not read"
                    )
                (target / name).parent.mkdir(exist_ok=True)
                with _opened(archive, parts[photo]) as source, (target / name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (tarfile.TarError, OSError) as error:
        raise QueryError(f"{tar} is cut or damaged ({error}): fetch the set again") from error


def _unused(target: Path, name: str) -> str:
    """Return the name, with a number where it is taken: keys may differ in what was replaced."""
    stem, _, suffix = name.partition(".")
    number = 1
    while (target / name).exists():
        number += 1
        name = f"{stem}-{number}.{suffix}"
    return name


def _split(name: str) -> tuple[str, str]:
    """Return the key and the suffix of a member."""
    key = key_of(name)
    return key, name[len(key) + 1 :].lower()


def _class_of(text: str, classes: list[str], tar: Path, key: str) -> int:
    if text.strip().isdecimal() and int(text) < len(classes):
        return int(text)
    raise QueryError(
        f"{tar}: the class of {key} is {text.strip()[:40]!r}, not the number of a line of "
        f"{CLASSES}, from 0 to {len(classes) - 1}"
    )


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    with _opened(archive, member) as source:
        return source.read(_MAX_TEXT).decode("utf-8", "replace")


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    opened = archive.extractfile(member)
    assert opened is not None  # it is a regular file
    return opened

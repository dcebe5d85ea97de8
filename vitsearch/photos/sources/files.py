"""The files that a name stands for: one file, those of a folder, or those that match a pattern."""

import glob
import itertools
import os
import posixpath

from vitsearch.errors import CollectionError
from vitsearch.paths import raw_path
from vitsearch.photos.sources.source import (
    MAGIC,
    below,
    expanded,
    folder_of,
    is_pattern,
    protocol_of,
)


def named_files(name: str, ending: str) -> tuple[str, tuple[str, ...]]:
    """Return the folder, and the files with an ending, that a file's name, a pattern or a folder
    means.

    Files are in the order of the bytes of their paths. Raises CollectionError where there are none.
    """
    is_literal = os.path.isfile(name)
    is_folder = not is_literal and not name.endswith(f".{ending}") and not is_pattern(name)
    pattern = below(name, f"*.{ending}") if is_folder else name
    folder = posixpath.dirname(name) if is_literal else name if is_folder else folder_of(name)
    files = (
        [name]
        if is_literal
        else list(dict.fromkeys(itertools.chain.from_iterable(map(_matches, expanded(pattern)))))
    )
    if not files:
        raise CollectionError(
            f"no file is named {pattern}: check the spelling, or name a folder of photos, a "
            ".parquet or a .tar"
        )
    for file in files:
        if raw_path(file).decode("utf-8", "replace") != file:
            raise CollectionError(
                f"the name of {file!r} is no UTF-8, and lists of photos hold names of their files "
                "as text: rename it"
            )
    return folder, tuple(sorted(files, key=lambda file: raw_path(file + "/")))


def _matches(pattern: str) -> list[str]:
    if not MAGIC.search(pattern):
        return [pattern]
    if protocol_of(pattern) is None:
        return [file.replace(os.sep, "/") for file in glob.glob(pattern, recursive=True)]
    from vitsearch.photos.sources.remote import matching

    return matching(pattern)

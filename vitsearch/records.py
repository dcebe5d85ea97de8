"""Records on disk: dataclasses as JSON, and files and folders that are written atomically."""

import glob
import json
import math
import os
import secrets
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vitsearch.paths import NOT_SUPPORTED
from vitsearch.untrusted import MAX_JSON_BYTES, guarded, parse_json, read_bounded, reason

Record = TypeVar("Record")

# -- dataclasses as JSON ------------------------------------------------------------------------


class NewerFormat(ValueError):
    """A record in a format of a later version."""


def to_json(record: Any, *, indent: int | None = None) -> str:
    """Return a dataclass as a JSON object in ASCII, in the order of its fields."""
    return json.dumps(asdict(record), indent=indent, ensure_ascii=True) + "\n"


def from_dict(cls: type[Record], stored: Any) -> Record:
    """Return the record that a JSON object describes; raises ValueError with the problem.

    Every field is checked against its annotation. A field with a default may be absent, except for
    ``format``, whose default is the newest supported number; unknown keys are ignored. A class may
    check more in ``__post_init__`` (ValueError), or have a ``from_dict`` of its own.
    """
    if not isinstance(stored, dict):
        raise ValueError("not an object")
    described: dict[str, Field[Any]] = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    newest: Any = described["format"].default if "format" in described else None
    number = stored.get("format")
    if newest and type(number) is int and number > newest:
        raise NewerFormat(f"has format {number}, newer than this vitsearch reads ({newest})")
    hints, values = get_type_hints(cls), {}
    for name, field in described.items():
        if name in stored:
            values[name] = _checked(stored[name], hints[name], repr(name))
        elif name == "format" or (field.default is MISSING and field.default_factory is MISSING):
            raise ValueError(f"no {name!r}")
    return cls(**values)


def parse_record(
    cls: type[Record],
    data: bytes | str,
    where: str,
    *,
    error: type[Exception],
    repair: str,
    max_bytes: int = MAX_JSON_BYTES,
) -> Record:
    """Return the record in a JSON text.

    Raises ``error`` for a damaged or newer one: its line names ``where`` and the problem, and says
    to ``repair`` it or to upgrade.
    """
    with guarded(error, where, repair):
        try:
            return from_dict(cls, parse_json(data, max_bytes))
        except NewerFormat as failure:
            raise error(f"{where} {failure}: upgrade vitsearch") from failure


def read_record(
    cls: type[Record],
    file: Path,
    *,
    error: type[Exception],
    repair: str,
    missing: Exception | None = None,
    max_bytes: int = MAX_JSON_BYTES,
) -> Record:
    """Return the record in a JSON file.

    Raises the errors of `parse_record`, ``error`` also for a file that cannot be read, and
    ``missing`` (None: FileNotFoundError) if there is no file.
    """
    try:
        data = read_bounded(file, max_bytes)
    except (FileNotFoundError, NotADirectoryError) as failure:
        raise missing or failure from failure
    except OSError as failure:
        raise error(
            f"{file} cannot be read ({reason(failure)}): check its permissions"
        ) from failure
    except ValueError as failure:
        raise error(f"{file} is damaged ({failure}): {repair}") from failure
    return parse_record(cls, data, str(file), error=error, repair=repair, max_bytes=max_bytes)


def _checked(value: Any, hint: Any, name: str) -> Any:
    """Return a JSON value as a value of the annotated type; raises ValueError."""
    kind = nested = get_origin(hint) or hint
    arguments = get_args(hint)
    if kind in (Union, types.UnionType):
        return _first_fit(value, arguments, name)
    if kind is Literal and value in arguments:
        return value
    if isinstance(value, dict) and is_dataclass(kind):
        return getattr(nested, "from_dict", partial(from_dict, nested))(value)
    if kind in (list, tuple) and isinstance(value, list):
        item = arguments[0] if arguments else Any
        return kind(_checked(each, item, name) for each in value)
    if kind in (dict, Mapping) and isinstance(value, dict):
        item = arguments[1] if arguments else Any
        return {key: _checked(each, item, name) for key, each in value.items()}
    if kind is Any or (type(value) is kind and kind in (str, int, bool, types.NoneType)):
        return value
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return value
    raise ValueError(f"{name} is of the wrong type")


def _first_fit(value: Any, hints: tuple[Any, ...], name: str) -> Any:
    for hint in hints:
        with suppress(ValueError):
            return _checked(value, hint, name)
    raise ValueError(f"{name} is of the wrong type")


# -- atomic files and folders -------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path, *, sync: bool = True, aside: Path | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces ``path`` if the block succeeds.

    Otherwise it is removed. ``sync`` flushes it to the disk before. Raises OSError.
    """
    aside = aside or path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.new")
    try:
        yield aside
        if sync:
            flush_path(aside)
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def flush(number: int) -> None:
    """Write an open file through to the disk, where its file system can; raises OSError."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


def flush_path(path: Path) -> None:
    """Write a file through to the disk, or the names in a folder; raises OSError."""
    if os.name == "nt" and path.is_dir():
        return  # a folder cannot be opened there
    number = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        flush(number)
    finally:
        os.close(number)


def remove_unfinished(folder: Path, *, prefix: str = ".") -> None:
    """Remove the temporary files of `atomic_file` in a folder that no other process writes to now.

    ``prefix`` is that of the hidden names to remove. Raises OSError.
    """
    for file in folder.glob(f"{glob.escape(prefix)}*.new"):
        if file.is_file():
            file.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes | str, *, sync: bool = True) -> None:
    """Replace the content of a file atomically, text as UTF-8; raises OSError."""
    with atomic_file(path, sync=sync) as aside:
        aside.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def atomic_folder(
    folder: Path, *, prefix: str, unless: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """Yield an empty folder that replaces ``folder`` if the block succeeds.

    Otherwise, or if ``unless`` then returns true, it is removed. It lies in a new folder beside
    ``folder``, with a name that begins with ``prefix``, so that no file of the user's is in the
    way. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        (holder / "new").mkdir()
        yield holder / "new"
        if not unless():
            replace_folder(holder / "new", folder, holder / "old")
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def replace_folder(new: Path, folder: Path, old: Path) -> None:
    """Rename ``folder`` to ``old`` and ``new`` to ``folder``.

    Raises OSError, after which an existing ``folder`` is in its place again.
    """
    with suppress(FileNotFoundError):
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        with suppress(OSError):
            os.rename(old, folder)
        raise

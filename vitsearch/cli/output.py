"""How results are written: for people, as JSON Lines in pure ASCII, or as bare paths; and labels as
links, sidecars and sheets.
"""

import csv
import json
import logging
import os
import shlex
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from vitsearch.errors import VitsearchError
from vitsearch.records import atomic_file
from vitsearch.types import Prediction, Progress


class Stopped(Exception):
    """The user stopped a command; the text says what was stored and how to go on."""


def print_note(text: str) -> None:
    """Write one line for the user on stderr."""
    line = f"{fitting_here(printable(text))}\n"
    sys.stderr.buffer.write(line.encode("utf-8", "backslashreplace"))
    sys.stderr.flush()


def fitting_here(advice: str) -> str:
    """Return an advice to install something, for the environment of its own in which pipx or uv
    keeps a command.
    """
    prefix, command = Path(sys.prefix), "pip install"
    if (prefix / "pipx_metadata.json").exists():
        return advice.replace(command, f"pipx runpip {shlex.quote(prefix.name)} install")
    if (prefix / "uv-receipt.toml").exists():
        return advice.replace(command, f"uv pip install --python {shlex.quote(str(prefix))}")
    return advice


class Remarks(logging.Handler):
    """Shows the log messages of the library to the user, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        print_note(f"vitsearch: {record.getMessage()}")


def give_up_output(error: OSError) -> int:
    """Let stdout go where writing to it failed, say why unless its reader (such as `head`) has
    enough, and return the exit code.
    """
    # what is left in the buffer must not fail again at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 0
    problem = error.strerror or error
    if error.filename is None:  # stdout
        print_note(
            f"vitsearch: cannot go on ({problem}): free some space, or send the output elsewhere"
        )
    else:
        print_note(f"vitsearch: cannot go on: {printable(os.fsdecode(error.filename))}: {problem}")
    return 1


def print_line(text: str) -> None:
    """Write one line on stdout; bytes of a file name that are not UTF-8 are written unchanged."""
    sys.stdout.buffer.write(f"{text}\n".encode("utf-8", "surrogateescape"))


def print_json(row: Mapping[str, Any]) -> None:
    """Write one object as a line of pure ASCII; an invalid byte of a name is ``\\udcXX``."""
    print_line(json.dumps(row, ensure_ascii=True))


def print_paths(paths: Iterable[str], zero: bool) -> None:
    """Write raw paths, each ended by a newline or by a zero byte."""
    for path in paths:
        sys.stdout.buffer.write(os.fsencode(path) + (b"\0" if zero else b"\n"))


def printable(text: str) -> str:
    """Return text with control characters escaped, so that a file name cannot move the cursor or
    break the line.
    """
    return "".join(
        char
        if not unicodedata.category(char).startswith("C") or "\udc80" <= char <= "\udcff"
        else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    # U+200D joins the people of an emoji family
    return char if char == "\u200d" else char.encode("unicode_escape").decode("ascii")


def print_table(rows: Sequence[Sequence[object]], heads: Sequence[str] = ()) -> None:
    """Write aligned columns on stdout; where a terminal is too narrow for three or more, the first
    stands on a line of its own.
    """
    cells = [[printable(str(cell)) for cell in row] for row in ([heads, *rows] if heads else rows)]
    widths = (
        [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    )
    breadth = sum(widths) + 2 * (len(widths) - 1)
    can_part = len(widths) > 2 and sys.stdout.isatty()
    is_narrow = can_part and breadth > shutil.get_terminal_size().columns
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if is_narrow:
            print_line(row[0])
            padded[0] = "  "
        print_line("  ".join(padded).rstrip())


# What rows about photos hold in JSON, in this order, each where it is known; what else a command
# says of a photo follows. docs/search.md explains them.
PHOTO_KEYS = (
    "path", "score", "relevance", "label", "file", "collection", "time", "quotes", "companions",
)  # fmt: skip


def photo_row(root: str | os.PathLike[str], path: str, **facts: Any) -> dict[str, Any]:
    """Return a row about a photo for programs: `PHOTO_KEYS` first, without those that are None, and
    ``file``, its absolute path; scores have six digits, relevance three.
    """
    known = {"path": path, "file": os.path.join(os.path.abspath(root), *path.split("/")), **facts}
    first = {key: known[key] for key in PHOTO_KEYS if known.get(key) is not None}
    for key, digits in (("score", 6), ("relevance", 3)):
        if key in first:
            first[key] = round(first[key], digits)
    return first | {key: value for key, value in facts.items() if key not in PHOTO_KEYS}


def label_row(root: str | os.PathLike[str], prediction: Prediction) -> dict[str, Any]:
    """Return a label of a photo as a row of output."""
    return photo_row(root, prediction.path, score=prediction.score, label=prediction.label)


def write_label_rows(rows: Sequence[Mapping[str, Any]], output: str | None, as_json: bool) -> None:
    """Write rows of path, label and score to a file, as JSON Lines, or for people."""
    if output:
        write_rows(Path(output), rows)
        print_note(f"vitsearch: wrote {len(rows)} rows to {output}")
        return
    for row in rows:
        if as_json:
            print_json(row)
        else:
            print_line(
                f"{row['score']:.4f}\t{printable(str(row['label']))}\t{printable(str(row['path']))}"
            )


def check_rows_file(file: Path) -> None:
    """Raise VitsearchError unless rows can be written under this name; call it before long work."""
    if file.suffix.lower() not in (".csv", ".jsonl"):
        raise VitsearchError(f"cannot write {file}: name it .csv or .jsonl")
    if not file.parent.is_dir():
        raise VitsearchError(f"cannot write {file}: there is no folder {file.parent}")


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to a ``.csv`` or ``.jsonl`` file, which appears when it is complete; raises
    VitsearchError.
    """
    check_rows_file(file)
    try:
        with (
            atomic_file(file, sync=False) as aside,
            open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="") as out,
        ):
            _write(out, rows, file.suffix.lower())
    except OSError as error:
        raise VitsearchError(
            f"cannot write {file} ({error.strerror}): choose another place for --output"
        ) from error


CSV_COLUMNS = ("path", "label", "score")  # of a file of labels, which is read again as such


def _write(out: TextIO, rows: Sequence[Mapping[str, Any]], suffix: str) -> None:
    if suffix == ".jsonl":
        out.writelines(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        return
    writer = csv.DictWriter(out, fieldnames=CSV_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)


def readable_size(count: float) -> str:
    """Return a number of bytes in the unit that fits, as in 1.2 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


# -- Progress on a terminal ------------------------------------------------------------------------


def photo_bar(total: int | None, title: str) -> Any:
    """Return a bar of photos, rate and time left on stderr, silent where that is not a terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total, unit=" photos", desc=title, disable=None, file=sys.stderr, dynamic_ncols=True
    )


class ProgressBar:
    """Shows photos, rate and time left of a long task on stderr: a bar on a terminal, elsewhere, as
    in a log, a line every 30 seconds.

    Looking at a folder, loading a model and building an index show nothing: nobody knows how long
    they take.
    """

    def __init__(self, *, quiet: bool = False, line_every: float = 30) -> None:
        self._quiet = quiet
        self._line_every = line_every
        self._bar: Any = None
        self._title = ""
        self._begun = self._last_line = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar; the next step begins another."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, step: Progress) -> None:
        if self._quiet or step.stage in ("looking", "loading", "building"):
            return
        title = "indexing" if step.stage == "embedding" else step.stage
        if title != self._title:
            self.close()
        if self._bar is None:
            self._title = title
            self._bar = photo_bar(step.total, title)
            self._begun = self._last_line = time.monotonic()
        self._bar.set_postfix_str(f"{step.failed} failed" if step.failed else "", refresh=False)
        self._bar.update(step.done - self._bar.n)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= self._line_every:
            self._last_line = now
            print_note(f"vitsearch: {title}: {progress_line(step, now - self._begun)}")


def progress_line(step: Progress, seconds: float) -> str:
    """Return how far a run is, its rate, and the time left where the total is known."""
    rate = step.done / seconds if seconds else 0.0
    total = f" of {step.total:,}" if step.total else ""
    parts = [f"{step.done:,}{total} photos", f"{rate:.1f} a second"]
    if step.failed:
        parts.append(f"{step.failed:,} failed")
    if step.total and rate:
        minutes = round((step.total - step.done) / rate / 60)
        hours = f"{minutes // 60} h " if minutes >= 60 else ""
        parts.append(f"about {hours}{minutes % 60} min left" if minutes else "under a minute left")
    return ", ".join(parts)


# -- Labels as links, sidecars and sheets ----------------------------------------------------------


MAX_PROBLEMS = 10  # named one by one; the rest is counted


def write_outputs(
    root: Path,
    options: dict[str, Any],
    predictions: Sequence[Prediction],
    photos: Iterable[str],
    written: Sequence[Prediction],
) -> None:
    """Draw the photos as the options ask, sort those of ``written`` and write their sidecars;
    ``photos`` are the paths of all that were looked at.
    """
    if options["sort_into"] is not None:
        from vitsearch.outputs.sorting import sort_into_folders

        done = sort_into_folders(options["sort_into"], written, root=root, copy=options["copy"])
        made = {
            "copied" if options["copy"] else "linked": done.made,
            "as before": done.unchanged,
            "removed": done.removed,
        }
        _say(f"sorted into {options['sort_into']}", made, "not sorted", done.problems)
    if options["xmp"]:
        from vitsearch.labels import NOTHING
        from vitsearch.outputs.sidecars import write_sidecars

        keywords = [prediction for prediction in written if prediction.label != NOTHING]
        report = write_sidecars(keywords, root=root, photos=photos)
        _say(
            "XMP sidecars",
            {"written": report.written, "as before": report.unchanged},
            "not written",
            report.problems,
        )
    if options["sheet"] and predictions:
        _draw_labels(Path(options["sheet"]), predictions, root)


def _draw_labels(file: Path, predictions: Sequence[Prediction], root: Path) -> None:
    from vitsearch.outputs.contact_sheet import MAX_TILES, write_sheet

    by_label: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_label.setdefault(prediction.label, []).append(prediction)
    fits = len(predictions) <= MAX_TILES
    each = len(predictions) if fits else max(1, MAX_TILES // len(by_label))
    sections = []
    for name, labelled in sorted(by_label.items(), key=lambda item: (-len(item[1]), item[0])):
        labelled.sort(key=lambda prediction: (-prediction.score, prediction.path))
        tiles = [(prediction.path, f"{prediction.score:.3f}") for prediction in labelled[:each]]
        sections.append((f"{name} ({len(labelled):,})", tiles))
    drawn = sections[:MAX_TILES]
    write_sheet(file, drawn, root=root)
    left = len(predictions) - sum(len(tiles) for _, tiles in drawn)
    print_note(f"vitsearch: wrote {file}" + (f", without {left:,} photos" if left else ""))


def _say(
    what: str, counts: dict[str, int], failed: str, problems: Sequence[tuple[str, str]]
) -> None:
    for path, reason in problems[:MAX_PROBLEMS]:
        print_note(f"vitsearch: {path}: {reason}")
    if len(problems) > MAX_PROBLEMS:
        print_note(f"vitsearch: and {len(problems) - MAX_PROBLEMS:,} more")
    parts = [
        f"{count:,} {name}" for name, count in {**counts, failed: len(problems)}.items() if count
    ]
    print_note(f"vitsearch: {what}: {', '.join(parts) or 'nothing to do'}")

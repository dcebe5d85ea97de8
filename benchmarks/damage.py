"""What random damage to the files of a collection does.

    python benchmarks/damage.py --damages 1000 [--seed 0] [--json] [--list]

A collection of 800 tiny photos, by each of four recipes and with an index of changes beside the
main one, is damaged in one file at a time: a bit, a few bytes, a block of noise or of zeros, or the
end cut off; size and time of the file stay as they were wherever that is possible. Then come
searches (near photos, all photos, with a filter), `verify`, a run of indexing, and the searches
again. Each damage is tried in a process of its own, so that a crash is counted too.

Counted are: tracebacks and crashes, results that differ from those of before the damage without any
remark or error, damages that `verify` does not see (of those that changed a result), and what is
still different after the run of indexing.
"""

import argparse
import json
import logging
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitsearch import Collection, VitsearchError, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.storage import indexes

PHOTOS, CHANGED = 800, 12
RECIPES = ("flat", "ivf", "hnsw", "disk")
KINDS = ("bit", "bytes", "block", "zeros", "cut")
QUERIES = ("red", "blue + green", "2:yellow - red")
FILTER = "width > 4"
SECONDS = 120  # for one damage

Results = list[list[tuple[str, float]]]


def make(folder: Path) -> None:
    """Paint the photos, and index them by each recipe into a collection of its name."""
    photos, rng = folder / "photos", np.random.default_rng(0)
    photos.mkdir()
    for number in range(PHOTOS):
        pixels = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8).repeat(2 + number % 3, axis=0)
        Image.fromarray(pixels.repeat(2 + number % 3, axis=1)).save(photos / f"{number:04}.png")
    for recipe in RECIPES:
        index(folder, recipe, recipe=recipe)
    for number in range(CHANGED):
        (photos / f"{PHOTOS - 1 - number:04}.png").unlink()
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(
            photos / f"new {number:02}.png"
        )
    for recipe in RECIPES:
        index(folder, recipe)


def index(folder: Path, collection: str, **options: Any) -> None:
    index_folder(
        folder / "photos", collection=folder / collection, encoder=ColourEncoder(), **options
    )


def searches(folder: Path, collection: str, top_k: int = 10) -> Results:
    """What the searches of a collection find, as (path, score)."""
    with Collection.open(
        folder / "photos", collection=folder / collection, encoder=ColourEncoder()
    ) as opened:
        found = [opened.search(query, 10) for query in QUERIES]
        found += [
            opened.search("green", 2 * PHOTOS),
            opened.search("red", 2 * PHOTOS, where=FILTER),
        ]
    return [[(hit.path, round(hit.score, 5)) for hit in hits] for hits in found]


def difference(found: Results, truth: Results, scores: Results) -> str:
    """Return how results differ from those of before: in a path, a score, or a missing photo.

    ``scores`` are those of all photos for each search. "" stands for equal results.
    """
    if found == truth:
        return ""
    pairs = [
        (dict(all_of_them).get(path), score)
        for hits, all_of_them in zip(found, scores, strict=True)
        for path, score in hits
    ]
    if any(expected is None for expected, _ in pairs):
        return "wrong path"
    wrong = any(abs(expected - score) > 1e-4 for expected, score in pairs if expected is not None)
    return "wrong score" if wrong else "missing"


# -- one damage ------------------------------------------------------------------------------------


def damage(file: Path, kind: str, rng: random.Random) -> str:
    """Damage a file, and return what was done; time and, but for a cut, size stay."""
    status, data = file.stat(), bytearray(file.read_bytes())
    start = rng.randrange(len(data))
    if kind == "bit":
        data[start] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[start:]
    else:
        length = {"bytes": rng.randint(1, 16), "block": 512, "zeros": 4096}[kind]
        end = min(len(data), start + length)
        data[start:end] = bytes(end - start) if kind == "zeros" else rng.randbytes(end - start)
    changed = bytes(data) != file.read_bytes()
    file.write_bytes(bytes(data))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return f"{file.parent.name}/{file.name} {kind} at {start}" if changed else ""


def choose(collection: Path, rng: random.Random) -> Path:
    """Return a file: the database as often as the indexes together."""
    groups = [
        [collection / "photos.db"],
        [collection / "collection.json"],
        sorted((collection / "index").iterdir()),
        sorted((collection / "delta").iterdir()),
    ]
    return rng.choice(rng.choices(groups, weights=(9, 1, 7, 3))[0])


def attempt(what: Callable[[], Any]) -> tuple[Any, list[str], str]:
    """Call a function; return its result, what was remarked, and "", the error's line or
    "TRACEBACK ...".
    """
    remarks: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: remarks.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("vitsearch")
    logger.handlers, logger.propagate = [handler], False
    try:
        return what(), remarks, ""
    except VitsearchError as error:
        return None, remarks, str(error)
    except BaseException as error:  # what nobody meant to raise is counted
        return None, remarks, f"TRACEBACK {type(error).__name__}: {error}"


def try_damage(folder: Path, seed: int, truths: dict[str, list[Results]]) -> dict[str, Any]:
    """Damage a copy of a collection, and return what came of it."""
    rng = random.Random(seed)
    recipe, kind = rng.choice(RECIPES), rng.choice(KINDS)
    copy = f"copy-{os.getpid()}"
    shutil.copytree(folder / recipe, folder / copy)
    try:
        done = damage(choose(folder / copy, rng), kind, rng)
        found, remarks, error = attempt(lambda: searches(folder, copy))
        report: dict[str, Any] = {"damage": f"{recipe} {done}", "search": error or remarks[:2]}
        report["differs"] = difference(found, *truths[recipe]) if found is not None else "refused"
        report["silent"] = bool(report["differs"]) and not remarks and not error
        checks, _, error = attempt(lambda: verify(folder, copy))
        report["verify"] = error or checks
        _, remarks, error = attempt(lambda: index(folder, copy))
        report["index"] = error or remarks[:2]
        found, remarks, again = attempt(lambda: searches(folder, copy))
        report["after"] = difference(found, *truths[recipe]) if found is not None else "refused"
        report["after_silent"] = bool(report["after"]) and not (remarks or again or error)
    finally:
        shutil.rmtree(folder / copy, ignore_errors=True)
    return report


def verify(folder: Path, collection: str) -> list[str]:
    with Collection.open(
        folder / "photos", collection=folder / collection, encoder=ColourEncoder()
    ) as opened:
        return [f"{check.name}: {check.detail}"[:200] for check in opened.verify() if not check.ok]


def in_a_child(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a function returns in a child process, or how that ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.alarm(SECONDS)
        with os.fdopen(write, "wb") as out:
            pickle.dump(function(), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        data = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return pickle.loads(data) if code == 0 else {"crash": f"ended with {code}"}


# -- all of them -----------------------------------------------------------------------------------


def summary(reports: list[dict[str, Any]]) -> dict[str, int]:
    """Return the counts that are promised to be 0, and the others."""
    sound = [report for report in reports if "crash" not in report]
    texts = [str(report.get(step)) for report in sound for step in ("search", "verify", "index")]
    counts = Counter(report["differs"] for report in sound if report["silent"])
    return {
        "damages": len(reports),
        "crashes": len(reports) - len(sound),
        "tracebacks": sum("TRACEBACK" in text for text in texts),
        "silently wrong scores": counts["wrong score"],
        "silently wrong paths": counts["wrong path"],
        "silently missing photos": counts["missing"],
        "results as before": sum(not report["differs"] for report in sound),
        "other results, with a remark": sum(
            bool(report["differs"]) and not report["silent"] and report["differs"] != "refused"
            for report in sound
        ),
        "refused in one line": sum(report["differs"] == "refused" for report in sound),
        "changed a result, verify content": sum(
            bool(report["differs"]) and report["verify"] == [] for report in sound
        ),
        "as before after vitsearch index": sum(not report["after"] for report in sound),
        "silently different after vitsearch index": sum(report["after_silent"] for report in sound),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the counts as JSON")
    parser.add_argument("--list", action="store_true", help="what came of each, on stderr")
    options = parser.parse_args()
    indexes.DELTA_FROM = 100  # so that there is an index of changes
    with tempfile.TemporaryDirectory(prefix="vitsearch-damage-") as name:
        folder = Path(name)
        make(folder)
        truths = {
            recipe: [searches(folder, recipe), searches(folder, recipe, 2 * PHOTOS)]
            for recipe in RECIPES
        }
        reports = []
        for seed in range(options.seed, options.seed + options.damages):
            report = in_a_child(lambda seed=seed: try_damage(folder, seed, truths))  # type: ignore[misc]
            reports.append({"seed": seed, **report})
            if options.list:
                print(json.dumps(reports[-1]), file=sys.stderr, flush=True)
    counts = summary(reports)
    if options.json:
        print(json.dumps(counts))
    else:
        print("\n".join(f"{number:6} {what}" for what, number in counts.items()))


if __name__ == "__main__":
    main()

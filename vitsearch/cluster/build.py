"""A FAISS index from shards within a memory budget.

It is trained on a sample, built in parts, merged on disk, measured and tuned.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitsearch.arrays import Halves, mapped
from vitsearch.cluster.shard_index import (
    BLOCK,
    FACTS,
    FILES,
    PARTS,
    TRAINED,
    Part,
    make_part,
    merge_parts,
    row_numbers,
)
from vitsearch.errors import CollectionError, RecipeError
from vitsearch.index import FAISS, IDS, VECTORS
from vitsearch.index.manifest import (
    MANIFEST,
    CheckedBlocks,
    FileFacts,
    Manifest,
    Measured,
    facts_of,
    write_manifest,
)
from vitsearch.index.recall import make_sample, tune
from vitsearch.index.recipe import RECALL, Recipe, choose_recipe, load_recipe
from vitsearch.index.snapshot import IndexSnapshot
from vitsearch.shards import open_shards
from vitsearch.storage.filesystem import writer_lock

if TYPE_CHECKING:
    from vitsearch.shards.files import ShardSet

LIBRARIES = 250_000_000  # bytes of memory of Python, FAISS and Arrow before the first row
MIN_MEMORY = 400_000_000
SEED = 0
SAMPLED_SHARDS = 512  # shards that a sample is drawn from
QUERIES = 200  # photos that the recall is measured on
BEGUN = "begun.json"
MIN_PARTS = 32  # for as many machines, and so that a stopped run repeats little
TRAINING_COPIES = 4  # the sample as float16 and float32, and FAISS's copies
READING_COPIES = 4  # a shard's file, and its columns
log = logging.getLogger("vitsearch")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built: ``rows`` photos of ``shards`` shards in ``parts`` parts, and its recall.

    ``reused_parts`` were built by an earlier run. ``recipe`` has the tuned search parameters;
    ``measured`` is None where every vector is compared. ``seconds`` are by stage.
    """

    rows: int
    shards: int
    parts: int
    reused_parts: int
    recipe: Recipe
    measured: Measured | None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as `vitsearch build --json` prints it."""
        names = {"reused_parts": "kept"}
        facts = {names.get(key, key): value for key, value in asdict(self).items()}
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        return facts | {"recipe": self.recipe.to_dict(), "seconds": seconds}


@dataclass(frozen=True, slots=True)
class _BuildJob:
    """What to build: the shards with the row count of each, the recipe, and the room for it.

    ``trained_on`` is the size of the training sample, 0 for an exact search; ``room`` the bytes of
    memory for rows; ``staging`` the folder in which the index grows.
    """

    shards: "ShardSet"
    counts: dict[int, int]
    recipe: Recipe
    trained_on: int
    room: int
    staging: Path

    @property
    def rows(self) -> int:
        return sum(self.counts.values())

    @property
    def dim(self) -> int:
        return self.shards.manifest.dim

    @property
    def exact(self) -> bool:
        return not self.trained_on


def build_index(
    output: str | os.PathLike[str],
    index: str | os.PathLike[str],
    *,
    recipe: str | Path | Recipe = "ivf-sq8",
    memory: int = 2_000_000_000,
    recall: float = RECALL,
    address: str | None = None,
) -> BuildReport:
    """Build the index of a complete shard set into the folder ``index``, and return a report.

    ``memory`` is the most that a process may use, in bytes, without the pages of mapped files.
    ``address`` is that of a Ray cluster whose machines all see both folders ("local": one on this
    machine for the time of the build); None builds the parts here, one after the other. The search
    effort is the least that reaches ``recall`` of the ten nearest on 200 of the photos, each left
    out of its own results. The folder is written under another name and renamed; a run that was
    stopped continues with the parts that exist. Fewer than about 10,000 photos are searched
    exactly. Raises CollectionError (an incomplete shard set, something else in place of the folder,
    a full disk), CollectionLocked, RecipeError, and VitsearchError where the cluster fails.
    """
    if not 0 < recall <= 1:
        raise CollectionError(f"a recall is above 0 and at most 1, such as 0.95, not {recall}")
    target = Path(os.path.abspath(index))
    job = _prepared(output, target, recipe, memory)
    work = job.staging.parent
    try:
        with writer_lock(work):
            report = _built(job, target, recall, address=address)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise CollectionError(
            f"cannot write to {work} ({error.strerror}): free some space, and run the same "
            "command to go on"
        ) from error
    return report


def _built(job: _BuildJob, target: Path, recall: float, *, address: str | None) -> BuildReport:
    parts, timer = _begun(job), _StageTimer()
    reused = sum(part.is_done() for part in parts)
    log.info(
        f"{job.rows:,} photos of {len(job.counts):,} shards in {len(parts):,} parts"
        + (f", {reused:,} done before" if reused else "")
    )
    if not job.exact and not (job.staging / TRAINED).exists():
        _train(job)
        log.info(f"trained on {job.trained_on:,} photos")
    timer.stage("train")
    _add(parts, address)
    timer.stage("add")
    merge_parts(job.staging, parts, batch=max(1, job.room // 64))
    timer.stage("merge")
    tuned, measured = _tuned(job, recall)
    timer.stage("measure")
    if measured:
        log.info(f"recall@{measured.k} on {measured.queries} photos: {measured.recall:.3f}")
    _finish(job, target, tuned, measured)
    timer.stage("finish")
    return BuildReport(
        rows=job.rows,
        shards=len(job.counts),
        parts=len(parts),
        reused_parts=reused,
        recipe=tuned,
        measured=measured,
        seconds=timer.seconds,
    )


def _prepared(
    output: str | os.PathLike[str], target: Path, recipe: str | Path | Recipe, memory: int
) -> _BuildJob:
    if memory < MIN_MEMORY:
        raise CollectionError(
            f"{memory / 1e6:.0f} MB of memory are too few to build in: allow "
            f"{MIN_MEMORY / 1e6:.0f} MB or more"
        )
    if target.exists() and not ((target / MANIFEST).exists() and (target / FACTS).exists()):
        raise CollectionError(f"{target} is no index that could be replaced: name a new folder")
    shards = open_shards(output)
    missing = shards.missing()
    if missing:
        raise CollectionError(
            f"{shards.name} lacks {len(missing):,} shards: run the same `vitsearch embed` again "
            "to finish it first"
        )
    counts = {number: shards.counts([number])[0] for number in shards.finished()}
    rows, dim, room = sum(counts.values()), shards.manifest.dim, memory - LIBRARIES
    if not rows:
        raise CollectionError(
            f"no shard of {shards.name} holds a photo: see `vitsearch "
            "failures`, and embed another source"
        )
    largest = max(counts.values())
    needed = largest * 2 * dim * READING_COPIES
    if needed > room:
        raise CollectionError(
            f"a shard of {largest:,} photos does not fit: allow "
            f"{(LIBRARIES + needed) / 1e6:,.0f} MB of memory or more"
        )
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if chosen.kind == "auto":
        chosen = choose_recipe(rows, dim, memory=chosen.memory or memory, recall=RECALL).recipe
    trained_on = min(_trains_on(chosen, rows, dim), room // (4 * dim * TRAINING_COPIES))
    staging = target.with_name(f"{target.name}.new") / target.name
    return _BuildJob(shards, counts, chosen, trained_on, room, staging)


def _trains_on(recipe: Recipe, rows: int, dim: int) -> int:
    if recipe.is_exact:
        return 0
    try:
        from vitsearch.index.faiss_large import trains_on
    except ImportError as error:
        raise RecipeError(
            "an index is built from shards by FAISS, which is not installed: pip install "
            "'vitsearch[faiss]'"
        ) from error
    return trains_on(recipe, rows, dim)


def _begun(job: _BuildJob) -> list[Part]:
    """Return the parts to build after preparing the staging folder.

    The folder of an earlier run is used again where it was for the same job.
    """
    parts = _parts(job)
    facts = {
        "shards": job.shards.name,
        "fingerprint": job.shards.manifest.encoder_fingerprint,
        "counts": list(job.counts.items()),
        "recipe": job.recipe.to_dict(),
        "trained_on": job.trained_on,
        "parts": [part.shards for part in parts],
    }
    text, staging = json.dumps(facts), job.staging
    if not (staging / BEGUN).exists() or (staging / BEGUN).read_text(encoding="ascii") != text:
        shutil.rmtree(staging, ignore_errors=True)
        (staging / PARTS).mkdir(parents=True)
        for name, size in ((VECTORS, 2 * job.dim), (IDS, 8)):
            with open(staging / name, "wb") as file:
                file.truncate(size * job.rows)
        (staging / BEGUN).write_text(text, encoding="ascii")
    return parts


def _parts(job: _BuildJob) -> list[Part]:
    """Return parts of consecutive shards, of which each fits into memory."""
    limit = -(-job.rows // MIN_PARTS)
    if not job.exact:
        from vitsearch.index.faiss_large import part_bytes

        limit = min(limit, job.room // 2 // part_bytes(job.recipe, job.rows, job.dim))
    groups: list[list[int]] = []
    held = 0
    for number, count in job.counts.items():
        if not groups or held + count > limit:
            groups.append([])
            held = 0
        groups[-1].append(number)
        held += count
    sizes = [sum(job.counts[number] for number in group) for group in groups]
    starts = [0, *accumulate(sizes)]
    name = job.shards.name
    return [
        Part(number, name, job.staging, tuple(group), start, size, job.dim, job.exact)
        for number, (group, start, size) in enumerate(zip(groups, starts, sizes, strict=False))
    ]


def _train(job: _BuildJob) -> None:
    from vitsearch.index.faiss_large import train_index

    sample = draw_sample(job.shards, job.counts, job.trained_on, seed=SEED)
    train_index(job.staging / TRAINED, job.recipe, job.rows, sample)


def _add(parts: Sequence[Part], address: str | None) -> None:
    waiting = [part for part in parts if not part.is_done()]
    ready = len(parts) - len(waiting)

    def done(_: int) -> None:
        nonlocal ready
        ready += 1
        log.info(f"{ready:,} of {len(parts):,} parts")

    if address is not None and waiting:
        try:
            from vitsearch.cluster.ray_cluster import make_parts_on_cluster
        except ImportError as error:
            raise CollectionError(
                "building on a cluster needs Ray: pip install 'vitsearch[ray]'"
            ) from error
        make_parts_on_cluster(waiting, address, done)
        return
    for part in waiting:
        done(make_part(part))


def _tuned(job: _BuildJob, recall: float) -> tuple[Recipe, Measured | None]:
    """Return the recipe with the least search effort that reaches the recall, and its recall."""
    if job.exact:
        return Recipe("exact", "exact"), None
    from vitsearch.index.faiss_files import read_faiss_index

    vectors: Halves = mapped(job.staging / VECTORS, "<f2", (job.rows, job.dim))
    index = read_faiss_index(job.staging / FAISS, search=job.recipe.search)
    manifest = Manifest(job.recipe, 0, job.rows, job.dim, "", {})
    rows = row_numbers(job.staging / PARTS / "rows.i64", job.rows)
    # just written, so nothing to check
    blocks = CheckedBlocks(job.staging / VECTORS, FileFacts(0, 0, 0, 0), np.empty(0, np.uint8))
    snapshot = IndexSnapshot(manifest, rows, vectors, index, blocks)
    words = np.empty((0, job.dim), dtype=np.float32)
    return tune(snapshot, make_sample(snapshot, words, photos=QUERIES, seed=SEED), recall)


def _finish(job: _BuildJob, target: Path, recipe: Recipe, measured: Measured | None) -> None:
    """Write the manifest of the index, and rename the folder to its final name."""
    facts: dict[str, Any] = {"shards": job.shards.name, **asdict(job.shards.manifest)}
    (job.staging / FACTS).write_text(json.dumps(facts), encoding="ascii")
    paths = {name: job.staging / name for name in FILES}
    manifest = Manifest(
        recipe=recipe,
        generation=0,
        count=job.rows,
        dim=job.dim,
        fingerprint=job.shards.manifest.encoder_fingerprint,
        files={name: facts_of(path) for name, path in paths.items() if path.exists()},
        requested=job.recipe.to_dict() if recipe != job.recipe else {},
        measured=measured,
    )
    write_manifest(job.staging, manifest)
    (job.staging / BEGUN).unlink()
    shutil.rmtree(job.staging / PARTS)
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(target, old)
    os.rename(job.staging, target)
    shutil.rmtree(old, ignore_errors=True)


class _StageTimer:
    """The seconds that each stage of a build took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        """End a stage: the time since the last one ended is that of this stage."""
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def draw_sample(shards: "ShardSet", counts: dict[int, int], size: int, *, seed: int = 0) -> Halves:
    """Return ``(m, dim)`` float16 rows drawn with a seed; ``m`` is ``size`` at most.

    They come from all shards alike or, where there are more than 512, from 512 in even steps.
    """
    numbers = [number for number, count in counts.items() if count]
    if len(numbers) > SAMPLED_SHARDS:
        steps = range(SAMPLED_SHARDS)
        numbers = [numbers[step * len(numbers) // SAMPLED_SHARDS] for step in steps]
    total, rng = sum(counts[number] for number in numbers), np.random.default_rng(seed)
    positions = np.sort(rng.choice(total, min(size, total), replace=False))
    sample = np.empty((len(positions), shards.manifest.dim), dtype=np.float16)
    start = drawn = 0
    for halves in shards.vectors(numbers, BLOCK):
        end = int(np.searchsorted(positions, start + len(halves)))
        sample[drawn:end] = halves[positions[drawn:end] - start]
        start, drawn = start + len(halves), end
    return sample[:drawn]

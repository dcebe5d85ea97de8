"""Vectors of somebody else into a collection: every row is matched with a photo, some are checked,
all are stored or none.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitsearch.arrays import Halves, Vectors, unit_rows
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import ImageEncoder
from vitsearch.encoders.identity import check_dim, check_samples, golden_vectors
from vitsearch.errors import CollectionError, EncoderError, PhotoError
from vitsearch.interop.matching import MISSING, OUTSIDE, Places, places_in
from vitsearch.interop.rows import Row, Source, stored_halves, usable
from vitsearch.interop.target import known_settings, open_target
from vitsearch.photos import prefetch_map, read_bytes_and_fingerprint, read_photo
from vitsearch.photos.decode import decode
from vitsearch.storage.config import (
    CollectionConfig,
    check_encoder,
    collection_folder,
    photo_root,
)
from vitsearch.storage.create import start_database
from vitsearch.storage.store import Outcome, PhotoStore
from vitsearch.types import Found, OnProgress, Photo, PhotoInfo, Progress, no_progress

# -- Whether imported vectors are those of the encoder ---------------------------------------------

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """One vector with the photo that it is said to be of."""

    row: Row
    found: Found
    vector: Halves


def check_vectors(
    encoder: ImageEncoder, candidates: Sequence[Candidate], root: Path
) -> tuple[int, set[str]]:
    """Return how many photos were compared, and the paths of those whose vector is not what the
    encoder gives (cosine below 0.99).

    Raises EncoderMismatch where they are more than a quarter, or where none of the photos could be
    compared.
    """
    cosines: dict[str, float] = {}
    for start in range(0, len(candidates), _AT_ONCE):
        for path, cosine in _cosines(encoder, candidates[start : start + _AT_ONCE], root):
            cosines[path] = min(
                cosine, cosines.get(path, cosine)
            )  # a path may have several vectors
    return len(cosines), check_samples(encoder, cosines, len(candidates))


def _cosines(
    encoder: ImageEncoder, candidates: Sequence[Candidate], root: Path
) -> list[tuple[str, float]]:
    read, prepared = [], []
    for one in candidates:
        try:
            photo = read_photo(os.path.join(root, one.found.path))
        except PhotoError:
            continue
        if one.row.fingerprint in (None, photo.fingerprint):
            read.append(one)
            prepared.append(encoder.prepare(photo.image))
    if not read:
        return []
    fresh: Vectors = unit_rows(encoder.encode_prepared(prepared))
    given = unit_rows(np.stack([one.vector for one in read]))
    return [(one.found.path, float(a @ b)) for one, a, b in zip(read, fresh, given, strict=True)]


# -- Which encoder made the vectors that are imported ----------------------------------------------


def chosen_encoder(
    source: Source,
    folder: Path,
    settings: CollectionConfig | None,
    *,
    encoder: str | ImageEncoder | None,
    device: str,
) -> ImageEncoder:
    """Return the encoder that was asked for, or else that of the source's ``vitsearch.json``, or
    else of the collection in ``folder``.

    Raises EncoderError where none is named, and EncoderMismatch unless it fits the source and the
    collection.
    """
    manifest, advice = source.manifest, "import into another --collection DIR"
    if manifest and settings:
        manifest.identity.check(settings.identity, source.name, advice, of=folder)
    chosen = encoder or (manifest or settings or _Unnamed(source.name)).encoder
    if isinstance(chosen, str):
        record = manifest or settings
        chosen = load_encoder(
            chosen, device, record.dtype if record and record.encoder == chosen else "auto"
        )
    check_dim(chosen, source.dim, source.name)
    if settings:
        check_encoder(folder, settings, chosen)
    if manifest:
        manifest.identity.check(chosen, source.name, "name the encoder that made it")
        manifest.identity.check_golden(chosen)
    return chosen


class _Unnamed:
    """Stands for the encoder that nobody named."""

    def __init__(self, source: str) -> None:
        self.source = source

    @property
    def encoder(self) -> str:
        raise EncoderError(
            f"{self.source} does not say which encoder made its vectors: name it, as in --encoder "
            "open_clip:ViT-B-32/openai"
        )


# -- Vectors of somebody else into a collection ----------------------------------------------------

NAMED = 100  # problems told one by one; all are counted
_SEED = 0
BAD_VECTOR = "its vector is zero or not finite"
_CHANGED = "has changed since its vector was made"
_DIFFERS = "the encoder gives another vector for it"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import: ``device`` of the encoder, ``paths_from`` what the paths begin with in place
    of the photo folder.

    ``check`` photos are embedded and compared; ``workers`` threads read photos (None: one a core).
    ``partial`` takes a shard set of which some shards are missing.
    """

    device: str = "auto"
    paths_from: str | None = None
    check: int = 16
    workers: int | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        if self.check < 1 or (self.workers is not None and self.workers < 1):
            raise CollectionError("at least 1 photo must be checked, by at least 1 worker")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the rows of a source, in rows.

    ``imported`` are stored, ``unchanged`` were in the collection already; ``missing`` have no photo
    below the folder, ``outside`` a path that leaves it, ``changed`` a photo that is not the one of
    the vector any more, ``unreadable`` one that cannot be read, ``damaged`` a vector of zeros or of
    numbers that are not finite. ``problems`` names the first hundred of these with the reason,
    ``checked`` counts the photos that were embedded to compare, ``total`` those now in the
    collection. ``failed`` are files of a shard set that could not be read there, and now are
    failures of the collection.
    """

    imported: int
    unchanged: int
    missing: int
    outside: int
    changed: int
    unreadable: int
    damaged: int
    checked: int
    total: int
    problems: tuple[tuple[str, str], ...]
    failed: int = 0


@dataclass(slots=True)
class ImportCounts:
    """What has become of the rows so far, and the first problems by path and reason."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def problem(self, kind: str, path: str, reason: str) -> None:
        """Count a row that is not stored."""
        self.counts[kind] += 1
        if len(self.problems) < NAMED:
            self.problems.append((path, reason))

    def report(self, checked: int, total: int) -> ImportReport:
        """Return the outcome, of which ``checked`` photos were compared and ``total`` are now in
        the collection.
        """
        kinds = (
            "imported",
            "unchanged",
            "missing",
            "outside",
            "changed",
            "unreadable",
            "damaged",
            "failed",
        )
        return ImportReport(
            **{kind: self.counts[kind] for kind in kinds},
            checked=checked,
            total=total,
            problems=tuple(self.problems),
        )


def import_vectors(
    source: Source,
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None,
    encoder: str | ImageEncoder | None,
    options: ImportOptions,
    progress: OnProgress,
) -> ImportReport:
    """Store the vectors of a source in the collection of a photo folder, which is made where there
    is none; no photo is embedded for it.

    Raises CollectionError (nothing fits, damage), CollectionLocked, EncoderError or
    EncoderMismatch, after any of which the collection is as it was.
    """
    root = photo_root(photos)
    folder = collection_folder(root, collection)
    chosen = chosen_encoder(
        source, folder, known_settings(folder, root), encoder=encoder, device=options.device
    )
    places = places_in(root, folder, options.paths_from)
    sample = _sample(source, places, options.check)
    checked, differing = check_vectors(chosen, sample, root)
    golden = golden_vectors(chosen)
    tally = ImportCounts()
    with open_target(root, folder, chosen) as store:
        with store.writing():
            start_database(store, folder, chosen.name, golden)
            _Intake(root, store, tally, differing).run(
                _matched(source, places, tally, progress), options.workers or os.cpu_count() or 1
            )
            _keep_failures(source, places, store, tally)
            if not tally.counts["imported"] + tally.counts["unchanged"]:
                raise CollectionError(
                    f"none of the {source.count:,} vectors of {source.name} could be used: "
                    f"{_first(tally)}"
                )
        total = store.count()
    return tally.report(checked, total)


def _keep_failures(source: Source, places: Places, store: PhotoStore, tally: ImportCounts) -> None:
    """Store why files of the folder could not be read, where they have the same size and are no
    photos of the collection.
    """
    for given, reason in source.failures():
        found = places.find(given.path)
        if (
            not isinstance(found, str)
            and found.size == given.size
            and store.photo_at(found.path) is None
        ):
            store.put_failure(found, "failed", reason)
            tally.counts["failed"] += 1


def _first(tally: ImportCounts) -> str:
    return ", ".join(f"{path!r} {reason}" for path, reason in tally.problems[:2])


def _sample(source: Source, places: Places, size: int) -> list[Candidate]:
    """Return ``size`` rows that have a photo, drawn evenly with a fixed seed (Vitter, 1985,
    algorithm R), having read all of the source.
    """
    tally = ImportCounts()
    drawn: list[Candidate] = []
    random = np.random.default_rng(_SEED)
    for seen, one in enumerate(_matched(source, places, tally, no_progress), start=1):
        if len(drawn) < size:
            drawn.append(one)
        elif (place := int(random.integers(seen))) < size:
            drawn[place] = one
    if not drawn:
        raise CollectionError(
            f"none of the {source.count:,} vectors of {source.name} is of a photo in the folder "
            f"({_first(tally) or 'it is empty'}): "
            "name the photo folder that they were made of, or what the paths begin with "
            "(--paths-from)"
        )
    return drawn


def _matched(
    source: Source, places: Places, tally: ImportCounts, progress: OnProgress
) -> Iterator[Candidate]:
    """Yield the rows that have a photo and a usable vector, and count the others."""
    done = 0
    for rows, vectors in source.blocks():
        good = usable(vectors)
        halves = stored_halves(np.where(good[:, None], vectors, 1.0))
        for row, half, is_good in zip(rows, halves, good.tolist(), strict=True):
            found = places.find(row.path)
            if isinstance(found, str):
                tally.problem(
                    {OUTSIDE: "outside", MISSING: "missing"}.get(found, "unreadable"),
                    row.path,
                    found,
                )
            elif not is_good:
                tally.problem("damaged", row.path, BAD_VECTOR)
            else:
                yield Candidate(row, found, half)
        done += len(rows)
        progress(Progress("importing", done, source.count))


@dataclass(frozen=True, slots=True)
class _Read:
    one: Candidate
    fingerprint: bytes
    info: PhotoInfo


class _Intake:
    """One import, inside its transaction."""

    def __init__(
        self, root: Path, store: PhotoStore, tally: ImportCounts, differing: set[str]
    ) -> None:
        self.root, self.store, self.tally, self.differing = root, store, tally, differing
        self.known = {path: (size, mtime) for path, size, mtime in store.stats()}

    def run(self, candidates: Iterator[Candidate], workers: int) -> None:
        """Read the photos ahead in threads, and store them in order."""
        for read in prefetch_map(self._read, candidates, workers=workers, buffer=4 * workers):
            self._keep(read)
        self.store.raise_generation(self.tally.counts["imported"] > 0)

    def _read(self, one: Candidate) -> _Read | tuple[str, str, str] | None:
        """Return what the file says, a problem, or None where the collection has it unchanged; runs
        in any thread.
        """
        found = one.found
        if self.known.get(found.path) == (found.size, found.mtime_ns):
            return None
        if found.path in self.differing:
            return "changed", one.row.path, _DIFFERS
        try:
            data, fingerprint = read_bytes_and_fingerprint(os.path.join(self.root, found.path))
            if one.row.fingerprint not in (None, fingerprint):
                return "changed", one.row.path, _CHANGED
            return _Read(one, fingerprint, decode(data, at_least=1)[1])
        except PhotoError as error:
            return "unreadable", one.row.path, str(error)

    def _keep(self, read: _Read | tuple[str, str, str] | None) -> None:
        """Store one photo with its label, and count it."""
        if isinstance(read, tuple):
            self.tally.problem(*read)
            return
        outcome = Outcome.UNCHANGED
        if read is not None:
            row, found = read.one.row, read.one.found
            photo = Photo(
                0,
                found.path,
                found.size,
                found.mtime_ns,
                read.fingerprint,
                read.info,
                row.label,
                row.score,
            )
            outcome = self.store.keep(photo, read.one.vector)
        self.tally.counts["imported" if outcome.is_stored else "unchanged"] += 1

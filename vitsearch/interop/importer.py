"""Import vectors that another program made: match every row with a photo, embed some photos to
check them, and store all rows or none.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitsearch.arrays import Halves, Vectors, unit_rows
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import ImageEncoder, check_dim, check_samples, golden_vectors
from vitsearch.encoders.checkpoints import named_by
from vitsearch.errors import CollectionError, EncoderError, PhotoError
from vitsearch.interop.base import (
    MISSING,
    OUTSIDE,
    PathResolver,
    Row,
    Source,
    import_target,
    known_config,
    path_resolver,
    stored_halves,
    usable,
)
from vitsearch.photos import prefetch_map, read_bytes_and_fingerprint, read_photo
from vitsearch.photos.decoder import LIMIT, PhotoDecoder, journalled_decoder
from vitsearch.storage import (
    CollectionConfig,
    check_encoder,
    collection_folder,
    photo_root,
    start_database,
)
from vitsearch.storage.rows import Outcome
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, OnProgress, Photo, PhotoInfo, Progress, no_progress

MAX_PROBLEMS = 100  # problems that a report names; all are counted
_BATCH = 16  # photos embedded at a time to check vectors
_SEED = 0
BAD_VECTOR = "its vector is zero or not finite"
_CHANGED = "has changed since its vector was made"
_DIFFERS = "the encoder gives another vector for it"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import: ``device`` of the encoder, ``paths_from`` what the paths begin with in place
    of the photo folder.

    ``check`` photos are embedded and compared; ``workers`` threads read photos (None: one a core).
    ``partial`` takes a shard set of which some shards are missing. ``root`` is the folder that the
    paths of a shard set are relative to where it is imported without photos. An encoder that only
    the source names is downloaded with ``allow_download`` alone.
    """

    device: str = "auto"
    paths_from: str | None = None
    check: int = 16
    workers: int | None = None
    partial: bool = False
    root: str | os.PathLike[str] | None = None
    allow_download: bool = False

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
    """How many rows had which outcome so far, and the first problems by path and reason."""

    by_outcome: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def __getitem__(self, outcome: str) -> int:
        return self.by_outcome[outcome]

    def add(self, outcome: str) -> None:
        """Count a row."""
        self.by_outcome[outcome] += 1

    def add_problem(self, outcome: str, path: str, reason: str) -> None:
        """Count a row that is not stored."""
        self.add(outcome)
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append((path, reason))

    def first_problems(self) -> str:
        """Return the first two problems as text, "" where there are none."""
        return ", ".join(f"{path!r} {reason}" for path, reason in self.problems[:2])

    def report(self, checked: int, total: int) -> ImportReport:
        """Return the report of an import that compared ``checked`` photos, after which the
        collection holds ``total``.
        """
        return ImportReport(
            imported=self["imported"],
            unchanged=self["unchanged"],
            missing=self["missing"],
            outside=self["outside"],
            changed=self["changed"],
            unreadable=self["unreadable"],
            damaged=self["damaged"],
            checked=checked,
            total=total,
            problems=tuple(self.problems),
            failed=self["failed"],
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of a source, the photo that it names, and its vector."""

    row: Row
    file: Found
    vector: Halves


def import_vectors(
    source: Source,
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None,
    encoder: str | ImageEncoder | None,
    options: ImportOptions,
    progress: OnProgress,
) -> ImportReport:
    """Store the vectors of a source in the collection of a photo folder, which is created where
    there is none; only the photos that are checked are embedded.

    Raises CollectionError (nothing fits, damage), CollectionLocked, EncoderError or
    EncoderMismatch, after any of which the collection is as it was.
    """
    root = photo_root(photos)
    folder = collection_folder(root, collection)
    chosen = chosen_encoder(
        source, folder, known_config(folder, root), encoder=encoder, options=options
    )
    resolver = path_resolver(root, folder, options.paths_from)
    sample = _sample(source, resolver, options.check)
    checked, differing = check_vectors(chosen, sample, root)
    golden = golden_vectors(chosen)
    counts = ImportCounts()
    with import_target(root, folder, chosen) as store:
        with store.writing():
            start_database(store, folder, chosen.name, golden)
            candidates = _matched(source, resolver, counts, progress)
            workers = options.workers or os.cpu_count() or 1
            with journalled_decoder(folder) as decoder:
                _Import(root, store, counts, differing, decoder).run(candidates, workers)
            _store_failures(source, resolver, store, counts)
            if not counts["imported"] + counts["unchanged"]:
                raise CollectionError(
                    f"none of the {source.count:,} vectors of {source.name} could be used: "
                    f"{counts.first_problems()}"
                )
        total = store.count()
    return counts.report(checked, total)


def _sample(source: Source, resolver: PathResolver, size: int) -> list[Candidate]:
    """Return ``size`` rows that have a photo, drawn evenly with a fixed seed (Vitter, 1985,
    algorithm R), having read all of the source.
    """
    counts = ImportCounts()
    drawn: list[Candidate] = []
    random = np.random.default_rng(_SEED)
    candidates = _matched(source, resolver, counts, no_progress)
    for seen, candidate in enumerate(candidates, start=1):
        if len(drawn) < size:
            drawn.append(candidate)
        elif (position := int(random.integers(seen))) < size:
            drawn[position] = candidate
    if not drawn:
        raise CollectionError(
            f"none of the {source.count:,} vectors of {source.name} is of a photo in the folder "
            f"({counts.first_problems() or 'it is empty'}): name the photo folder that they were "
            "made of, or what the paths begin with (--paths-from)"
        )
    return drawn


def _matched(
    source: Source, resolver: PathResolver, counts: ImportCounts, progress: OnProgress
) -> Iterator[Candidate]:
    """Yield the rows that have a photo and a usable vector, and count the others."""
    done = 0
    for rows, vectors in source.blocks():
        good = usable(vectors)
        halves = stored_halves(np.where(good[:, None], vectors, 1.0))
        for row, half, is_good in zip(rows, halves, good.tolist(), strict=True):
            file = resolver.resolve(row.path)
            if isinstance(file, str):
                outcome = {OUTSIDE: "outside", MISSING: "missing"}.get(file, "unreadable")
                counts.add_problem(outcome, row.path, file)
            elif not is_good:
                counts.add_problem("damaged", row.path, BAD_VECTOR)
            else:
                yield Candidate(row, file, half)
        done += len(rows)
        progress(Progress("importing", done, source.count))


def _store_failures(
    source: Source, resolver: PathResolver, store: PhotoStore, counts: ImportCounts
) -> None:
    """Store why files of the folder could not be read, where they have the same size and are not
    photos of the collection.
    """
    for failed, reason in source.failures():
        file = resolver.resolve(failed.path)
        if isinstance(file, str) or file.size != failed.size:
            continue
        if store.photo_at(file.path) is None:
            store.put_failure(file, "failed", reason)
            counts.add("failed")


@dataclass(frozen=True, slots=True)
class _ReadPhoto:
    candidate: Candidate
    fingerprint: bytes
    info: PhotoInfo


class _Import:
    """One import, inside its transaction."""

    def __init__(
        self,
        root: Path,
        store: PhotoStore,
        counts: ImportCounts,
        differing: set[str],
        decoder: PhotoDecoder,
    ) -> None:
        self.root, self.store, self.counts, self.differing = root, store, counts, differing
        self.decoder = decoder
        self.known = {path: (size, mtime) for path, size, mtime, _ in store.stats()}

    def run(self, candidates: Iterator[Candidate], workers: int) -> None:
        """Read photos in threads, and store them in order."""
        for read in prefetch_map(
            self._read,
            candidates,
            workers=workers,
            buffer=4 * workers,
            on_stop=self.decoder.close,
        ):
            self._store(read)
        self.store.raise_generation(self.counts["imported"] > 0)

    def _read(self, candidate: Candidate) -> _ReadPhoto | tuple[str, str, str] | None:
        """Return the photo, a problem, or None where the collection has the file unchanged; runs in
        any thread.
        """
        file, row = candidate.file, candidate.row
        if self.known.get(file.path) == (file.size, file.mtime_ns):
            return None
        if file.path in self.differing:
            return "changed", row.path, _DIFFERS
        try:
            data, fingerprint = read_bytes_and_fingerprint(os.path.join(self.root, file.path))
            if row.fingerprint not in (None, fingerprint):
                return "changed", row.path, _CHANGED
            _, info = self.decoder.decode(data, name=file.path, fingerprint=fingerprint, at_least=1)
            return _ReadPhoto(candidate, fingerprint, info)
        except PhotoError as error:
            return "unreadable", row.path, str(error)

    def _store(self, read: _ReadPhoto | tuple[str, str, str] | None) -> None:
        """Store one photo with its label, and count it."""
        if isinstance(read, tuple):
            self.counts.add_problem(*read)
            return
        outcome = Outcome.UNCHANGED
        if read is not None:
            row, file = read.candidate.row, read.candidate.file
            facts = (file.size, file.mtime_ns, read.fingerprint, read.info, row.label, row.score)
            outcome = self.store.keep(Photo(0, file.path, *facts), read.candidate.vector)
        self.counts.add("imported" if outcome.is_stored else "unchanged")


# -- The encoder that made the vectors -------------------------------------------------------------


def chosen_encoder(
    source: Source,
    folder: Path,
    config: CollectionConfig | None,
    *,
    encoder: str | ImageEncoder | None,
    options: ImportOptions,
) -> ImageEncoder:
    """Return the encoder that was requested, or else that of the collection in ``folder``, or else
    that of the source's ``vitsearch.json``.

    Raises EncoderError where none is named, or where only the source names it and it is not on this
    machine, and EncoderMismatch unless it fits the source and the collection.
    """
    manifest, advice = source.manifest, "import into another --collection DIR"
    if manifest and config:
        manifest.identity.check(config.identity, source.name, advice, of=folder)
    record = config or manifest
    chosen = encoder or (record.encoder if record else None)
    if chosen is None:
        raise EncoderError(
            f"{source.name} does not say which encoder made its vectors: name it, as in --encoder "
            "open_clip:ViT-B-32/openai"
        )
    if isinstance(chosen, str):
        dtype = record.dtype if record and record.encoder == chosen else "auto"
        trusted = encoder or options.allow_download
        with nullcontext() if trusted else named_by(str(folder) if config else source.name):
            chosen = load_encoder(chosen, options.device, dtype)
    check_dim(chosen, source.dim, source.name)
    if config:
        check_encoder(folder, config, chosen)
    if manifest:
        manifest.identity.check(chosen, source.name, "name the encoder that made it")
        manifest.identity.check_golden(chosen)
    return chosen


def check_vectors(
    encoder: ImageEncoder, candidates: Sequence[Candidate], root: Path
) -> tuple[int, set[str]]:
    """Return how many photos were compared, and the paths of those whose vector is not what the
    encoder gives (cosine below 0.99).

    Raises EncoderMismatch where they are more than a quarter, or where none of the photos could be
    compared.
    """
    cosines: dict[str, float] = {}
    # in child processes, since nobody else's journal may be written before the collection is locked
    with PhotoDecoder(LIMIT) as decoder:
        for start in range(0, len(candidates), _BATCH):
            batch = candidates[start : start + _BATCH]
            for path, cosine in _cosines(encoder, batch, root, decoder):
                # a path may have several vectors
                cosines[path] = min(cosine, cosines.get(path, cosine))
    return len(cosines), check_samples(encoder, cosines, len(candidates))


def _cosines(
    encoder: ImageEncoder, candidates: Sequence[Candidate], root: Path, decoder: PhotoDecoder
) -> list[tuple[str, float]]:
    """Return the cosine of each imported vector with a new one, by path, for the photos that can be
    read and are those of the vectors.
    """
    compared, prepared = [], []
    for candidate in candidates:
        try:
            photo = read_photo(os.path.join(root, candidate.file.path), decoder=decoder)
        except PhotoError:
            continue
        if candidate.row.fingerprint in (None, photo.fingerprint):
            compared.append(candidate)
            prepared.append(encoder.prepare(photo.image))
    if not compared:
        return []
    computed: Vectors = unit_rows(encoder.encode_prepared(prepared))
    imported = unit_rows(np.stack([candidate.vector for candidate in compared]))
    cosines = (computed * imported).sum(axis=1).tolist()
    return [
        (candidate.file.path, cosine) for candidate, cosine in zip(compared, cosines, strict=True)
    ]

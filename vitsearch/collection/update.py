"""Indexing a folder, from the walk to the renamed index.

walk -> only new or changed (plan) -> read, decode, encode, store batch by batch (pipeline)
     -> remove the missing -> bring the index up to date (maintain)
"""

import logging
import os
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Unpack

from vitsearch.collection.absence import Reach, count_left_out, describe, left_out_now
from vitsearch.collection.diff import (
    FolderDiff,
    FolderScan,
    guard_against_emptying,
    guard_against_loss,
)
from vitsearch.collection.maintain import mend
from vitsearch.collection.passes import TextRun, VideoPipeline, check_text_reader, reads_texts
from vitsearch.collection.pipeline import Pipeline
from vitsearch.collection.run_facts import (
    MIN_PHOTOS,
    Sample,
    StageTimer,
    choose_number_format,
    record_walk_settings,
    trace_file,
)
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import EncoderIdentity, ImageEncoder, golden_from_bytes, golden_vectors
from vitsearch.encoders.checkpoints import named_by
from vitsearch.encoders.device_decoder import check_device_decoding
from vitsearch.errors import CollectionError, CollectionNotFound
from vitsearch.index.backends import check_recipe
from vitsearch.index.recipe import Recipe, load_recipe
from vitsearch.options import IndexKeywords, IndexOptions, check_names
from vitsearch.paths import raw_path
from vitsearch.photos import WalkOptions
from vitsearch.photos.decoder import journalled_decoder
from vitsearch.storage import (
    DTYPE_REASON,
    CollectionConfig,
    Decoding,
    check_encoder,
    choose_decoding,
    collection_folder,
    create_collection,
    photo_root,
    read_collection_config,
    record_alike,
    record_decoding,
    remove_leftovers,
    root_text,
    start_database,
    write_collection_config,
)
from vitsearch.storage.filesystem import disk_errors, writer_lock
from vitsearch.storage.indexes import refresh_index
from vitsearch.storage.metadata import PlaceNames
from vitsearch.storage.missing import mark_walked
from vitsearch.storage.store import PhotoStore
from vitsearch.types import IndexReport, OnProgress, Progress, no_progress

log = logging.getLogger("vitsearch")
DEFAULT_ENCODER = "mini"
DEFAULT_RECIPE = AUTO = "auto"


def index_folder(
    photos: str | os.PathLike[str],
    *,
    collection: str | os.PathLike[str] | None = None,
    progress: OnProgress = no_progress,
    **options: Unpack[IndexKeywords],
) -> IndexReport:
    """Bring the collection of a photo folder up to date, making it where there is none, and return
    what was done.

    Only new and changed files are embedded; moved ones keep their vector. Photos whose files are
    gone leave the results and are put aside for ``keep_missing`` days: they come back without being
    embedded when their files do. Where a folder could not be read, is empty now, or is on another
    disk than before, its photos stay, unless ``accept_missing``. ``encoder`` is a name or an object
    (None: the collection's, for a new one ``mini``), ``recipe`` a name, a TOML file or a `Recipe`
    (None: the collection's, ``auto``). ``device``, ``dtype`` and ``runtime`` are those of
    `load_encoder` (dtype None: the collection's, for a new one the encoder's own); on a CPU,
    runtime auto makes the model's export where there is none, and dtype "auto" gives a new
    collection of at least 1,000 photos int8 where, on 64 of them, the least cosine to float32 is
    0.99 and 95 % of the ten nearest are the same; that is recorded and not measured again.
    With ``ocr`` the text in photos is read too, once they can be searched (None: as in the run
    before; needs the extra ``[ocr]``).
    ``batch_size`` photos are encoded and stored at a time, ``workers`` threads decode (None: one a
    core), ``retry`` tries failed files again (those that could not be opened are tried in every
    run), ``reread`` is a glob of paths that are read again though size and time are the same
    (``"*"``: all), ``max_pixels`` is the largest width times height that is decoded, ``progress``
    is called as the run goes on. JPEGs much larger than the encoder's input are decoded at a
    reduced size, which moves a vector by a cosine of 0.005 at most, unless ``exact_decode`` (None:
    as the collection's other photos); with ``decode`` "device" they are decoded whole and resized
    where the model runs, on an NVIDIA GPU by nvJPEG (cosine 0.995 or more); ``profile`` is a JSON
    file for a trace of the run (`chrome://tracing`). A photo that takes minutes to decode, or that
    crashed its decoder and with it the run before, is decoded in a child process and fails alone,
    and so is any that is not JPEG, PNG or WebP; with ``decode_timeout``, in seconds, all are, and
    that is the limit. A run that is stopped loses the batches that are being encoded or wait for
    it, and the next goes on.
    Raises CollectionError, CollectionLocked, EncoderError, EncoderMismatch, RecipeError; a photo
    that cannot be read is recorded, not raised.
    """
    check_names(IndexOptions, options, "index_folder")
    chosen = IndexOptions(**options)
    root = photo_root(photos)
    folder = collection_folder(root, collection)
    with closing(_Run(root, folder, chosen, progress)) as run:
        return run.run()


class _Run:
    """One run of indexing: the collection's folder, its store, and the counts so far."""

    def __init__(
        self, root: Path, folder: Path, options: IndexOptions, progress: OnProgress
    ) -> None:
        self.root, self.folder, self.options, self.progress = root, folder, options, progress
        recipe, self.profile = options.recipe, trace_file(options.profile)
        self.new_recipe = (
            load_recipe(os.fspath(recipe)) if isinstance(recipe, str | os.PathLike) else recipe
        )
        self.workers = options.workers or os.cpu_count() or 1
        self.counts = dict.fromkeys(
            ("indexed", "unchanged", "moved", "restored", "removed", "skipped", "failed"), 0
        )
        self.load_seconds = 0.0
        self.clock = StageTimer(traces=self.profile is not None)
        self._encoder: ImageEncoder | None = None
        self._is_new = False  # the golden vectors are of this run

    def close(self) -> None:
        """Give back what the encoder holds, however the run ended."""
        if self._encoder is not None:
            self._encoder.free_image_tower()

    def run(self) -> IndexReport:
        """Do everything, in order."""
        started, began = time.perf_counter(), time.time_ns()
        if self.options.ocr:
            check_text_reader()
        self.progress(Progress("looking", 0, None))
        scan = FolderScan(
            self.root,
            WalkOptions(
                tuple(self.options.exclude),
                self.options.include_hidden,
                self.options.follow_symlinks,
                frozenset({self.folder}),
                videos=True,
            ),
        )
        is_first = self._known_settings() is None
        if is_first:
            scan.ensure_not_empty()
            # before the first trace on disk, so that a wrong name leaves none
            encoder = self._loaded_encoder(None)
            check_recipe(self.new_recipe or load_recipe(DEFAULT_RECIPE), encoder.dim)
        with (
            writer_lock(self.folder),
            disk_errors(self.folder),
            closing(PhotoStore(self.folder / "photos.db")) as store,
        ):
            remove_leftovers(self.folder)
            mend(store)
            self.reads_texts = reads_texts(store, self.options.ocr)
            settings = self._same_encoder(self._known_settings() or self._created(store, scan))
            if store.get_meta("golden") is None:  # new, or photos.db was lost: the index beside
                self._start(store, settings)  # it counts the changes of another file
            with closing(self._planned(store, scan)) as plan:
                settings = self._carried_out(store, plan, settings)
                self._remember(store, plan)
            with self.clock.stage("build"):
                self._update_index(store, settings)
            texts = self._read_texts(store)
            total, (put_aside, _) = store.count_files(), store.aside.count()
            store.checkpoint()
            mark_walked(self.root, self.folder, began, is_first=is_first)
        seconds = time.perf_counter() - started - self.load_seconds
        if not total:
            broken = self.counts["failed"] + self.counts["skipped"]
            raise CollectionError(
                f"none of the {broken} files in {self.root} could be read: `vitsearch failures "
                f"{self.root}` lists why"
            )
        callers = self._encoder.parallel_calls if self._encoder else 1
        stages = self.clock.report(
            wall=seconds, workers=self.workers, callers=callers, trace=self.profile
        )
        left_out = count_left_out(plan.left_out)
        return IndexReport(
            **self.counts,
            seconds=seconds,
            load_seconds=self.load_seconds,
            total=total,
            stages=stages,
            put_aside=put_aside,
            out_of_reach=len(plan.staying),
            left_out=left_out["left_out"],
            extensions=left_out["extensions"],
            texts_read=texts.read,
            texts_failed=texts.failed,
        )

    def _carried_out(
        self, store: PhotoStore, plan: FolderDiff, settings: CollectionConfig
    ) -> CollectionConfig:
        """Do what is planned, and return the settings with what this run was asked for."""
        if plan.loses_all and not plan.seen and self.root.resolve() == self.folder.resolve():
            log.info(
                f"the photos of {self.folder} are not here: only its index is brought up to date"
            )
            return self._updated(settings)
        try:
            guard_against_emptying(
                plan, self.root, self.folder, last_root=settings.root, root=root_text(self.root)
            )
        except CollectionError:
            self._update_index(store, settings)  # its vectors are here, whatever its photos
            raise
        # before the work of embedding, but not where there is nothing to build
        if self.new_recipe or plan.todo or plan.videos or plan.missing:
            check_recipe(self.new_recipe or self._recipe(settings), settings.dim)
        settings = self._updated(settings)
        record_walk_settings(store, self.options)
        self._restore(store, plan)
        self._embed(store, plan, settings)
        PlaceNames(store).complete()
        self._clear(store, plan)
        return settings

    # -- before anything is written ----------------------------------------------------------------

    def _known_settings(self) -> CollectionConfig | None:
        try:
            return read_collection_config(self.folder, self.root)
        except CollectionNotFound:
            return None

    def _same_encoder(self, settings: CollectionConfig) -> CollectionConfig:
        """Return the settings for an encoder, perhaps a moved folder; raises EncoderMismatch."""
        requested = self.options.encoder
        if requested is None or requested == settings.encoder:
            return settings
        if isinstance(requested, str) and not (
            requested.startswith("local-dir:") and settings.encoder.startswith("local-dir:")
        ):
            settings.identity.check_name(requested, self.folder)
        return replace(settings, encoder=self._loaded_encoder(settings).name)

    def _loaded_encoder(self, settings: CollectionConfig | None) -> ImageEncoder:
        """Return the encoder, loaded at first use and held against the settings."""
        if self._encoder is None:
            started = time.perf_counter()
            self.progress(Progress("loading", 0, None))
            how = self.options
            encoder = how.encoder or (settings.encoder if settings else DEFAULT_ENCODER)
            dtype = how.dtype or AUTO
            if settings and dtype == AUTO:
                dtype = settings.dtype
            if isinstance(encoder, str):
                # exported on a CPU, so that each search later starts without torch
                many = partial(load_encoder, runtime=how.runtime, export=True, throughput=True)
                with nullcontext() if how.encoder else named_by(str(self.folder)):
                    encoder = many(encoder, how.device, dtype)
            self._encoder = encoder
            self.load_seconds += time.perf_counter() - started
        if self.options.decode == "device":
            check_device_decoding(self._encoder)
        if settings:
            check_encoder(self.folder, settings, self._encoder)
        return self._encoder

    # -- settings and plan -------------------------------------------------------------------------

    def _created(self, store: PhotoStore, scan: FolderScan) -> CollectionConfig:
        """Write the first ``collection.json`` and the golden vectors."""
        if store.count():
            raise CollectionError(
                f"{self.folder} holds photos but no collection.json: restore that file, or delete "
                "the folder and index again"
            )
        encoder = self._loaded_encoder(None)
        if self.options.dtype == AUTO and not isinstance(self.options.encoder, ImageEncoder):
            started = time.perf_counter()
            files = scan.first_photos(MIN_PHOTOS)
            sample = Sample(self.root, self.folder, files, self._decoding(store), self.workers)
            encoder, reason = choose_number_format(encoder, self.options, sample)
            log.info(reason)
            with store.writing():
                store.set_meta(DTYPE_REASON, reason)
            self._encoder = encoder
            self.load_seconds += time.perf_counter() - started
        recipe = self.new_recipe or load_recipe(DEFAULT_RECIPE)
        return create_collection(self.folder, self.root, encoder, recipe)

    def _start(self, store: PhotoStore, settings: CollectionConfig) -> None:
        """Give a new database golden vectors and a threshold of look-alikes, and no old index."""
        encoder = self._loaded_encoder(settings)
        started = time.perf_counter()
        golden = golden_vectors(encoder)
        self.load_seconds += time.perf_counter() - started
        with store.writing():
            start_database(store, self.folder, settings.encoder, golden)
        self._is_new = True

    def _updated(self, settings: CollectionConfig) -> CollectionConfig:
        """Return the settings with what this run was asked for, stored where that is new."""
        recipe = self.new_recipe.to_dict() if self.new_recipe else settings.recipe
        updated = replace(settings, recipe=recipe, root=root_text(self.root))
        if updated != self._known_settings():
            write_collection_config(self.folder, updated)
        return updated

    def _recipe(self, settings: CollectionConfig) -> Recipe:
        return Recipe.from_dict(settings.recipe, source=str(self.folder / "collection.json"))

    def _decoding(self, store: PhotoStore) -> Decoding:
        how = self.options
        exact = how.exact_decode if how.decode == "cpu" else True
        decoding = choose_decoding(store, exact, how.max_pixels, again=how.reread == "*")
        return replace(decoding, on_device=how.decode == "device")

    def _planned(self, store: PhotoStore, scan: FolderScan) -> FolderDiff:
        with self.clock.stage("walk"):
            plan = scan.plan(
                store, retry=self.options.retry, reread=self.options.reread, folder=self.folder
            )
            self.reach = Reach(scan.record, store.walked.mounts(), os.fspath(self.root))
            plan.out_of_reach = {
                path: absence
                for path, absence in self.reach.absences(plan.missing).items()
                if absence.reason == "unreadable" or not self.options.accept_missing
            }
            self.mounts = self.reach.mounts_after(
                plan.out_of_reach.values(),
                {folder: store.count_below(folder) for folder in self.reach.changed},
            )
        self.counts.update(unchanged=plan.unchanged, skipped=plan.skipped, failed=plan.still_failed)
        return plan

    # -- the pipeline ------------------------------------------------------------------------------

    def _embed(self, store: PhotoStore, plan: FolderDiff, settings: CollectionConfig) -> None:
        """Read, encode and store what is new, one transaction a batch."""
        decoding = self._decoding(store)
        pipeline = Pipeline(
            self.root, store, plan, counts=self.counts, decoding=decoding, clock=self.clock
        )
        pipeline.store_refused()
        total = len(plan.todo) + len(plan.videos)
        if not total:
            return
        limit = self.options.decode_timeout
        with closing(pipeline), journalled_decoder(self.folder, limit) as pipeline.decoder:
            pipeline.start_children(self.workers, limit)
            encoder = self._loaded_encoder(settings)
            self._check_golden(store, settings, encoder)
            every, size = self.options.video_every, self.options.batch_size
            encoder.autotune(size, photos=total)
            if decoding.on_device:
                pipeline.decode_on_device(encoder, seconds=limit)
            if note := record_decoding(store, decoding):
                log.info(note)
            self.progress(Progress("embedding", 0, total))
            photos = pipeline.run(encoder, batch_size=size, workers=self.workers)
            videos = VideoPipeline(pipeline, encoder, every=every, size=size)
            for done in chain(photos, videos.run()):
                self.progress(Progress("embedding", done, total, self.counts["failed"]))
        if decoding.again and not plan.out_of_reach:
            record_alike(store)
        encoder.free_image_tower()  # building an index takes memory of its own

    def _check_golden(
        self, store: PhotoStore, settings: CollectionConfig, encoder: ImageEncoder
    ) -> None:
        started = time.perf_counter()
        stored = store.get_meta("golden")
        if isinstance(stored, bytes) and not self._is_new:
            golden = golden_from_bytes(stored, settings.dim)
            EncoderIdentity.from_record(settings, golden).check_golden(encoder)
        self.load_seconds += time.perf_counter() - started

    # -- after the photos --------------------------------------------------------------------------

    def _restore(self, store: PhotoStore, plan: FolderDiff) -> None:
        """Bring back the photos that were put aside and whose files are as they were."""
        if plan.returning:
            with store.writing():
                self.counts["restored"] = store.aside.restore(plan.returning)
                store.raise_generation(True)

    def _clear(self, store: PhotoStore, plan: FolderDiff) -> None:
        """Put aside the photos whose files are gone, and forget the failures of files that are."""
        gone = sorted(plan.gone)
        stale = plan.stale_failures
        stale = [path for path in stale if path not in self.reach.absences(stale)]
        how = self.options
        guard_against_loss(
            len(gone),
            store.count_files(),
            self.root,
            days=how.keep_missing,
            accepted=how.accept_missing,
        )
        for entry, count in left_out_now(gone, plan.left_out).items():
            log.warning(
                f"{entry.path} is left out by default ({entry.reason}): {count:,} of its photos "
                "leave the results; --include-hidden takes them"
            )
        with store.writing():
            self.counts["removed"] = store.aside.put(gone)
            store.forget_failures(stale)
            store.raise_generation(self.counts["removed"] > 0)
            store.aside.purge(days=self.options.keep_missing)
        for line in describe(plan.staying.values()):
            log.warning(line)

    def _remember(self, store: PhotoStore, plan: FolderDiff) -> None:
        """Store what the walk left out and which devices it was on, where that is new."""
        entries = sorted(plan.left_out, key=lambda entry: (raw_path(entry.path), entry.reason))
        if entries != store.walked.left_out() or self.mounts != store.walked.mounts():
            with store.writing():
                store.walked.put_left_out(entries)
                store.walked.put_mounts(self.mounts)

    def _read_texts(self, store: PhotoStore) -> TextRun:
        """Read the text of the photos that have none yet, where that is wanted."""
        chosen = self.options
        run = TextRun(
            store, self.root, self.folder, max_pixels=chosen.max_pixels, workers=self.workers
        )
        if self.reads_texts:
            run.run(self.progress, seconds=chosen.decode_timeout, retry=chosen.retry)
        return run

    def _update_index(self, store: PhotoStore, settings: CollectionConfig) -> None:
        """Bring the index up to date with the stored vectors and the settings' recipe."""
        refresh_index(self.folder, settings, store, lambda: self._loaded_encoder(settings))

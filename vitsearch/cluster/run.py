"""A run of embedding: list the photos, decode and encode them with Ray Data, and write shards.

piece of work -> decode task (any machine) -> table of pictures -> encoder actor -> table of vectors
    -> driver: assembles the rows of each shard, and writes it when complete

`EmbedJob` is such a run; `run` does one through a Ray Client (an address ray://HOST:PORT).
"""

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow
import pyarrow.compute
import ray as _ray
import ray.data as _data
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources

from vitsearch._version import __version__
from vitsearch.cluster.ray_cluster import check_nodes, cluster, errors_of_workers, lacking
from vitsearch.cluster.tasks import (
    BATCH_BYTES,
    EmbedOptions,
    Encode,
    EncoderFacts,
    Job,
    Model,
    decode_pieces,
    first_photo_problem,
    node_problem,
    write_listing,
)
from vitsearch.errors import CollectionError
from vitsearch.photos.sources import Source, open_source
from vitsearch.photos.sources.web import TEMPORARY
from vitsearch.shards import Manifest, open_shards, storage_of
from vitsearch.shards.files import ShardSet, ShardWriter, keep_vectors, shard_name
from vitsearch.shards.manifest import MANIFEST
from vitsearch.types import EmbedReport, OnProgress, Progress

log = logging.getLogger("vitsearch")
Item = TypeVar("Item")
Come = tuple[Item | None, BaseException | None]  # the end is a pair of None

ray: Any = _ray  # its types are stricter than what it takes
data: Any = _data

PIECE = 64  # photos of one decode task
GPU_BATCH = 256  # photos of one call of an actor on a GPU; on CPUs they come as decoded
MAX_PIECES = 20_000  # Ray holds an entry for each
ACTORS_TIMEOUT = 1200  # seconds until all actors must have started
SILENCE = 120.0  # seconds without a photo that are worth a remark
SILENCE_TIMEOUT = 1800.0  # seconds without one after which a run ends with an error
HOPELESS_SECONDS = 10.0  # between looks at the machines of a silent cluster
POLL_SECONDS = 2.0  # between looks at the shards of a run through a Ray Client


@dataclass(frozen=True, slots=True)
class _Share:
    """How a cluster is shared: the number of actors, and the resources of each actor and task.

    ``batch`` is the number of photos of one call of an actor, None for those of one table.
    """

    actors: int
    actor: dict[str, float]
    task: dict[str, float]
    batch: int | None


class EmbedJob:
    """One run of `embed`."""

    def __init__(
        self, source: Any, output: Any, options: EmbedOptions, progress: OnProgress
    ) -> None:
        self.options, self.progress = options, progress
        self.storage = storage_of(output)
        self.source: Source = open_source(source, options.source_format, options.urls)
        self.model = Model(options.encoder, options.device, options.dtype, options.runtime)
        self.list_seconds = 0.0

    def run(self) -> EmbedReport:
        """Do all of the work, in order, and return the report."""
        started = time.time()
        known = self._known()
        self.unfetched = self._unfetched(known) if known else frozenset()
        if known and not known.missing() and not self.unfetched:
            ShardWriter.resume(known).finish()
            return self._report(known.manifest, started=started, began=started)
        self.progress(Progress("loading", 0, None))
        with cluster(self.options.address, self.options.memory), errors_of_workers():
            facts = self._facts()
            shards = self._resumed(known, facts) if known else self._listed(facts)
            return self._embedded(shards, facts, started)

    # -- before the work ---------------------------------------------------------------------------

    def _known(self) -> ShardSet | None:
        """Return the shard set of an earlier run, None without one.

        Raises CollectionError for the shard set of another source.
        """
        if not self.storage.exists(MANIFEST):
            return None
        shards = ShardSet(self.storage)
        if shards.manifest.source != self.source.name:
            raise CollectionError(
                f"{shards.name} holds the photos of {shards.manifest.source}, not of "
                f"{self.source.name}: name another output"
            )
        return shards

    def _unfetched(self, known: ShardSet) -> frozenset[int]:
        """Return the shards with photos that could not be fetched for a reason that may pass."""
        if self.options.urls == "none":
            return frozenset()
        return frozenset(
            number
            for number in known.finished()
            if any(photo.reason.startswith(TEMPORARY) for photo in known.failures([number]))
        )

    def _facts(self) -> EncoderFacts:
        """Return the identity of the encoder on a machine like the actors'.

        On a GPU its number format differs from that on a CPU.
        """
        share = self._share()
        facts: EncoderFacts = ray.get(ray.remote(**share.actor)(_facts_of).remote(self.model))
        return facts

    def _resumed(self, known: ShardSet, facts: EncoderFacts) -> ShardWriter:
        known.manifest.identity.check(facts.identity, known.name, "name another output")
        if known.manifest.decoding != self._decoding:
            raise CollectionError(
                f"{known.name} was begun with {known.manifest.decoding} decoding: use it again, or "
                "name another output"
            )
        return ShardWriter.resume(known)

    def _listed(self, facts: EncoderFacts) -> ShardWriter:
        """List the photos and write the manifest, after which a stopped run can be continued."""
        started, size, rows = time.time(), self.options.shard_size, 0
        for rows in write_listing(self.storage, iter(self.source.entries()), size):
            self.progress(Progress("looking", rows, None))
        if not rows:
            raise CollectionError(
                f"no photos found in {self.source.name}: check the name, or say what it holds "
                "with --source-format"
            )
        self.list_seconds = time.time() - started
        manifest = Manifest(
            encoder=facts.identity.name,
            encoder_fingerprint=facts.identity.fingerprint,
            dtype=facts.identity.dtype,
            dim=facts.identity.dim,
            golden=facts.identity.golden.tolist(),
            source=self.source.name,
            decoding=self._decoding,
            colours="srgb",
            shard_size=size,
            rows=rows,
            shards=-(-rows // size),
        )
        return ShardWriter.create(self.storage, manifest)

    @property
    def _decoding(self) -> str:
        return "exact" if self.options.exact_decode else "scaled"

    # -- the work ----------------------------------------------------------------------------------

    def _embedded(self, writer: ShardWriter, facts: EncoderFacts, started: float) -> EmbedReport:
        manifest = writer.manifest
        todo = sorted({*ShardSet(self.storage).missing(), *self.unfetched})
        rows = sum(
            min(manifest.shard_size, manifest.rows - shard * manifest.shard_size) for shard in todo
        )
        assembler = ShardAssembler(manifest.shard_size, manifest.rows)
        done, failed, began = 0, 0, math.inf
        job = self._job(manifest, facts, todo, rows)
        for table in self._encoded(job):
            began = min(began, *table.column("begun").to_pylist())
            done += table.num_rows
            failed += table.num_rows - table.column("error").null_count
            for shard, complete in assembler.add(table):
                if shard in self.unfetched:
                    complete = keep_vectors(complete, self.storage.read(shard_name(shard)))
                writer.write_table(shard, complete)
            self.progress(Progress("embedding", done, rows, failed))
        assembler.check_empty()
        writer.finish()
        actors = min(self._share().actors, job.pieces)
        counts = {"embedded": done, "failed": failed, "written": len(todo), "actors": actors}
        return self._report(writer.manifest, started=started, began=began, **counts)

    def _job(self, manifest: Manifest, facts: EncoderFacts, todo: list[int], rows: int) -> Job:
        # a set of one shard has no pieces beyond its rows
        size = min(manifest.shard_size, manifest.rows)
        piece = min(max(PIECE, -(-rows // MAX_PIECES)), size)
        return Job(
            output=self.storage.name,
            source=self.source,
            model=self.model,
            facts=facts,
            shard_size=size,
            piece=piece,
            todo=tuple(todo),
            max_pixels=self.options.max_pixels,
            exact=self.options.exact_decode,
            colours="raw" if manifest.colours == "raw" else "profile",  # as it was begun
        )

    def _encoded(self, job: Job) -> Iterator[pyarrow.Table]:
        """Yield tables of encoded rows, in any order."""
        share = self._share()
        check_nodes(node_problem, job, __version__, first_photo_problem(job) is None)
        _settle_context(self.options.memory)
        # not `range`, whose tasks want a whole core of one machine each: where every core has an
        # actor, they would wait for ever
        numbers = [{"id": piece} for piece in range(job.pieces)]
        pieces = data.from_items(numbers, override_num_blocks=job.pieces)
        decoded = pieces.map_batches(
            decode_pieces, batch_size=1, batch_format="numpy", fn_kwargs={"job": job}, **share.task
        )
        encoded = decoded.map_batches(
            Encode,
            batch_size=share.batch,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(size=min(share.actors, job.pieces)),
            fn_constructor_kwargs={"job": job},
            **share.actor,
        )
        tables = encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for table in watched(tables, SILENCE_TIMEOUT, lambda: lacking(share.actor)):
            if table.num_rows:
                yield table

    def _share(self) -> _Share:
        """Return how many actors there are and what resources each takes.

        On GPUs decode tasks feed the actors. On CPUs an actor and a task take the same resources,
        so that Ray Data runs both in the actor: copying decoded photos between processes costs more
        there than it gains (80 % of one machine's rate instead of 94). Raises CollectionError where
        the cluster has too few GPUs.
        """
        resources, per_actor = ray.cluster_resources(), self.options.gpus_per_actor
        cores, gpu_count = max(1, int(resources.get("CPU", 1))), resources.get("GPU", 0)
        actors = self.options.actors or (int(gpu_count / per_actor) if per_actor else cores)
        if per_actor and (not actors or actors * per_actor > gpu_count):
            raise CollectionError(
                f"the cluster has {gpu_count:g} GPUs, not {max(1, actors)} times {per_actor:g}: "
                "ask for fewer --actors, or for none"
            )
        # half of the cores stay free for the tasks that feed the actors
        part = cores / 2 / actors
        if per_actor:
            actor = {"num_cpus": min(1.0, part), "num_gpus": per_actor}
            return _Share(actors, actor, {"num_cpus": min(1.0, cores / 2)}, GPU_BATCH)
        cpus = {"num_cpus": min(0.5, part)}
        return _Share(actors, cpus, cpus, None)

    def _report(
        self,
        manifest: Manifest,
        *,
        started: float,
        began: float,
        embedded: int = 0,
        failed: int = 0,
        written: int = 0,
        actors: int = 0,
    ) -> EmbedReport:
        return EmbedReport(
            rows=manifest.rows,
            embedded=embedded,
            failed=failed,
            shards=manifest.shards,
            written=written,
            actors=actors,
            start_seconds=began - started - self.list_seconds,
            list_seconds=self.list_seconds,
            seconds=time.time() - began,
        )


def watched(
    items: Iterable[Item], timeout: float, hopeless: Callable[[], str | None] = lambda: None
) -> Iterator[Item]:
    """Yield the items as they come; raise CollectionError where the next is not there after
    ``timeout`` seconds, since Ray itself waits for ever for machines that it lacks, and say so once
    before. After `SILENCE` seconds it is raised as soon as ``hopeless`` returns a reason.
    """
    come: queue.SimpleQueue[Come[Item]] = queue.SimpleQueue()
    slot = threading.Semaphore(1)  # one ahead, or they would gather here

    def fetch() -> None:
        try:
            for item in items:
                slot.acquire()
                come.put((item, None))
            come.put((None, None))
        except BaseException as error:
            come.put((None, error))

    threading.Thread(target=fetch, daemon=True).start()
    while True:
        item, error = _next_of(come, timeout, hopeless)
        if error is not None:
            raise error
        if item is None:
            return
        slot.release()
        yield item


def _next_of(
    come: queue.SimpleQueue[Come[Item]], timeout: float, hopeless: Callable[[], str | None]
) -> Come[Item]:
    advice = "run the same command again, finished shards are kept"
    first = min(SILENCE, timeout)
    with suppress(queue.Empty):
        return come.get(timeout=first)
    log.warning("%s, and the run ends after %g s of it", _silent(first), timeout)
    end = time.monotonic() + timeout - first
    while (left := end - time.monotonic()) > 0:
        if reason := hopeless():
            raise CollectionError(f"{reason}: add machines, and {advice}")
        with suppress(queue.Empty):
            return come.get(timeout=min(left, HOPELESS_SECONDS))
    raise CollectionError(f"{_silent(timeout)}: {advice}")


def _silent(seconds: float) -> str:
    return (
        f"nothing has come from the cluster for {seconds:g} s (`ray status` shows what it waits "
        "for)"
    )


class ShardAssembler:
    """Assembles encoded rows, which come in any order, into complete shards.

    It holds only the rows of shards that are in work, since pieces of work begin in order.
    """

    def __init__(self, shard_size: int, rows: int) -> None:
        self._shard_size, self._rows = shard_size, rows
        self._parts: dict[int, list[pyarrow.Table]] = {}

    def add(self, table: pyarrow.Table) -> Iterator[tuple[int, pyarrow.Table]]:
        """Add rows, and yield the number and the table of each shard that they complete.

        Its rows are in order, without the columns ``row`` and ``begun``.
        """
        shards = np.asarray(table.column("row").to_numpy()) // self._shard_size
        for shard in np.unique(shards).tolist():
            parts = self._parts.setdefault(shard, [])
            inside = shards == shard
            parts.append(table if inside.all() else table.filter(pyarrow.array(inside)))
            if sum(part.num_rows for part in parts) >= self._size_of(shard):
                yield shard, self._complete(shard)

    def check_empty(self) -> None:
        """Raise CollectionError where rows of a shard never came."""
        if self._parts:
            raise CollectionError(
                f"rows of {len(self._parts)} shards never came (the first is "
                f"{min(self._parts)}): run it again"
            )

    def _size_of(self, shard: int) -> int:
        return min(self._shard_size, self._rows - shard * self._shard_size)

    def _complete(self, shard: int) -> pyarrow.Table:
        table = pyarrow.concat_tables(self._parts.pop(shard)).sort_by("row").combine_chunks()
        start = shard * self._shard_size
        expected = np.arange(start, start + self._size_of(shard))
        if not np.array_equal(table.column("row").to_numpy(), expected):
            raise CollectionError(
                f"the rows of shard {shard} came twice or not at all: run `vitsearch embed` again"
            )
        return table.drop_columns(["row", "begun"])


def _facts_of(model: Model) -> EncoderFacts:
    return model.facts()


def _settle_context(memory: int) -> None:
    """Limit the memory of Ray Data, let decoding wait for the actors, and silence its output."""
    context = DataContext.get_current()
    context.target_max_block_size = BATCH_BYTES
    context.target_min_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = ACTORS_TIMEOUT
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=memory
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def run(source: str, output: str, options: EmbedOptions, progress: OnProgress) -> EmbedReport:
    """Embed as `EmbedJob` does, in a task of the cluster at ``options.address``.

    Local paths are those of the cluster's machines. Progress comes in complete shards, where this
    machine can see them.
    """
    names = [name if "://" in name else os.path.abspath(name) for name in (source, output)]
    progress(Progress("loading", 0, None))
    with cluster(options.address, options.memory), errors_of_workers():
        task = ray.remote(num_cpus=0, max_retries=0)(_drive).remote(
            *names, replace(options, address=None)
        )
        while not ray.wait([task], timeout=POLL_SECONDS)[0]:
            _report_progress(names[1], progress)
        report: EmbedReport = ray.get(task)
        return report


def _drive(source: str, output: str, options: EmbedOptions) -> EmbedReport:
    return EmbedJob(source, output, options, lambda _: None).run()


def _report_progress(output: str, progress: OnProgress) -> None:
    with suppress(CollectionError):  # not listed yet, or not visible from here
        shards = open_shards(output)
        done = min(len(shards.finished()) * shards.manifest.shard_size, shards.manifest.rows)
        progress(Progress("embedding", done, shards.manifest.rows))

"""The work on the machines of a cluster: the photos of each shard are listed once, in a Parquet
file beside the shards; tasks decode and prepare photos, actors encode them.

Both use what indexing on one machine uses: `decode`, the encoder's ``prepare``, and
`OomSafeEncoder`.
"""

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray
from PIL import Image

from vitsearch._version import __version__
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import EncoderIdentity, ImageEncoder
from vitsearch.encoders.batching import NOT_FINITE, TOO_LARGE, OomSafeEncoder
from vitsearch.encoders.preprocess import Preprocess, prepare
from vitsearch.errors import CollectionError, PhotoError
from vitsearch.photos import prefetch_map
from vitsearch.photos.dates import with_date_of_name
from vitsearch.photos.decode import Colours, fingerprint_of
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.profiles import prepared
from vitsearch.photos.sources import Entry, Source, SourceFormat, Urls
from vitsearch.photos.sources.source import with_caption
from vitsearch.shards import ShardRow, photo_id, storage_of
from vitsearch.shards.files import LISTING, errors, facts_table, with_vectors
from vitsearch.shards.storage import Storage

_SCHEMA = pyarrow.schema(
    [
        ("path", pyarrow.binary()),  # the bytes of the file system, which may not be UTF-8
        ("size", pyarrow.int64()),
        ("mtime_ns", pyarrow.int64()),
        ("container", pyarrow.string()),
        ("place", pyarrow.int64()),
        ("problem", pyarrow.string()),
        ("caption", pyarrow.string()),
    ]
)
BATCH_BYTES = 8_000_000  # decoded photos that travel together
PREFETCH = 4  # photos that a task reads before they are decoded

Decoded = tuple[ShardRow, NDArray[Any] | None]


# -- Lists -----------------------------------------------------------------------------------------


def listing_name(shard: int) -> str:
    """Return the name of a shard's list."""
    return f"{LISTING}/{shard:06d}.parquet"


def write_listing(storage: Storage, entries: Iterator[Entry], shard_size: int) -> Iterator[int]:
    """Write the list of each shard in turn; yield after each the number of photos so far."""
    done = 0
    for shard, part in enumerate(iter(lambda: list(islice(entries, shard_size)), [])):
        rows = [(entry.path.encode("utf-8", "surrogateescape"), *_rest(entry)) for entry in part]
        columns = [
            pyarrow.array(values, field.type)
            for values, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)
        ]
        file = io.BytesIO()
        pyarrow.parquet.write_table(
            pyarrow.Table.from_arrays(columns, schema=_SCHEMA), file, compression="zstd"
        )
        storage.write(listing_name(shard), file.getvalue())
        done += len(part)
        yield done


def _rest(entry: Entry) -> tuple[int, int, str | None, int | None, str | None, str | None]:
    facts = entry.size, entry.mtime_ns, entry.container, entry.position
    return *facts, entry.problem, entry.caption


def read_listing(storage: Storage, shard: int, start: int, stop: int) -> list[Entry]:
    """Return the photos for rows ``start`` to ``stop`` of a shard.

    Raises CollectionError where the list is missing or damaged.
    """
    name = f"{storage.name}/{listing_name(shard)}"
    data = storage.read(listing_name(shard))
    try:
        with errors(name):
            table = pyarrow.parquet.read_table(pyarrow.BufferReader(data), schema=_SCHEMA)
            table = table.slice(start, stop - start)
    except CollectionError as error:
        raise CollectionError(
            f"{name} is damaged: what is to be embedded cannot be told; embed into another place"
        ) from error
    rows = zip(*(table.column(field.name).to_pylist() for field in _SCHEMA), strict=True)
    return [Entry(path.decode("utf-8", "surrogateescape"), *rest) for path, *rest in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """The keyword arguments of `vitsearch.cluster.embed`, checked."""

    encoder: str
    device: str
    dtype: str
    runtime: str
    actors: int | None
    gpus_per_actor: float
    shard_size: int
    address: str | None
    source_format: SourceFormat
    urls: Urls
    max_pixels: int
    exact_decode: bool
    memory: int


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What a loaded encoder says of itself; ``preprocess`` is None where only the encoder knows how
    a picture is prepared.
    """

    identity: EncoderIdentity
    at_least: int | None
    preprocess: Preprocess | None


@dataclass(frozen=True, slots=True)
class Model:
    """How an encoder is loaded on any machine."""

    name: str
    device: str
    dtype: str
    runtime: str

    def load(self) -> ImageEncoder:
        """Return the encoder; raises EncoderError."""
        return load_encoder(
            self.name, self.device, self.dtype, runtime=self.runtime, export=True, throughput=True
        )

    def facts(self) -> EncoderFacts:
        """Return what the encoder says of itself, golden vectors among it; loads it."""
        encoder = self.load()
        return EncoderFacts(
            identity=EncoderIdentity.of(encoder),
            at_least=encoder.decode_at_least,
            preprocess=encoder.preprocess,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """The job that every machine works on: its pieces, the source of photos, and how to decode.

    A piece is up to ``piece`` rows of one shard; ``todo`` are the numbers of the shards to make.
    """

    output: str
    source: Source
    model: Model
    facts: EncoderFacts
    shard_size: int
    piece: int
    todo: tuple[int, ...]
    max_pixels: int
    exact: bool
    colours: Colours

    @property
    def pieces(self) -> int:
        """The number of pieces of work."""
        return len(self.todo) * self._per_shard

    @property
    def _per_shard(self) -> int:
        return -(-self.shard_size // self.piece)

    def rows_of(self, piece: int) -> tuple[int, int, int]:
        """Return the shard of a piece, its first row in the shard, and the row after its last."""
        number, part = divmod(piece, self._per_shard)
        start = part * self.piece
        return self.todo[number], start, min(start + self.piece, self.shard_size)


def node_problem(job: Job, version: str, readable: bool) -> str | None:
    """Return why the machine that this runs on cannot share the work, None where it can.

    Its vitsearch must be ``version``, and it must see the output and, where the driver does
    (``readable``), the photos: what it cannot open would be recorded as the photo's failure.
    """
    if __version__ != version:
        return f"has vitsearch {__version__}, not {version}: install the same version there"
    try:
        entries = _first_entry(job)
    except CollectionError as error:
        return f"does not see the output ({error}): mount it there"
    problem = _reading_problem(job, entries)
    if problem is not None and readable:
        return f"does not see the photos of {job.source.name} ({problem}): mount them there"
    return None


def first_photo_problem(job: Job) -> str | None:
    """Return why the first listed photo cannot be read here, None where it can.

    Raises CollectionError where the list cannot be read.
    """
    return _reading_problem(job, _first_entry(job))


def _first_entry(job: Job) -> list[Entry]:
    return read_listing(storage_of(job.output), job.todo[0], 0, 1)


def _reading_problem(job: Job, entries: Sequence[Entry]) -> str | None:
    try:
        data = next(iter(job.source.read(entries)))
    except CollectionError as error:
        return str(error)
    return str(data) if isinstance(data, PhotoError) else None


@lru_cache(maxsize=1)
def _preparing(name: str) -> ImageEncoder:
    """Return an encoder that only prepares pictures; its weights are never read."""
    return load_encoder(name, "cpu")


def decode_pieces(batch: dict[str, NDArray[np.int64]], job: Job) -> Iterator[pyarrow.Table]:
    """Read, decode and prepare the photos of some pieces; yield tables of about `BATCH_BYTES`.

    Columns: those of a shard without the vector, ``row`` (the number in the shard set), ``picture``
    (the bytes of the prepared array, null with an error), ``form`` (its type and shape), and
    ``begun`` (when this was called, in seconds since the epoch).
    """
    begun = time.time()
    for piece in batch["id"].tolist():
        shard, start, stop = job.rows_of(piece)
        entries = read_listing(storage_of(job.output), shard, start, stop)
        first = shard * job.shard_size + start
        waiting: list[tuple[int, ShardRow, NDArray[Any] | None]] = []
        size = 0
        for number, (row, picture) in enumerate(_decoded(entries, job), first):
            waiting.append((number, row, picture))
            size += 0 if picture is None else picture.nbytes
            if size >= BATCH_BYTES:
                yield _pictures_table(waiting, begun)
                waiting, size = [], 0
        if waiting:
            yield _pictures_table(waiting, begun)


def _decoded(entries: Sequence[Entry], job: Job) -> Iterator[Decoded]:
    """Yield the row and the prepared picture of each entry in order, None with an error.

    The next entries are read meanwhile.
    """

    def load(entry_and_data: tuple[Entry, bytes | PhotoError]) -> Decoded:
        entry, data = entry_and_data
        try:
            return _loaded(entry, data, job, decoder)
        except PhotoError as error:
            reason = str(error)
        except MemoryError:
            reason = "not enough memory to decode it"
        number = photo_id(entry.path)
        return ShardRow(number, entry.path, entry.size, entry.mtime_ns, error=reason), None

    data = zip(entries, job.source.read(entries), strict=True)
    with PhotoDecoder() as decoder:
        yield from prefetch_map(load, data, workers=1, buffer=PREFETCH, on_stop=decoder.close)


def _loaded(entry: Entry, data: bytes | PhotoError, job: Job, decoder: PhotoDecoder) -> Decoded:
    if isinstance(data, PhotoError):
        raise data
    at_least = None if job.exact else job.facts.at_least
    image, info = decoder.decode(
        data,
        name=entry.path,
        max_pixels=job.max_pixels,
        at_least=at_least,
        colours=job.colours,
    )
    picture = _prepared(image, job)
    row = ShardRow(
        photo_id(entry.path),
        entry.path,
        entry.size or len(data),
        entry.mtime_ns,
        fingerprint_of(data),
        with_caption(with_date_of_name(info, entry.path), entry.caption),
    )
    return row, picture


def _prepared(image: Image.Image, job: Job) -> Any:
    if steps := job.facts.preprocess:
        return prepared(image, lambda each: prepare(each, steps), resizes=True)
    encoder = _preparing(job.model.name)
    return prepared(image, encoder.prepare, resizes=encoder.only_resizes)


def _pictures_table(
    rows: Sequence[tuple[int, ShardRow, NDArray[Any] | None]], begun: float
) -> pyarrow.Table:
    numbers = [number for number, _, _ in rows]
    pictures = [picture for _, _, picture in rows]
    data = [None if picture is None else picture.tobytes() for picture in pictures]
    forms = [None if picture is None else _form(picture) for picture in pictures]
    table = facts_table([row for _, row, _ in rows])
    table = table.append_column("row", pyarrow.array(numbers, pyarrow.int64()))
    table = table.append_column("picture", pyarrow.array(data, pyarrow.binary()))
    table = table.append_column("form", pyarrow.array(forms, pyarrow.string()))
    return table.append_column("begun", pyarrow.array([begun] * len(rows), pyarrow.float64()))


def _form(picture: NDArray[Any]) -> str:
    return f"{picture.dtype.str}:{','.join(map(str, picture.shape))}"


class Encode:
    """An actor with one copy of the model.

    It is called with tables of `decode_pieces` and returns tables of the columns of a shard,
    ``row`` and ``begun``.
    """

    def __init__(self, job: Job) -> None:
        encoder = job.model.load()
        identity, advice = job.facts.identity, "install the same versions on every machine"
        identity.check(encoder, job.output, advice)
        identity.check_golden(encoder)
        self._dim = encoder.dim
        self._batch_size = encoder.pictures_per_call or 64
        self._encoder = OomSafeEncoder(encoder)

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        table = table.combine_chunks()
        pictures = _pictures(table)
        rows: list[NDArray[np.float32] | None] = []
        for start in range(0, len(pictures), self._batch_size):
            rows += self._encoder.encode(pictures[start : start + self._batch_size])
        reasons = [
            TOO_LARGE if row is None else None if np.isfinite(row).all() else NOT_FINITE
            for row in rows
        ]
        valid = [row for row in rows if row is not None and np.isfinite(row).all()]
        vectors = np.empty((0, self._dim), dtype=np.float16)
        if valid:
            vectors = np.stack(valid).astype(np.float16)
        encoded = with_vectors(_with_errors(table, iter(reasons)), vectors)
        encoded = encoded.append_column("row", table.column("row"))
        return encoded.append_column("begun", table.column("begun"))


def _pictures(table: pyarrow.Table) -> list[NDArray[Any]]:
    """Return the prepared pictures of a table in order, as views of its memory.

    Rows with an error have none.
    """
    forms = table.column("form").to_pylist()
    pictures = (picture for chunk in table.column("picture").chunks for picture in chunk)
    return [
        _picture(picture.as_buffer(), form)
        for picture, form in zip(pictures, forms, strict=True)
        if form is not None
    ]


def _picture(data: pyarrow.Buffer, form: str) -> NDArray[Any]:
    kind, _, shape = form.partition(":")
    return np.frombuffer(data, dtype=kind).reshape([int(side) for side in shape.split(",")])


def _with_errors(table: pyarrow.Table, reasons: Iterator[str | None]) -> pyarrow.Table:
    """Return the columns of a shard, with the next of ``reasons`` for each row without an error."""
    old = table.column("error").to_pylist()
    new = pyarrow.array(
        [reason if reason is not None else next(reasons) for reason in old], pyarrow.string()
    )
    facts = table.drop_columns(["picture", "form", "row", "begun"])
    return facts.set_column(facts.schema.get_field_index("error"), "error", new)

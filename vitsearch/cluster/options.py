"""What a run of embedding is asked for, and what it says at the end."""

from dataclasses import dataclass

from vitsearch.photos.sources import SourceFormat


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """The outcome of a run of embedding, in rows; times in seconds.

    ``rows`` were listed in all, ``embedded`` of them in this run, ``written`` of ``shards`` shards,
    ``failed`` of them without a vector. ``start_seconds`` is what the cluster and the actors took
    until the first piece of work began, ``seconds`` the time from then on.
    """

    rows: int
    embedded: int
    failed: int
    shards: int
    written: int
    actors: int
    start_seconds: float
    list_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """What `embed` was asked for."""

    encoder: str
    device: str
    dtype: str
    runtime: str
    actors: int | None
    gpus_per_actor: float
    shard_size: int
    address: str | None
    source_format: SourceFormat
    max_pixels: int
    exact_decode: bool
    memory: int

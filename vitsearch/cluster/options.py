"""The options of `embed` and its report."""

from dataclasses import dataclass

from vitsearch.photos.sources import SourceFormat, Urls


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """The outcome of a run of embedding, in rows; times in seconds.

    Of ``rows`` rows listed in all, this run embedded ``embedded``, of which ``failed`` have no
    vector, and wrote ``written`` of ``shards`` shards. ``start_seconds`` passed until the cluster
    and the actors began the first piece of work, ``seconds`` from then on.
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
    """The keyword arguments of `embed`, checked."""

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

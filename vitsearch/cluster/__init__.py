"""More photos than one machine holds: embedded on a Ray cluster into shards, indexed from them, and
served from Milvus. The work of `embed` is done by `vitsearch.cluster.run`.
"""

import os

from vitsearch.cluster.build import BuildReport, build_index
from vitsearch.cluster.shard_index import ShardIndex
from vitsearch.encoders.devices import ensure_single
from vitsearch.errors import CollectionError, needing
from vitsearch.photos import MAX_PIXELS
from vitsearch.photos.sources import SourceFormat, Urls
from vitsearch.types import EmbedReport, OnProgress, no_progress

SHARD_SIZE = 10_000
_PACKAGES = {"ray", "pyarrow", "fsspec", "pandas"}
__all__ = ["BuildReport", "EmbedReport", "ShardIndex", "build_index", "embed"]


def embed(  # noqa: PLR0913  one keyword for each flag of the command line
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    encoder: str = "mini",
    device: str = "auto",
    dtype: str = "auto",
    runtime: str = "auto",
    actors: int | None = None,
    gpus_per_actor: float = 0,
    shard_size: int = SHARD_SIZE,
    address: str | None = None,
    source_format: SourceFormat = "auto",
    urls: Urls = "none",
    max_pixels: int = MAX_PIXELS,
    exact_decode: bool = False,
    memory: int = 2_000_000_000,
    progress: OnProgress = no_progress,
) -> EmbedReport:
    """Embed the photos of ``source`` on a Ray cluster into shards at ``output``; return a report.

    ``source`` is a folder, the URL of one (``s3://bucket/photos``), Parquet files with paths or
    bytes, or webdataset tars (``source_format`` says which); ``output`` a folder or URL that every
    machine reaches. ``encoder`` is a name; ``device`` (one), ``dtype`` and ``runtime`` are those of
    `load_encoder`. ``actors`` hold the model (None: one per GPU where ``gpus_per_actor`` is above
    0, else one per core), ``shard_size`` photos make one file, ``address`` is that of a cluster
    (None: one is started on this machine and stopped with the run), ``memory`` the bytes for
    decoded photos that wait. Photos are listed once; a run that was stopped continues with the
    missing shards. Photos that Parquet files name by a column ``url`` are fetched where ``urls`` is
    "public" ("private": also from addresses of private networks); those that could not be fetched
    for a reason that may pass are fetched again by the next run. A file that cannot be read becomes
    a row with its error. Ray replaces lost workers and machines and repeats their work. Raises
    CollectionError, EncoderError, or EncoderMismatch for an output of another encoder.
    """
    smallest = min(shard_size, max_pixels, memory, 1 if actors is None else actors)
    if smallest < 1 or gpus_per_actor < 0:
        raise CollectionError(
            "shard size, actors, memory and the pixel cap must be at least 1, and the GPUs of an "
            "actor at least 0"
        )
    ensure_single(device)  # each actor has one, and there are many actors
    with needing(_PACKAGES, "embedding on many machines needs", "ray"):
        from vitsearch.cluster.run import EmbedJob
        from vitsearch.cluster.tasks import EmbedOptions
    options = EmbedOptions(
        encoder=encoder,
        device=device,
        dtype=dtype,
        runtime=runtime,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        shard_size=shard_size,
        address=address,
        source_format=source_format,
        urls=urls,
        max_pixels=max_pixels,
        exact_decode=exact_decode,
        memory=memory,
    )
    if (address or "").startswith("ray://"):
        from vitsearch.cluster.run import run

        return run(os.fspath(source), os.fspath(output), options, progress)
    return EmbedJob(source, output, options, progress).run()

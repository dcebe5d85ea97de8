"""More photos than one machine holds: embedded on a Ray cluster into shards, indexed from them, and served from Milvus."""

from vitsearch.distributed.build import BuildReport, build_index
from vitsearch.distributed.embed import embed
from vitsearch.distributed.options import EmbedReport
from vitsearch.distributed.shard_index import ShardIndex

__all__ = ["BuildReport", "EmbedReport", "ShardIndex", "build_index", "embed"]

"""More photos than one machine holds: embedded on a Ray cluster into shards, indexed from them, and
served from Milvus.
"""

from vitsearch.cluster.build import BuildReport, build_index
from vitsearch.cluster.embedding import embed
from vitsearch.cluster.options import EmbedReport
from vitsearch.cluster.shard_index import ShardIndex

__all__ = ["BuildReport", "EmbedReport", "ShardIndex", "build_index", "embed"]

"""Collections in and out: clip-retrieval's folder, a FAISS index with ids and paths, shard sets,
and one collection into another.
"""

from collections.abc import Callable
from typing import Literal

from vitsearch.interop.clip_retrieval import export_clip_retrieval, import_clip_retrieval
from vitsearch.interop.faiss_folder import export_faiss, import_faiss
from vitsearch.interop.importer import ImportOptions, ImportReport
from vitsearch.interop.merging import MergeReport, merge
from vitsearch.interop.shards import export_shards, holds_shards, import_shards

Layout = Literal["clip-retrieval", "faiss", "shards"]
EXPORTERS: dict[Layout, Callable[..., int]] = {
    "clip-retrieval": export_clip_retrieval,
    "faiss": export_faiss,
    "shards": export_shards,
}
IMPORTERS: dict[Layout, Callable[..., ImportReport]] = {
    "clip-retrieval": import_clip_retrieval,
    "faiss": import_faiss,
    "shards": import_shards,
}

__all__ = [
    "EXPORTERS",
    "IMPORTERS",
    "ImportOptions",
    "ImportReport",
    "Layout",
    "MergeReport",
    "export_clip_retrieval",
    "export_faiss",
    "export_shards",
    "holds_shards",
    "import_clip_retrieval",
    "import_faiss",
    "import_shards",
    "merge",
]

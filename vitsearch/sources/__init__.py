"""Where photos come from, by name: a folder, an object store, Parquet files, tars; for embedding on many machines."""

from vitsearch.sources.opening import open_source
from vitsearch.sources.source import FORMATS, Entry, Source, SourceFormat

__all__ = ["FORMATS", "Entry", "Source", "SourceFormat", "open_source"]

"""The truth on disk: the folder and config of a collection, its photos and vectors in SQLite."""

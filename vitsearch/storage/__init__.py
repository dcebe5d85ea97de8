"""The truth on disk: a collection's folder and config, its photos and vectors in SQLite, and how they were decoded."""

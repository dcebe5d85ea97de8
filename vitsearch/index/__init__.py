"""Indexes over unit vectors: they propose candidates, the stored vectors decide."""

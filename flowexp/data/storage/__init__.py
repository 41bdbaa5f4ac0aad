"""Datasets on disk: downloads, archives, and memory-mapped caches."""

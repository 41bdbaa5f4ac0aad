"""How a record becomes a file and is read back: atomic writes, JSON, arrays, fingerprints of contents, and caches."""

"""Hydra multiruns: what each job is given, what is said while they run, and the one table at the end."""

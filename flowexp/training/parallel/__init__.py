"""Rows and work divided among the processes of a distributed run."""

"""Measurements against the peers, alternated in one process on one machine."""

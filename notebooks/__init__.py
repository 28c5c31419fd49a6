"""Notebooks for readers, and what runs them: ``python -m notebooks``."""

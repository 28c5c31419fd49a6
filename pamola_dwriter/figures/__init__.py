"""Placeholder until the helper's package lands."""

"""The error tree: catchable by what to do about it, and whole after a trip between processes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from pamola_dwriter import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.PamolaWriterError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling(kind: type[errors.PamolaWriterError]) -> None:
    """A worker's error arrives with its message and attributes."""
    error = kind("what to change")
    for name in ("partition", "column", "part", "answered"):
        if hasattr(error, name):
            setattr(error, name, 7)
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(back) is kind
    assert str(back) == "what to change"
    assert back.__dict__ == error.__dict__


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_drawn_in_the_tree(kind: type[errors.PamolaWriterError]) -> None:
    """The docstring of the module names every class."""
    assert kind.__name__ in (errors.__doc__ or "")


def test_a_write_failure_is_a_data_write_error() -> None:
    """What a write raises is caught as DataWriteError, keys and storage included."""
    for kind in (errors.WrongKeyError, errors.TargetUnavailableError, errors.InvalidPathError):
        assert issubclass(kind, errors.DataWriteError)
        assert issubclass(kind, errors.DataReadError)
    assert issubclass(errors.TargetExistsError, FileExistsError)
    assert issubclass(errors.InvalidWriteError, ValueError)

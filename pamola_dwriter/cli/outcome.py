"""What the program says at its end: results on stdout, errors on stderr, one exit code."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    EncryptionKeyError,
    IntegrityError,
    InvalidPathError,
    InvalidWriteError,
    PamolaWriterError,
    RotationIncompleteError,
    TargetExistsError,
    TargetNotFoundError,
    WriteCancelledError,
)

FAILED = 1
INTERRUPTED = 130

_CODES: tuple[tuple[type[PamolaWriterError], int], ...] = (
    (InvalidWriteError, 2),
    (InvalidPathError, 2),
    (TargetNotFoundError, 2),
    (IntegrityError, 3),
    (EncryptionKeyError, 4),
    (TargetExistsError, 5),
    (ConcurrentWriteError, 5),
    (CommitOutcomeUnknownError, 6),
    (RotationIncompleteError, 7),
    (WriteCancelledError, INTERRUPTED),
)

EXIT_CODES = """\b
Exit codes:
  0    done
  1    the write or read failed; nothing was committed
  2    the arguments are wrong, or nothing stands at the path
  3    stored bytes are not what was written
  4    a key is missing, wrong, unavailable, or would travel in the clear
  5    the target exists, or another writer committed first
  6    unknown whether the write was committed: look before writing again
  7    the keys of some outputs were not rotated; those of the others were
  130  interrupted; the write was cancelled and cleaned up first
"""


class Program(click.Group):
    """A group whose commands end in one of the exit codes above and never in a traceback."""

    def main(  # type: ignore[override]  # click's is overloaded on standalone_mode
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the command named in `args`, report, and exit the process."""
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                arguments, prog_name or "pamola-dwriter", **{**extra, "standalone_mode": False}
            )
        except Exception as error:  # noqa: BLE001 - the one place where everything ends
            code = _report(error, as_json="--json" in arguments, debug="--debug" in arguments)
        sys.exit(code or 0)


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error, as documented in :data:`EXIT_CODES`."""
    if isinstance(error, click.Abort):  # click's word for Ctrl-C
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return error.exit_code
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def emit(facts: Mapping[str, Any], *, as_json: bool, quiet: bool = False) -> None:
    """Print a result: one JSON object, or lines for a person, or nothing if `quiet`."""
    if as_json:
        click.echo(json.dumps(facts))
    elif not quiet:
        width = max(map(len, facts)) + 2
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' ') + ':':<{width}}{_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)


def _report(error: Exception, *, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if as_json:
        click.echo(json.dumps({"error": _name(error), "message": _message(error)}), err=True)
    elif isinstance(error, click.ClickException):
        error.show()
    else:
        click.echo(f"{_name(error)}: {_message(error)}", err=True)
        if not debug and error.__cause__ and not isinstance(error, click.Abort):
            click.echo("Run again with --debug to see what led to it.", err=True)
    return exit_code(error)


def _name(error: Exception) -> str:
    return "Interrupted" if isinstance(error, click.Abort) else type(error).__name__


def _message(error: Exception) -> str:
    if isinstance(error, click.Abort):
        return "stopped on request; nothing of a write that had begun is left"
    if isinstance(error, click.ClickException):
        return error.format_message()
    return str(error) or "no further word"

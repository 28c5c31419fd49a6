"""Options that several commands share; none of them lets a secret onto the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pamola_dwriter.contracts import KeyProvider
from pamola_dwriter.keys.stored import parse_secret

Command = TypeVar("Command", bound=Callable[..., Any])

PROMPT = "prompt"
_REFERENCES = ("awskms:", "env:", "file:", "vault:")


def check_key_references(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> Sequence[str]:
    """Let ``env:NAME``, ``file:PATH`` and ``prompt`` through; refuse a key, without showing it."""
    if not all(value == PROMPT or value.startswith(_REFERENCES) for value in values):
        raise click.BadParameter(
            "this is neither env:NAME nor file:PATH nor prompt. A key itself is refused here, "
            "because every user of this machine can read a command line; if this was a real "
            "key, replace it, since your shell may have kept it"
        )
    return values


def parse_object(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> dict[str, Any] | None:
    """Parse a JSON object, or ``@FILE`` with one; its content never appears in a message."""
    if value is None:
        return None
    try:
        text = Path(value[1:]).read_text(encoding="utf-8") if value.startswith("@") else value
        parsed = json.loads(text)
    except OSError as error:
        raise click.BadParameter(f"{error.filename} cannot be read: {error.strerror}") from None
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise click.BadParameter("this is not a JSON object, nor @FILE with one inside")
    return parsed


def ask_keys(references: Sequence[str], *, confirm: bool = False) -> list[str | KeyProvider] | None:
    """Return what the API takes as ``encryption_key``, asking for a passphrase if need be.

    Parameters
    ----------
    references : sequence of str
        As :func:`check_key_references` lets them through.
    confirm : bool
        Ask twice: what is written under a mistyped passphrase is lost.
    """
    return [_ask(confirm) if one == PROMPT else one for one in references] or None


def _ask(confirm: bool) -> KeyProvider:
    text = click.prompt("Key", hide_input=True, confirmation_prompt=confirm, err=True)
    return parse_secret(text.encode(), "what was typed")


def access_options(command: Command) -> Command:
    """Add what every command needs to reach and open a dataset, and to report."""
    for option in reversed(_ACCESS):
        command = option(command)
    return command


def scheduler_option(command: Command) -> Command:
    """Add ``--scheduler``."""
    option = click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler to run on, such as tls://host:8786. [default: threads here]",
    )
    return option(command)


_ACCESS = (
    click.option(
        "--encryption-key",
        "key_references",
        callback=check_key_references,
        multiple=True,
        metavar="env:NAME|file:PATH|prompt",
        help="Where the key is. Repeat it for several keys, any one of which opens the data.",
    ),
    click.option(
        "--storage-options",
        callback=parse_object,
        metavar="JSON|@FILE",
        help="For the fsspec file system. Put credentials into a file, or the environment.",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks."),
)

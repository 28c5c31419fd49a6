"""Options that several commands share; none of them lets a secret onto the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from pamola_dwriter import keys
from pamola_dwriter.contracts import KeyProvider

Command = TypeVar("Command", bound=Callable[..., Any])

PROMPT = "prompt"


class KeyReference(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """Where a key is, or a public key; a secret key is refused, without showing it."""

    name = "key"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value` if it may stand on a command line."""
        schemes = tuple(f"{scheme}:" for scheme in (*keys.PROVIDERS, *keys.INSTALLED.names()))
        if value == PROMPT or value.startswith(schemes) or keys.is_recipient(value):
            return value
        raise click.BadParameter(
            "this is neither env:NAME, file:PATH, awskms:KEY nor vault:KEY, nor a public key "
            "(hpke:..., age1...), nor prompt. A secret key itself is refused here, because every "
            "user of this machine can read a command line; if this was a real key, replace it, "
            "since your shell may have kept it"
        )


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
        As :class:`KeyReference` lets them through.
    confirm : bool
        Ask twice: what is written under a mistyped passphrase is lost.
    """
    return [_ask(confirm) if one == PROMPT else one for one in references] or None


def ask_password(references: Sequence[str]) -> str | None:
    """Return the one reference, or what is typed at the prompt, as it is."""
    if len(references) > 1:
        raise click.UsageError("such a file has one key; give --encryption-key once")
    if any(one != PROMPT and not one.startswith(("env:", "file:")) for one in references):
        raise click.UsageError("the key of such a file is env:NAME, file:PATH or prompt")
    return next((_type() if one == PROMPT else one for one in references), None)


def _ask(confirm: bool) -> KeyProvider:
    return keys.parse_secret(
        _type(confirm=confirm).encode(errors="surrogateescape"), "what was typed"
    )


def _type(*, confirm: bool = False) -> str:
    return str(click.prompt("Key", hide_input=True, confirmation_prompt=confirm, err=True))


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


storage_option = click.option(
    "--storage-options",
    callback=parse_object,
    metavar="JSON|@FILE",
    help="For the fsspec file system. Put credentials into a file, or the environment.",
)

debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")

_ACCESS = (
    click.option(
        "--encryption-key",
        "key_references",
        type=KeyReference(),
        multiple=True,
        help="Where the key is: env:NAME, file:PATH, awskms:KEY, vault:KEY or prompt; or a public "
        "key to encrypt to. Repeat it for several keys, any one of which opens the data.",
    ),
    storage_option,
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    debug_option,
)

"""``pamola-dwriter keygen`` and ``public-key``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pamola_dwriter import keys
from pamola_dwriter.cli.options import KeyReference, ask_keys
from pamola_dwriter.cli.outcome import EXIT_CODES, emit
from pamola_dwriter.errors import InvalidKeyError, InvalidPathError

_STDOUT = Path("-")

_pem_option = click.option("--pem", is_flag=True, help="As PEM, which x25519 keys alone have.")


@click.command("keygen", epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(keys.KINDS),
    default="raw",
    show_default=True,
    help="raw: one key that encrypts and opens. The others are pairs, and the writer gets the "
    "public key alone; x25519-mlkem768 also holds against quantum computers.",
)
@_pem_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def keygen_command(file: Path, kind: str, *, pem: bool, as_json: bool) -> None:
    """Draw a new key into FILE, which only its owner can read.

    FILE must not exist yet; `-` writes the key to stdout instead, and nothing else. Keep it where
    no data is: who loses the only key of a dataset has lost the dataset.
    """
    secret = keys.generate_key(kind, pem=pem)
    provider = keys.parse_secret(secret.encode(), str(file))  # what cannot be used is not kept
    if file == _STDOUT:
        click.echo(secret, nl=False)
        return
    _write_private(file, secret)
    facts = {"file": str(file), "kind": kind, "key_id": provider.key_id}
    public = keys.public_key(provider)
    emit(facts if public is None else facts | {"public_key": public}, as_json=as_json)


@click.command("public-key", epilog=EXIT_CODES)
@click.argument("key", type=KeyReference())
@_pem_option
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def public_key_command(key: str, *, pem: bool) -> None:
    """Print the public key of a pair, which writers encrypt to.

    KEY says where the private key is: env:NAME, file:PATH or prompt.
    """
    (provider,) = keys.resolve(ask_keys([key]))
    public = keys.public_key(provider, pem=pem)
    if public is None:
        raise InvalidKeyError("this key is not one of a pair, and has no public key")
    click.echo(public.removesuffix("\n"))


def _write_private(file: Path, secret: str) -> None:
    """Write a new file that only its owner can read."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidPathError(
            f"{file} exists, and a key may be in use: choose a new name"
        ) from None
    except OSError as error:
        raise InvalidPathError(f"{file} cannot be written: {error.strerror}") from None
    try:
        with open(descriptor, "w", encoding="ascii") as opened:
            opened.write(secret)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        file.unlink()
        raise InvalidPathError(f"{file} cannot be written: {error.strerror}") from None

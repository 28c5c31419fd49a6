"""``pamola-dwriter show``, ``verify`` and ``decrypt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pamola_dwriter.audit import describe, verify
from pamola_dwriter.cli.options import access_options, ask_keys, ask_password, scheduler_option
from pamola_dwriter.cli.outcome import EXIT_CODES, emit
from pamola_dwriter.cli.writing import connected
from pamola_dwriter.reader import decrypt

Options = Mapping[str, Any] | None


@click.command("show", epilog=EXIT_CODES)
@click.argument("path")
@access_options
def show_command(
    path: str, key_references: Sequence[str], storage_options: Options, as_json: bool
) -> None:
    """Show what a dataset or single file says of itself.

    Without its key an encrypted one shows only its write ids and which keys open it.
    """
    key = ask_keys(key_references)
    facts = describe(path, encryption_key=key, storage_options=storage_options)
    emit(facts, as_json=as_json)


@click.command("verify", epilog=EXIT_CODES)
@click.argument("path")
@scheduler_option
@access_options
def verify_command(
    path: str,
    scheduler: str | None,
    key_references: Sequence[str],
    storage_options: Options,
    as_json: bool,
) -> None:
    """Check every stored byte of a dataset, or of an encrypted single file.

    Exits with 3 and names the parts if any was altered, removed or added.
    """
    key = ask_keys(key_references)
    with connected(scheduler) as client:
        report = verify(path, encryption_key=key, storage_options=storage_options, client=client)
    emit({"path": path, **asdict(report)}, as_json=as_json)


@click.command("decrypt", epilog=EXIT_CODES)
@click.argument("path")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--legacy-simple",
    is_flag=True,
    help="PATH is a file that pamola-core wrote in its mode 'simple'; the key is its text.",
)
@access_options
def decrypt_command(
    path: str,
    destination: Path,
    key_references: Sequence[str],
    storage_options: Options,
    *,
    legacy_simple: bool,
    as_json: bool,
) -> None:
    """Copy an encrypted dataset or single file to plain local files.

    DESTINATION, a directory or file, must not exist yet.
    """
    key = ask_password(key_references) if legacy_simple else ask_keys(key_references)
    files = decrypt(
        path,
        destination,
        encryption_key=key,
        storage_options=storage_options,
        legacy_simple=legacy_simple,
    )
    facts = {"path": str(destination), "files": [str(file) for file in files]}
    emit(facts if as_json else facts | {"files": len(files)}, as_json=as_json)

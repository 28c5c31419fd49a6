"""``pamola-dwriter rotate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from pamola_dwriter.cli.options import access_options, ask_keys, check_key_references
from pamola_dwriter.cli.outcome import EXIT_CODES, emit
from pamola_dwriter.rotation import rotate_keys


@click.command("rotate", epilog=EXIT_CODES)
@click.argument("dataset")
@click.option(
    "--to",
    callback=check_key_references,
    multiple=True,
    metavar="env:NAME|file:PATH|prompt",
    help="Where a key is that opens the dataset from now on. May be repeated.",
)
@click.option(
    "--revoke",
    multiple=True,
    metavar="ID",
    help="A key that opens it no longer, by its id in `show`. May be repeated.",
)
@access_options
def rotate_command(
    dataset: str,
    to: Sequence[str],
    revoke: Sequence[str],
    key_references: Sequence[str],
    storage_options: Mapping[str, Any] | None,
    as_json: bool,
) -> None:
    """Let other keys open an encrypted dataset, and some no longer; only its manifest is written.

    --encryption-key is one that opens it now. Whoever could open the dataset before may have kept
    what it takes: against them, write it anew.
    """
    report = rotate_keys(
        dataset,
        encryption_key=ask_keys(key_references),
        to=ask_keys(to, confirm=True),
        revoke=revoke,
        storage_options=storage_options,
    )
    emit({"path": dataset, **asdict(report)}, as_json=as_json)

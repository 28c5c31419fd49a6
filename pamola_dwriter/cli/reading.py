"""``pamola-dwriter show``, ``verify`` and ``decrypt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from pamola_dwriter import envelope, keys, storage
from pamola_dwriter.cli.options import access_options, ask_keys, scheduler_option
from pamola_dwriter.cli.outcome import EXIT_CODES, emit
from pamola_dwriter.cli.writing import connected
from pamola_dwriter.errors import DataReadError, TargetExistsError
from pamola_dwriter.paths import resolve_path
from pamola_dwriter.reader import decrypt, describe, open_artifact, verify
from pamola_dwriter.settings import Settings

_BLOCK = 2**24

Options = Mapping[str, Any] | None


@click.command("show", epilog=EXIT_CODES)
@click.argument("path")
@access_options
def show_command(
    path: str, key_references: Sequence[str], storage_options: Options, as_json: bool
) -> None:
    """Show what a dataset or single file says of itself.

    Without its key an encrypted one shows only its write id and which keys open it.
    """
    key = ask_keys(key_references)
    facts = _describe_file(path, storage_options) or describe(
        path, encryption_key=key, storage_options=storage_options
    )
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
    if (facts := _describe_file(path, storage_options)) is not None:
        facts["plain_bytes"] = _verify_file(path, facts, key, storage_options)
    else:
        with connected(scheduler) as client:
            report = verify(
                path, encryption_key=key, storage_options=storage_options, client=client
            )
        facts = {"path": path, **asdict(report)}
    emit(facts, as_json=as_json)


@click.command("decrypt", epilog=EXIT_CODES)
@click.argument("path")
@click.argument("destination", type=click.Path(path_type=Path))
@access_options
def decrypt_command(
    path: str,
    destination: Path,
    key_references: Sequence[str],
    storage_options: Options,
    as_json: bool,
) -> None:
    """Copy an encrypted dataset or single file to plain local files.

    DESTINATION, a directory or file, must not exist yet.
    """
    if destination.exists():
        raise TargetExistsError(f"{destination} exists; choose a destination that does not")
    key = ask_keys(key_references)
    files = decrypt(path, destination, encryption_key=key, storage_options=storage_options)
    facts = {"path": str(destination), "files": [str(file) for file in files]}
    emit(facts if as_json else facts | {"files": len(files)}, as_json=as_json)


def _describe_file(path: str, storage_options: Options) -> dict[str, Any] | None:
    """Return what a single file shows without a key; None if `path` is no file."""
    root, options = resolve_path(path, storage_options)
    folder, _, name = root.rpartition("/")
    store = storage.open_store(folder, options, Settings.load().upload_part_size)
    if not store.is_file(name):
        return None
    size = store.size(name)
    sealed = store.read(name, 0, min(size, len(envelope.MAGIC))) == envelope.MAGIC
    facts: dict[str, Any] = {"path": root, "size_bytes": size, "encrypted": sealed}
    if sealed:
        fields = envelope.read_header(partial(store.read, name)).fields
        wrapped = [keys.wrapped_from_json(key) for key in fields.get("keys") or ()]
        facts["write_id"] = fields.get("write_id")
        facts["keys"] = [{"method": key.method, "key_id": key.key_id} for key in wrapped]
    return facts


def _verify_file(
    path: str, facts: Mapping[str, Any], encryption_key: Any, storage_options: Options
) -> int:
    """Read an encrypted file to its end, which authenticates it; return its plain size."""
    if not facts["encrypted"]:
        raise DataReadError(
            f"{path} is a plain single file, with nothing beside it to be checked against; "
            "compare its SHA-256 with the checksum of its WriterResult"
        )
    size = 0
    with open_artifact(
        path, encryption_key=encryption_key, storage_options=storage_options
    ) as file:
        while block := file.read(_BLOCK):
            size += len(block)
    return size

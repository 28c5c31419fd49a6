"""``pamola-dwriter rotate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from pamola_dwriter.cli.options import KeyReference, access_options, ask_keys
from pamola_dwriter.cli.outcome import EXIT_CODES, emit
from pamola_dwriter.errors import RotationIncompleteError
from pamola_dwriter.rotation import DirectoryRotationReport, rotate_keys


@click.command("rotate", epilog=EXIT_CODES)
@click.argument("path")
@click.option(
    "--to",
    type=KeyReference(),
    multiple=True,
    help="A key that opens it from now on, as in --encryption-key. May be repeated.",
)
@click.option(
    "--revoke",
    multiple=True,
    metavar="ID",
    help="A key that opens it no longer, by its id in `show`. May be repeated.",
)
@access_options
def rotate_command(
    path: str,
    to: Sequence[str],
    revoke: Sequence[str],
    key_references: Sequence[str],
    storage_options: Mapping[str, Any] | None,
    as_json: bool,
) -> None:
    """Let other keys open what is encrypted, and some no longer.

    PATH is a dataset, of which only the manifest is written; a single file, which is sealed anew;
    or a directory with some of these, such as a task directory. There what cannot be rotated does
    not stop the rest: it is listed, and the exit code is 7. The same command again goes on.

    --encryption-key is one that opens it now. Whoever could open a dataset before may have kept
    what it takes: against them, write it anew.
    """
    try:
        report = rotate_keys(
            path,
            encryption_key=ask_keys(key_references),
            to=ask_keys(to, confirm=True),
            revoke=revoke,
            storage_options=storage_options,
        )
    except RotationIncompleteError as error:
        _show(path, error.report, as_json=as_json)
        raise
    if isinstance(report, DirectoryRotationReport):
        _show(path, report, as_json=as_json)
    else:
        emit({"path": path, **asdict(report)}, as_json=as_json)


def _show(path: str, report: DirectoryRotationReport, *, as_json: bool) -> None:
    facts = asdict(report)
    if as_json:
        emit({"path": path, **facts}, as_json=True)
        return
    for kind in (report.rotated, report.unchanged):
        for name, one in kind.items():
            what = "rotated" if one.added or one.revoked else "unchanged"
            click.echo(f"{what}: {name}: {', '.join(one.key_ids)}")
    for name in report.plain:
        click.echo(f"plain: {name}")
    for name, why in report.failed.items():
        click.echo(f"failed: {name}: {why.error}: {why.message}")
    emit({kind: len(listed) for kind, listed in facts.items()}, as_json=False)

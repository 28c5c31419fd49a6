"""``pamola-dwriter gc``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from pamola_dwriter.cli.options import access_options, ask_keys
from pamola_dwriter.cli.outcome import EXIT_CODES, emit
from pamola_dwriter.garbage import Garbage, collect_garbage


@click.command("gc", epilog=EXIT_CODES)
@click.argument("task_dir")
@click.option(
    "--older-than",
    default="24h",
    show_default=True,
    metavar="SPAN",
    help="Spare what a write left that gave a sign of life within this time: 30min, 24h, 7d.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@access_options
def gc_command(
    task_dir: str,
    older_than: str,
    dry_run: bool,
    key_references: Sequence[str],
    storage_options: Mapping[str, Any] | None,
    as_json: bool,
) -> None:
    """Remove what writes that ended badly left in a task directory.

    That is: staged files, losing attempts, unfinished uploads, and parts no manifest names. A write
    under way is never touched, nor any file of another name than we give.
    """
    report = collect_garbage(
        task_dir,
        older_than=older_than,
        dry_run=dry_run,
        encryption_key=ask_keys(key_references),
        storage_options=storage_options,
    )
    listed = {"removed": report.removed, "kept": report.kept}
    rest = {"unopened": list(report.unopened), "dry_run": dry_run}
    if as_json:
        emit(
            {name: list(map(_facts, garbage)) for name, garbage in listed.items()} | rest,
            as_json=True,
        )
        return
    for name, garbage in listed.items():
        for each in garbage:
            click.echo(
                f"{'would be ' if dry_run and name == 'removed' else ''}{name}: {_text(each)}"
            )
    emit({name: len(garbage) for name, garbage in listed.items()} | rest, as_json=False)


def _text(garbage: Garbage) -> str:
    kind = "upload of " if garbage.is_upload else ""
    return f"{kind}{garbage.path}: {garbage.reason}"


def _facts(garbage: Garbage) -> dict[str, Any]:
    return {
        "path": garbage.path,
        "write_id": garbage.write_id,
        "modified": garbage.modified.isoformat(),
        "is_upload": garbage.is_upload,
        "reason": garbage.reason,
    }

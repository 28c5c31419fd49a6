"""``pamola-dwriter audit``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import orjson

from pamola_dwriter.auditlog import AuditRecord, read_audit
from pamola_dwriter.cli.options import debug_option, storage_option
from pamola_dwriter.cli.outcome import EXIT_CODES

_COLUMNS = ("committed", "actor", "operation", "path", "rows", "size_bytes", "parts", "write_id")


@click.command("audit", epilog=EXIT_CODES)
@click.argument("path")
@storage_option
@debug_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all fields.")
def audit_command(path: str, storage_options: Mapping[str, Any] | None, *, as_json: bool) -> None:
    """List the writes that were committed to the task directory PATH, the oldest first."""
    for number, record in enumerate(read_audit(path, storage_options=storage_options)):
        if as_json:
            click.echo(orjson.dumps(record.to_json()))
            continue
        if not number:
            click.echo("\t".join(_COLUMNS))
        click.echo("\t".join(_cells(record)))


def _cells(record: AuditRecord) -> list[str]:
    values = record.to_json()
    return ["-" if values[name] is None else _plain(values[name]) for name in _COLUMNS]


def _plain(value: object) -> str:
    """Leave out what a terminal would take for a command."""
    return "".join(one if one.isprintable() else " " for one in str(value))

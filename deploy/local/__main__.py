"""``python -m deploy.local``: a whole installation on this machine, up and down by one command."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from shlex import quote
from typing import NoReturn

import click

from deploy.local import health, stack
from deploy.local.folder import Folder, StackError, default_folder
from deploy.local.processes import ServerStartError
from deploy.local.state import State

_folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the stack keeps everything.  [default: below ~/.local/state]",
)


@click.group()
def main() -> None:
    """An S3 server, a Dask cluster and a notebook server on this machine, on TLS alone."""
    signal.signal(signal.SIGTERM, _end)


@main.command()
@_folder_option
@click.option("--workers", type=click.IntRange(1, 256), default=2, show_default=True)
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--bucket", default="lake", show_default=True, help="Made if it is not there.")
@click.option("--notebook/--no-notebook", default=True, help="Needs the 'lab' extra.")
@click.option(
    "--notebooks",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    show_default="this folder",
    help="What the notebook server shows.",
)
def up(
    folder: Path | None,
    workers: int,
    threads: int,
    bucket: str,
    notebook: bool,
    notebooks: Path,
) -> None:
    """Bring a stack up, and say how to use it.

    Each server is ready then. In a folder that you name, objects and keys stay when the stack is
    taken down.
    """
    place = _place(folder)
    plan = stack.Plan(
        folder=place,
        keep=folder is not None,
        workers=workers,
        threads=threads,
        bucket=bucket,
        notebooks=notebooks.absolute() if notebook else None,
    )
    try:
        running = stack.up(plan)
    except (StackError, ServerStartError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(_describe(place, running))


@main.command()
@_folder_option
def status(folder: Path | None) -> None:
    """Ask each server whether it is well.

    The exit code is 1 if any is not.
    """
    place = _place(folder)
    try:
        found = stack.found_state(place)
    except StackError as error:
        raise click.ClickException(str(error)) from error
    answers = health.check(place, found)
    width = max([24, *(len(each.wrong) for each in answers)])
    click.echo(f"{'server':<10} {'process':>8} {'health':<{width}} address")
    for each in answers:
        name, pid, address = each.server.name, each.server.pid, each.server.address
        click.echo(f"{name:<10} {pid:>8} {each.wrong or 'well':<{width}} {address}")
    if not found.complete:
        click.echo("It is not complete: `up` is at work, or was cut off. `down` ends it.", err=True)
    if any(each.wrong for each in answers) or not found.complete:
        click.echo(f"Logs are in {place.logs}.", err=True)
        sys.exit(1)


@main.command()
@_folder_option
@click.option(
    "--keep-data/--remove-data",
    default=None,
    help="Objects, keys and logs.  [default: kept in a folder that you named, else removed]",
)
def down(folder: Path | None, keep_data: bool | None) -> None:
    """Take a stack down: no process and no port is left.

    If one is, that is an error, which names it.
    """
    try:
        click.echo(stack.down(_place(folder), keep=keep_data))
    except StackError as error:
        raise click.ClickException(str(error)) from error


def _place(folder: Path | None) -> Folder:
    return Folder((folder or default_folder()).expanduser().absolute())


def _describe(folder: Folder, running: State) -> str:
    option = f" --folder {quote(str(folder.path))}" if running.keep else ""
    rows = [f"  {each.name:<10} {each.address}" for each in running.servers]
    if running.address("notebook"):
        rows.append(f"  {'':<10} token in {folder.token}")
    stay = "stay" if running.keep else "are removed"
    target = f"s3://{running.bucket}/benchmark"
    job = 'python -m benchmarks job --scheduler "$DASK_SCHEDULER_ADDRESS"'
    return "\n".join(
        [
            f"Up, on TLS alone; logs are in {folder.logs}:",
            *rows,
            "Trust in a browser: " + str(folder.certificates.ca),
            "In another shell:",
            f"  . {quote(str(folder.environment))}",
            f"  {job} --target {target} --rows 1000000 --partitions 16",
            f"  python -m deploy.local status{option}",
            f"  python -m deploy.local down{option}  # objects and keys {stay}",
        ]
    )


def _end(signum: int, _frame: object) -> NoReturn:
    """Unwind, so that what was started is ended."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    main(prog_name="python -m deploy.local")

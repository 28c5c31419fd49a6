"""``pamola-dwriter write``."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, NoReturn

import click
from distributed import Client
from distributed.comm import registry
from distributed.comm.addressing import parse_address

from pamola_dwriter.bar import follow
from pamola_dwriter.cli.inputs import FORMATS, has_index, read_inputs, share_options
from pamola_dwriter.cli.options import access_options, ask_keys, parse_object, scheduler_option
from pamola_dwriter.cli.outcome import EXIT_CODES, emit
from pamola_dwriter.errors import WriteFailedError
from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.spec import WriterResult
from pamola_dwriter.views import wait
from pamola_dwriter.writer import DataWriter

EXAMPLE = """\b
Example:
  pamola-dwriter write 'raw/*.csv' --task-dir task_042 --name customers \\
    --encryption-key env:PII_KEY

"""

_unheard = logging.getLogger("pamola_dwriter.cli")
"""The writer's log: what it says is printed once already, as the error that ends the command."""
_unheard.addHandler(logging.NullHandler())
_unheard.propagate = False

_SINGLE_FILE = {"auto": "auto", "yes": True, "no": False}


@click.command("write", epilog=EXAMPLE + EXIT_CODES)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--task-dir", required=True, help="Directory or URL to write below.")
@click.option("--name", required=True, help="Name of the dataset.")
@click.option(
    "--input-format", type=click.Choice(FORMATS), help="[default: by the inputs' extension]"
)
@click.option(
    "--input-storage-options",
    callback=parse_object,
    metavar="JSON|@FILE",
    help="[default: --storage-options, if the inputs are in the same kind of store]",
)
@click.option(
    "--format", default="parquet", show_default=True, help="parquet, csv, jsonl, orc, arrow..."
)
@click.option("--compression", help="Codec. [default: zstd in parquet, else none]")
@click.option("--row-group-size", type=int, metavar="ROWS", help="Rows in a row group.")
@click.option("--partition-on", multiple=True, metavar="COLUMN", help="Hive folder; repeatable.")
@click.option(
    "--index/--no-index",
    "write_index",
    default=None,
    help="Whether to keep the index. [default: unless it only numbers the rows]",
)
@click.option("--subdir", default="output", show_default=True, help='"" for the task directory.')
@click.option("--timestamp", "timestamp_in_name", is_flag=True, help="Add the time to the name.")
@click.option(
    "--overwrite/--no-overwrite",
    default=True,
    show_default=True,
    help="Whether to replace what stands there, once the new version is committed.",
)
@click.option("--append", is_flag=True, help="Add to the dataset of that name.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the same write, if it was interrupted: what it had staged is kept.",
)
@click.option(
    "--single-file",
    type=click.Choice(list(_SINGLE_FILE)),
    default="auto",
    show_default=True,
    help="One file instead of a directory of parts; auto: if there is one partition.",
)
@click.option("--target-part-size", metavar="SIZE", help='Repartition to about so much: "128MB".')
@click.option(
    "--format-options", callback=parse_object, metavar="JSON|@FILE", help="Such as a delimiter."
)
@scheduler_option
@access_options
@click.option("--quiet", is_flag=True, help="Neither a progress bar nor a summary.")
def write_command(
    inputs: Sequence[str],
    task_dir: str,
    storage_options: Mapping[str, Any] | None,
    **options: Any,
) -> None:
    """Write Parquet, CSV or JSON Lines files as one dataset.

    INPUT is a path, a URL, or a glob in quotes. Nothing is visible until all of it is committed.

    A key is never taken from the command line itself: --encryption-key says where it is.
    """
    as_json, quiet = options.pop("as_json"), options.pop("quiet")
    given = options.pop("input_storage_options")
    shared = share_options(inputs, task_dir, given, storage_options)
    keys = ask_keys(options.pop("key_references"), confirm=True)
    with ExitStack() as stack:
        stack.enter_context(_terminable())
        client = stack.enter_context(connected(options.pop("scheduler")))
        frame = read_inputs(inputs, options.pop("input_format"), shared)
        if options["write_index"] is None:
            options["write_index"] = has_index(frame)
        writer = DataWriter(
            task_dir,
            _unheard,
            encryption_key=keys,
            storage_options=storage_options,
            client=client,
        )
        handle = writer.submit_dataframe(frame, **_arguments(options))
        result = _wait(handle, quiet=quiet)
    emit(_facts(result), as_json=as_json, quiet=quiet)


@contextmanager
def connected(scheduler: str | None) -> Iterator[Client | None]:
    """Connect to a Dask scheduler, or to none.

    Raises
    ------
    WriteFailedError
        It does not answer.
    click.BadParameter
        That is no address.
    """
    if scheduler is None:
        yield None
        return
    try:
        # Before there is a client: one that failed would stay behind as the current one.
        registry.get_backend(parse_address(scheduler)[0])
        client = Client(scheduler)
    except OSError as error:
        raise WriteFailedError(f"the scheduler {scheduler} does not answer: {error}") from error
    except (ValueError, TypeError) as error:
        raise click.BadParameter(f"{error}", param_hint="--scheduler") from error
    with client:
        yield client


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the command as arguments of the API; what was not given is left out."""
    single_file = _SINGLE_FILE[options.pop("single_file")]
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return given | {"single_file": single_file}


def _wait(handle: WriteFuture, *, quiet: bool) -> WriterResult:
    return wait(handle) if quiet else follow(handle)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM stop a write as Ctrl-C does: cancelled, and cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _facts(result: WriterResult) -> dict[str, Any]:
    return {
        "path": str(result.path),
        "format": result.format,
        "rows": result.rows,
        "partitions": result.partitions,
        "size_bytes": result.size_bytes,
        "encrypted": result.encrypted,
        "timestamp": result.timestamp.isoformat(),
        "write_id": result.write_id,
        "manifest": None if result.manifest is None else str(result.manifest),
        "checksum": result.checksum,
        "resumed": result.resumed,
    }

"""``pamola-dwriter`` on the command line: write, show, verify, decrypt, rotate, gc, keygen.

Reading order: :mod:`~pamola_dwriter.cli.outcome` (exit codes and errors),
:mod:`~pamola_dwriter.cli.options`, then one module for each kind of command.
"""

from __future__ import annotations

import click

from pamola_dwriter.bar import follow
from pamola_dwriter.cli.auditing import audit_command
from pamola_dwriter.cli.cleaning import gc_command
from pamola_dwriter.cli.keygen import keygen_command, public_key_command
from pamola_dwriter.cli.outcome import EXIT_CODES, Program
from pamola_dwriter.cli.reading import decrypt_command, show_command, verify_command
from pamola_dwriter.cli.rotating import rotate_command
from pamola_dwriter.cli.writing import write_command

__all__ = ["follow", "main"]


@click.group(
    cls=Program,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="pamola_dwriter")
def main() -> None:
    """Write datasets with Dask, encrypted and all or nothing, and read them back."""


for _command in (
    write_command,
    show_command,
    verify_command,
    decrypt_command,
    rotate_command,
    gc_command,
    audit_command,
    keygen_command,
    public_key_command,
):
    main.add_command(_command)

"""Execute the notebooks and store their outputs: ``python -m notebooks [NAME ...]``."""

from __future__ import annotations

import sys
from tempfile import TemporaryDirectory

import nbformat

from notebooks.execute import execute, notebooks


def main(names: list[str]) -> None:
    """Execute those whose names begin so, or all."""
    for path in notebooks():
        if not names or path.name.startswith(tuple(names)):
            print(path.name, flush=True)
            with TemporaryDirectory() as folder:
                nbformat.write(execute(path, folder), path)


if __name__ == "__main__":
    main(sys.argv[1:])

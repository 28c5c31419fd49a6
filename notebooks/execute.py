"""Execute notebooks from a clean kernel, and keep their outputs as a reader should see them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
TIMEOUT = 120
"""Seconds for one cell."""


def notebooks() -> list[Path]:
    """Return all notebooks, in the order to read them."""
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path, folder: str | Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run in `folder`, which is not part of them.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    # The kernel that belongs to this interpreter, whatever others are installed.
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    root = str(FOLDER.parent)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *sys.path])
    try:
        client.execute()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_settled(output, str(folder)) for output in cell.outputs]
    notebook.metadata = nbformat.NotebookNode(
        kernelspec=notebook.metadata.kernelspec,
        language_info=nbformat.NotebookNode(name="python"),
    )
    return notebook


def _settled(output: nbformat.NotebookNode, folder: str) -> nbformat.NotebookNode:
    """Leave out what is of one run alone: where it ran, and ids that outputs were updated by."""
    output.pop("transient", None)
    if "text" in output:
        output.text = output.text.replace(folder, ".")
    return output

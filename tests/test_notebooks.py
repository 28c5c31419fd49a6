"""The notebooks run from a clean kernel, and what is stored in them is what they do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from notebooks.execute import execute, notebooks

CREDENTIAL = re.compile(r"(?<![\w:])[0-9a-f]{40,}(?!\w)")
"""Keys and S3 secrets in these notebooks are drawn as so many hex digits."""

FIGURES = {"03-watching-a-large-write.ipynb", "04-metrics-and-figures.ipynb"}
PROGRESS = {
    "01-quick-start.ipynb": "24 of 24 partitions",
    "02-encrypted-dataset-on-s3.ipynb": "12 of 12 partitions",
    "03-watching-a-large-write.ipynb": "60 of 60 partitions",
}


def outputs(notebook: nbformat.NotebookNode) -> list[Any]:
    """Return what all cells have put out."""
    return [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]


def results(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what cells print and end with, as text, without what differs from run to run."""
    made = outputs(notebook)
    shown = [one.data["text/plain"] for one in made if "execution_count" in one]
    shown += [one.text for one in made if one.get("name") == "stdout"]
    return [re.sub(r"raw:[0-9a-f]{16}", "raw:", text) for text in shown]


def test_all_are_here() -> None:
    """The four notebooks of the README."""
    assert [path.name[:2] for path in notebooks()] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_clean_kernel_executes_it(path: Path, tmp_path: Path) -> None:
    """No cell raises, and each prints and ends with what is stored."""
    stored = nbformat.read(path, as_version=4)
    executed = execute(path, tmp_path)
    assert results(executed) == results(stored)
    assert [one.output_type for one in outputs(executed)] == [
        one.output_type for one in outputs(stored)
    ]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_what_is_stored(path: Path) -> None:
    """Every cell was executed in order; figures and the last state of each write are kept."""
    stored = nbformat.read(path, as_version=4)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kept = [one.data for one in outputs(stored) if "data" in one]
    assert any("image/png" in data for data in kept) == (path.name in FIGURES)
    html = "".join(data.get("text/html", "") for data in kept)
    if path.name in PROGRESS:
        assert PROGRESS[path.name] in html
        assert "committed" in html
        assert "running" not in html


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_nothing_of_the_machine_is_stored(path: Path) -> None:
    """Neither a path of whoever executed it, nor a key or a credential."""
    text = path.read_text()
    assert not re.search(r"/(tmp|home|work|root)/", text)
    texts = [
        str(text)
        for one in outputs(nbformat.read(path, as_version=4))
        for kind, text in {"text": one.get("text", ""), **one.get("data", {})}.items()
        if not kind.startswith("image/")
    ]
    assert [text for text in texts if CREDENTIAL.search(text)] == []

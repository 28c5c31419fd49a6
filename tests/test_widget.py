"""The widget of a notebook: real kernels, real clusters, and what is saved with the cell."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import nbformat
import pandas as pd
import pytest
from distributed import Client
from nbclient import NotebookClient

from deploy.local import servers
from pamola_dwriter import DataWriter
from pamola_dwriter.progress import Snapshot, StageCounts
from pamola_dwriter.spec import WriteId
from pamola_dwriter.widget import Widget, as_html, notebook_display

PAGE = "http://127.0.0.1:8787/individual-pamola-writes?write=1&theme=dark"

FOLLOWED = """
import os, signal, sys, threading, time
import dask.dataframe as dd
import pandas as pd
from pamola_dwriter import DataWriter
from pamola_dwriter.cli import follow

def slowly(part):
    time.sleep(SECONDS)
    return part

frame = dd.from_pandas(pd.DataFrame({"x": range(80)}), npartitions=40)
frame = frame.map_partitions(slowly, meta=frame._meta)
handle = DataWriter("task").submit_dataframe(frame, "a")

def stop():
    while not handle.progress().partitions_done:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

if INTERRUPTED:
    threading.Thread(target=stop, daemon=True).start()
follow(handle)
"""


def snapshot(status: Any = "running", **more: Any) -> Snapshot:
    """Return a state of two partitions, one of which is done."""
    stages = {"put": StageCounts(waiting=1, done=1)}
    known = {"name": "output/a", "parts": 1, "rows": 2, "size_bytes": 3, "stages": stages, **more}
    return Snapshot(
        write_id=WriteId("0011"), status=status, partitions_done=1, partitions=2, **known
    )


class Cell:
    """The output of a cell: what was displayed, by id."""

    def __init__(self) -> None:
        self.shown: dict[str, list[dict[str, str]]] = {}

    def __call__(self, bundle: dict[str, str], *, raw: bool, display_id: str, update: bool) -> None:
        assert raw
        assert update == (display_id in self.shown)
        self.shown.setdefault(display_id, []).append(bundle)


def test_it_is_replaced_in_place() -> None:
    """One output, as HTML and as text; the same state is not sent twice, nor one after the end."""
    cell = Cell()
    widget = Widget(cell)
    for one in (snapshot(), snapshot(), snapshot("committed")):
        widget.show(one)
    widget.close("committed")
    widget.show(snapshot())
    widget.close("failed")
    (bundles,) = cell.shown.values()
    assert [bundle["text/plain"].split(", ")[0] for bundle in bundles] == [
        "output/a: running",
        "output/a: committed",
    ]
    assert all(">output/a<" in bundle["text/html"] for bundle in bundles)


def test_the_end_is_shown_without_a_snapshot_of_it() -> None:
    """A scheduler that is lost leaves no cell that says for ever that the write is running."""
    cell = Cell()
    widget = Widget(cell)
    widget.show(snapshot())
    widget.close("unknown")
    (bundles,) = cell.shown.values()
    assert "unknown" in bundles[-1]["text/html"]
    assert "running" not in str(bundles[-1])


def test_nothing_shown_nothing_left() -> None:
    """Without any snapshot the cell stays empty."""
    cell = Cell()
    Widget(cell).close("failed")
    assert cell.shown == {}


def test_the_page_is_linked_while_it_runs() -> None:
    """It is asked for once, escaped, and not saved with the last state."""
    cell, asked = Cell(), []

    def find() -> str:
        asked.append(1)
        return PAGE

    widget = Widget(cell, find)
    for one in (snapshot(), snapshot(rows=3), snapshot("committed")):
        widget.show(one)
    (bundles,) = cell.shown.values()
    linked = [PAGE.replace("&", "&amp;") in bundle["text/html"] for bundle in bundles]
    assert (linked, asked) == ([True, True, False], [1])


@pytest.mark.parametrize("where", ["name", "format", "stages", "page"])
def test_what_others_named_is_escaped(where: str) -> None:
    """A name, a stage or an address cannot bring markup into a notebook."""
    evil = "x'><script>alert(1)</script>"
    page = evil if where == "page" else None
    more: dict[str, Any] = {} if page else {where: evil}
    if where == "stages":
        more = {"stages": {evil: StageCounts(done=1)}}
    html = as_html(snapshot(**more), "running", page)
    assert "<script" not in html
    assert "x&#x27;&gt;&lt;script&gt;" in html


def test_a_script_has_no_cell() -> None:
    """Also where IPython is installed."""
    assert notebook_display() is None


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_a_cell_keeps(interrupted: bool, tmp_path: Path) -> None:
    """One output with the last state, also of a cell that was interrupted, which leaves no file."""
    seconds = 0.5 if interrupted else 0.01  # a commit that is faster wins
    source = FOLLOWED.replace("INTERRUPTED", str(interrupted)).replace("SECONDS", str(seconds))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", allow_errors=True, resources=place
    ).execute()
    outputs = notebook.cells[0].outputs
    (kept,) = [one for one in outputs if one.output_type == "display_data"]
    errors = [one.ename for one in outputs if one.output_type == "error"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    if interrupted:
        assert errors == ["KeyboardInterrupt"]
        assert ">cancelled<" in kept.data["text/html"]
        assert files == []
    else:
        assert errors == []
        assert kept.data["text/plain"].startswith("output/a: committed, 40 of 40 partitions")
        assert files != []
    assert "running" not in str(kept.data)


@pytest.mark.parametrize("dashboard", [True, False])
def test_the_link_leads_to_the_page(dashboard: bool, tmp_path: Path) -> None:
    """The address of the write answers; a scheduler without a dashboard gives none."""
    with (
        servers.cluster(n_workers=1, dashboard=dashboard) as cluster,
        Client(cluster.scheduler_address) as client,
    ):
        frame = dd.from_pandas(pd.DataFrame({"x": [1]}), npartitions=1)
        handle = DataWriter(tmp_path, client=client).submit_dataframe(frame, "a")
        link = handle.dashboard_link()
        handle.result()
        if not dashboard:
            assert link is None
            return
        assert link is not None
        assert link.endswith(f"/individual-pamola-writes?write={handle.write_id}")
        with urllib.request.urlopen(link) as page:
            assert page.status == 200
    assert handle.dashboard_link() is None


def test_a_local_write_has_no_link(tmp_path: Path) -> None:
    """There is no scheduler that could have a page."""
    frame = dd.from_pandas(pd.DataFrame({"x": [1]}), npartitions=1)
    handle = DataWriter(tmp_path).submit_dataframe(frame, "a")
    assert handle.dashboard_link() is None
    handle.result()

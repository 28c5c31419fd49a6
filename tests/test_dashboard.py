"""The page of writes in a real browser: it shows what the manifest says, and only that."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client
from playwright.sync_api import Page, sync_playwright

from deploy.local import servers
from pamola_dwriter import DataWriter
from pamola_dwriter.dashboard import ROUTE, columns, texts
from pamola_dwriter.dashboard.page import WritesPage
from pamola_dwriter.dashboard.style import LIGHT
from pamola_dwriter.errors import WriteFailedError
from pamola_dwriter.events import PartitionStaged, WriteAnnounced
from pamola_dwriter.execution import WriteFuture
from pamola_dwriter.plugin import NAME, WritesPlugin
from pamola_dwriter.progress import Amount, Failure, Fold, PartitionState
from pamola_dwriter.spec import WriteId
from tests.places import open_gate, slow_frame

WRITE = WriteId("00112233445566aa")
KEY = bytes(32)
HOSTILE = "a&lt;b '-- {{ style }} %3Cscript%3E"


class Browser:
    """A real browser, driven from a thread of its own: its driver keeps an event loop there."""

    def __init__(self, pool: ThreadPoolExecutor, chromium: Any) -> None:
        self._pool = pool
        self._chromium = chromium

    def show(self, url: str, look: Callable[[Page], Any], **options: Any) -> Any:
        """Open a page, and return what `look` makes of it."""
        return self._pool.submit(self._show, url, look, options).result()

    def _show(self, url: str, look: Callable[[Page], Any], options: dict[str, Any]) -> Any:
        page = self._chromium.new_page(viewport={"width": 1280, "height": 800}, **options)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        try:
            page.goto(url)
            page.wait_for_selector("nav h1")
            made = look(page)
        finally:
            page.close()
        assert problems == []
        return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, as `make test` installs it."""
    program = shutil.which("chromium")
    assert program, "there is no chromium on the PATH; `.ci/system-packages` installs it"
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with ThreadPoolExecutor(1) as pool:
        driver = pool.submit(sync_playwright().start).result()
        chromium = pool.submit(
            lambda: driver.chromium.launch(executable_path=program, args=options)
        ).result()
        yield Browser(pool, chromium)
        pool.submit(chromium.close).result()
        pool.submit(driver.stop).result()


@pytest.fixture(scope="module")
def board(pii_key: str) -> Iterator[servers.Cluster]:
    """A cluster whose scheduler has nothing of ours before the first write."""
    with servers.cluster(env={"PII_KEY": pii_key}) as running, running.connect():
        yield running


def address(board: servers.Cluster, query: str = "") -> str:
    """Return where the page is."""
    assert board.dashboard_url is not None
    return board.dashboard_url.replace("/status", ROUTE) + query


def figures(page: Page) -> dict[str, str]:
    """Return the figures of the write in detail, by their labels."""
    # At once, and as it is written: it is replaced twice a second, and styled a moment later.
    pairs = "all => all.map(one => [...one.children].map(part => part.textContent).reverse())"
    return dict(page.locator(".figure").evaluate_all(pairs))


def row(page: Page, name: str) -> dict[str, str]:
    """Return the row of a write in the table, by the heads of its columns."""
    heads = page.locator("th").all_inner_texts()
    cells = page.locator("tr", has_text=name).first.locator("td").all_inner_texts()
    return dict(zip(heads, cells, strict=False))


def text(page: Page) -> str:
    """Return all that the page says; Bokeh puts it into shadow trees, where a body's text ends."""
    script = """() => {
        const said = node => [node.nodeType === Node.TEXT_NODE ? node.textContent : "",
            ...[...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes]
                .filter(one => !["STYLE", "SCRIPT"].includes(one.nodeName)).map(said)].join(" ")
        return said(document.body)
    }"""
    said: str = page.evaluate(script)
    return said


def data(page: Page, name: str) -> dict[str, Any]:
    """Return the columns that a plot of the page draws."""
    script = """name => {
        const data = Bokeh.documents[0].get_model_by_name(name).data
        const entries = data instanceof Map ? [...data] : Object.entries(data)
        return Object.fromEntries(entries.map(([key, column]) => [key,
            Array.from(column, one => one.length && typeof one !== "string" ? [...one] : one)]))
    }"""
    shown: dict[str, Any] = page.evaluate(script, name)
    return shown


def wait_for(page: Page, handle: WriteFuture, status: str) -> None:
    """Wait until the page shows that a write has ended so."""
    page.wait_for_function("() => window.Bokeh && Bokeh.documents.length > 0")
    page.locator(f".headline .status.{status}").wait_for(timeout=60_000)
    assert handle.write_id in page.locator(".headline").inner_text()


def test_a_write_moves_and_ends_at_the_manifest(
    board: servers.Cluster, browser: Browser, tmp_path: Path
) -> None:
    """Figures, stages, workers and the grid, with nothing but a client to install the page."""
    with Client(board.scheduler_address):
        handle = DataWriter(tmp_path).submit_dataframe(
            slow_frame(60, 0.1), "customers", format="parquet", encryption_key=KEY
        )

        def look(page: Page) -> tuple[list[str], dict[str, Any]]:
            seen = []
            page.locator(".headline .status.running").wait_for()
            while page.locator(".headline .status.running").count():
                seen.append(figures(page)["partitions"])
                page.wait_for_timeout(300)
            wait_for(page, handle, "committed")
            page.wait_for_timeout(1000)
            return seen, {
                "figures": figures(page),
                "row": row(page, "output/customers"),
                **{name: data(page, name) for name in ("stages", "workers", "grid", "throughput")},
            }

        seen, last = browser.show(address(board), look)
        result = handle.result()
    assert len(set(seen)) > 3, seen
    shown = last["figures"]
    assert (shown["partitions"], shown["parts"], shown["rows"]) == ("60 / 60", "60", "300")
    assert last["row"]["Partitions"] == "60 / 60"
    assert last["row"]["Format"] == "parquet, encrypted"
    assert result.partitions == 60
    assert sum(last["workers"]["size_bytes"]) == result.size_bytes
    assert last["stages"]["stage"][::-1] == ["serialize", "encrypt", "put", "gather", "commit"]
    assert last["stages"]["done_tasks"][::-1] == [60, 60, 60, 1, 1]
    (cells,) = last["grid"]["cells"]
    stored = sum(one == PartitionState.STORED for one in cells)
    assert stored == 60
    assert max(last["throughput"]["stored"]) > 0


def test_a_killed_worker(board: servers.Cluster, browser: Browser, tmp_path: Path) -> None:
    """Retries show, and the end is exactly the manifest's."""
    with Client(board.scheduler_address):
        gate = tmp_path / "gate"
        handle = DataWriter(tmp_path / "task").submit_dataframe(
            slow_frame(60, 0.1, gate=gate), "survivor", format="csv"
        )

        def look(page: Page) -> tuple[dict[str, str], dict[str, Any]]:
            page.locator(".headline .status.running").wait_for()
            while int(figures(page)["partitions"].split()[0]) < 15:
                page.wait_for_timeout(200)
            board.kill_worker()
            open_gate(gate)
            wait_for(page, handle, "committed")
            page.wait_for_timeout(1000)
            return figures(page), data(page, "workers")

        shown, workers = browser.show(address(board, f"?write={handle.write_id}"), look)
        result = handle.result()
    board.wait_for_workers()
    assert int(shown["retried"]) > 0
    assert (shown["parts"], shown["rows"]) == (str(result.partitions), str(result.rows))
    assert shown["partitions"] == "60 / 60"
    assert sum(workers["size_bytes"]) == result.size_bytes


def test_two_writes_at_once(board: servers.Cluster, browser: Browser, tmp_path: Path) -> None:
    """Both have a row; the address says whose details are shown."""
    with Client(board.scheduler_address):
        writer = DataWriter(tmp_path)
        handles = [
            writer.submit_dataframe(slow_frame(many, 0.1), f"twin{many}", format="csv")
            for many in (7, 9)
        ]

        def look(page: Page) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
            wait_for(page, handles[0], "committed")
            page.locator("tr", has_text="twin9").locator(".status.committed").wait_for()
            first, second = row(page, "twin7"), row(page, "twin9")
            page.get_by_role("link", name="twin9").click()
            wait_for(page, handles[1], "committed")
            return first, second, figures(page)

        first, second, shown = browser.show(address(board, f"?write={handles[0].write_id}"), look)
    assert (first["Rows"], second["Rows"]) == ("35", "45")
    assert shown["partitions"] == "9 / 9"


def test_a_failure_and_a_hostile_name(
    board: servers.Cluster, browser: Browser, tmp_path: Path
) -> None:
    """Class and partition show, and nothing of the text; a name is text, whatever it holds."""

    def fail(part: pd.DataFrame) -> pd.DataFrame:
        if part["x"].iloc[0] == 10:
            raise RuntimeError("a value that nobody may see: 4711")
        return part

    with Client(board.scheduler_address):
        made = slow_frame(4).map_partitions(fail, meta=slow_frame(4)._meta)
        handle = DataWriter(tmp_path).submit_dataframe(made, HOSTILE, format="csv")
        with pytest.raises(WriteFailedError):
            handle.result()

        def look(page: Page) -> tuple[str, str]:
            wait_for(page, handle, "failed")
            page.get_by_text("RuntimeError").wait_for()
            return text(page), page.content()

        shown, source = browser.show(address(board, f"?write={handle.write_id}"), look)
    assert f"output/{HOSTILE}" in shown
    assert "nobody may see" not in shown + source


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(board: servers.Cluster, browser: Browser, scheme: str) -> None:
    """The page follows the browser, and fits a laptop's width."""

    def look(page: Page) -> tuple[str, str, int]:
        page.locator(".headline").wait_for()
        paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        plots = page.evaluate(
            "Bokeh.documents[0]._all_models.values().filter(one =>"
            " one.type == 'Figure').map(one => one.background_fill_color).toArray()"
        )
        assert len(set(plots)) == 1
        return paper, plots[0], page.evaluate("document.documentElement.scrollWidth")

    paper, plot, width = browser.show(address(board), look, color_scheme=scheme)
    expected = {"light": ("rgb(255, 255, 255)", "#ffffff"), "dark": ("rgb(21, 25, 31)", "#15191f")}
    assert (paper, plot) == expected[scheme]
    assert width <= 1280


def test_it_is_listed_and_linked(board: servers.Cluster) -> None:
    """For the JupyterLab extension, and in the menu of Dask's own pages; once each."""
    with Client(board.scheduler_address) as client:
        client.register_plugin(WritesPlugin())
        client.register_plugin(WritesPlugin())
    assert board.dashboard_url is not None
    listed = json.loads(fetch(board.dashboard_url.replace("/status", "/individual-plots.json")))
    assert [name for name, route in listed.items() if route == ROUTE] == [
        "Individual Pamola Writes"
    ]
    assert fetch(board.dashboard_url).count(ROUTE.strip("/")) == 1


def test_preloaded_before_any_write(browser: Browser) -> None:
    """It is listed from the beginning, and says that it has seen nothing."""
    env = {"DASK_DISTRIBUTED__SCHEDULER__PRELOAD": '["pamola_dwriter.plugin"]'}
    with servers.cluster(n_workers=1, env=env) as cluster:
        assert cluster.dashboard_url is not None
        listed = fetch(cluster.dashboard_url.replace("/status", "/individual-plots.json"))
        assert ROUTE in listed
        said = "No write has been seen on this cluster yet."
        browser.show(address(cluster), lambda page: page.get_by_text(said).wait_for())


def test_no_dashboard_no_page(tmp_path: Path) -> None:
    """A scheduler that serves none is left alone, and writes all the same."""
    with (
        servers.cluster(n_workers=1, dashboard=False) as cluster,
        Client(cluster.scheduler_address) as client,
    ):
        assert DataWriter(tmp_path).write_dataframe(slow_frame(2), "a", format="csv").rows == 10
        assert client.run_on_scheduler(_has_plugin)


def _has_plugin(dask_scheduler: Any) -> bool:
    return NAME in dask_scheduler.plugins


def fetch(url: str) -> str:
    """Return what stands at an address."""
    with urllib.request.urlopen(url, timeout=20) as reply:
        return str(reply.read().decode())


def wide_fold(partitions: int) -> Fold:
    """Return the fold of a write with half its partitions stored."""
    fold = Fold(WRITE, now=0.0)
    fold.announce(WriteAnnounced(write_id=WRITE, name="output/wide", partitions=partitions))
    for index in range(partitions):
        fold.waiting("put", index)
    for index in range(partitions // 2):
        event = PartitionStaged(write_id=WRITE, partition=index, parts=1, rows=1, size_bytes=9)
        fold.staged(event, f"tcp://{index % 50}")
        fold.finished("put", index, f"tcp://{index % 50}", float(index))
    return fold


def test_a_wide_write_is_aggregated() -> None:
    """A cell of 100,000 partitions stands for ten; one that failed shows in any case."""
    fold = wide_fold(100_000)
    fold.failed("put", 99_995, "OSError", 1.0)
    made = columns.grid(fold.partition_states())
    cells = made.cells[~np.isnan(made.cells)]
    assert (made.per_cell, len(cells)) == (10, 10_000)
    assert (cells == PartitionState.STORED).sum() == 5_000
    assert cells[-1] == PartitionState.FAILED
    page = WritesPage(LIGHT, None)
    began = time.perf_counter()
    page.update({WRITE: fold})
    assert time.perf_counter() - began < 2
    assert page.grid.data["cells"][0].size >= 10_000
    assert len(page.workers.data["worker"]) == columns.MOST_WORKERS + 1


def test_partly_stored_cells_tell() -> None:
    """Neither all nor nothing of them is stored."""
    states = np.array([6, 6, 6, 0, 0, 0, 1, 0], dtype=np.uint8)
    made = columns.grid(states, most=4)
    assert made.per_cell == 2
    assert made.cells[~np.isnan(made.cells)].tolist() == [
        *(PartitionState.STORED, columns.PARTLY, PartitionState.WAITING),
        PartitionState.SERIALIZING,
    ]


def test_the_grid_of_nothing() -> None:
    """A write without partitions has an empty picture."""
    assert np.isnan(columns.grid(np.zeros(0, dtype=np.uint8)).cells).all()


def test_workers_that_are_too_many_share_a_bar() -> None:
    """What they stored is not lost from the picture."""
    shares = {f"tcp://10.0.0.{number}:80": Amount(1, 1, 1, number) for number in range(40)}
    made = columns.workers(shares)
    assert made["worker"][0] == "24 more workers"
    assert sum(made["size_bytes"]) == sum(range(40))
    assert made["worker"][-1] == "10.0.0.39:80"


def test_text_of_users_is_escaped() -> None:
    """In the table, in the headline and among the failures."""
    fold = wide_fold(2)
    name = "output/<img src=x onerror=alert(1)>"
    fold.announce(WriteAnnounced(write_id=WRITE, name=name, url="s3://<b>", format="<i>"))
    seen = fold.snapshot(1.0)
    failure = Failure(stage="<s>", partition=None, kind="<u>")
    made = texts.writes_table([seen], WRITE, "light") + texts.headline(seen)
    made += texts.failures_table([failure] * 12)
    assert not re.search(r"<(img|i|u|s)\b|//<b>", made)
    for escaped in ("&lt;img src=x", "s3://&lt;b&gt;", "&lt;i&gt;", "&lt;s&gt;", "&lt;u&gt;"):
        assert escaped in made
    assert "and 2 more" in made

"""Make the picture of the dashboard that the README shows: ``python -m notebooks.screenshot``.

A real write of 240 partitions loses a worker, and a real browser looks at it. Chromium has to be on
the PATH.
"""

from __future__ import annotations

import shutil
import threading
import time
from tempfile import TemporaryDirectory

import dask.dataframe as dd
import pandas as pd
from distributed import Client
from playwright.sync_api import sync_playwright

from benchmarks.generated import lineitem
from deploy.local import servers
from notebooks.execute import FOLDER
from pamola_dwriter import DataWriter, WriteFuture
from pamola_dwriter.dashboard import ROUTE

PICTURE = FOLDER / "images/dashboard.png"
PARTITIONS = 240


def main() -> None:
    """Write, lose a worker, look."""
    with (
        TemporaryDirectory(prefix="lake-") as folder,
        servers.cluster() as cluster,
        Client(cluster.scheduler_address),
    ):
        writer = DataWriter(folder)
        people = dd.from_pandas(pd.DataFrame({"id": range(12_000)}), npartitions=12)
        writer.write_dataframe(people, "people", format="parquet", encryption_key=bytes(32))
        writer.write_dataframe(people, "people_csv", format="csv")
        frame = lineitem(rows=PARTITIONS * 60_000, partitions=PARTITIONS, seed=1)
        handle = writer.submit_dataframe(
            frame, "lineitem", format="parquet", encryption_key=bytes(32)
        )
        _wait_until(handle, PARTITIONS // 5)
        cluster.kill_worker()
        _wait_until(handle, PARTITIONS // 3)
        url = str(cluster.dashboard_url).replace("/status", ROUTE)
        browser = threading.Thread(target=_take, args=(url,))  # it has an event loop of its own
        browser.start()
        browser.join()
        handle.result()


def _wait_until(handle: WriteFuture, partitions: int) -> None:
    while handle.progress().partitions_done < partitions:
        time.sleep(0.2)


def _take(url: str) -> None:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = chromium.new_page(viewport={"width": 1280, "height": 1040})
        page.goto(url)
        page.locator(".headline").wait_for()
        page.wait_for_timeout(3000)
        page.screenshot(path=PICTURE)
        chromium.close()


if __name__ == "__main__":
    main()

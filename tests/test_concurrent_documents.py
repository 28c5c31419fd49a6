"""Processes that append to one array and merge into one object lose nothing to each other."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import fsspec
import pytest

from pamola_dwriter import open_artifact
from tests.places import Place

PROCESSES = 8
EACH = {"posix": 80, "s3": 12}
"""Updates of each document by each process; set 200 for both if you have ten minutes."""

# Processes of their own, as in a cluster: nothing in memory is shared.
_UPDATES = """
import json, sys
from pamola_dwriter import DataWriter

root, options, process, count, key = json.loads(sys.argv[1])
writer = DataWriter(root, storage_options=options, encryption_key=key)
for number in range(count):
    item = f"{process}-{number}"
    writer.append_to_json_array(item, "log", pretty=bool(number % 2))
    writer.merge_json_objects({item: number}, "state", pretty=bool(number % 2))
"""


def start(place: Place, process: int, count: int, key: str | None) -> subprocess.Popen[bytes]:
    arguments = json.dumps([place.root, dict(place.options), process, count, key])
    return subprocess.Popen([sys.executable, "-c", _UPDATES, arguments])


class Reader(threading.Thread):
    """Looks at both documents all the time, as plain files."""

    def __init__(self, place: Place, suffix: str) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._suffix = suffix
        self._ended = threading.Event()
        self.looks = 0
        self.damage: list[str] = []
        self.sizes: list[int] = []

    def run(self) -> None:
        while not self._ended.is_set():
            for name in ("log", "state"):
                self._look(f"{name}.json{self._suffix}")

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _look(self, name: str) -> None:
        options = {**self._place.options, "use_listings_cache": False}
        file_system, root = fsspec.core.url_to_fs(self._place.root, **options)
        try:
            data = file_system.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            return
        self.looks += 1
        try:
            document = data.startswith(b"PDW1") if self._suffix else json.loads(data)
        except ValueError as error:
            self.damage.append(f"{name}: {error}")
            return
        if self._suffix:
            assert document
        elif isinstance(document, list):
            self.sizes.append(len(document))


def read(place: Place, name: str, key: str | None) -> Any:
    path = f"{place.root}/{name}.json" + (".pdw" if key else "")
    with open_artifact(path, encryption_key=key, storage_options=place.options) as file:
        return json.load(file)


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "correct horse battery"], ids=["plain", "sealed"])
def test_every_item_and_key_is_there_once(place: Place, key: str | None) -> None:
    """Of 8 processes that update both, nothing is lost or doubled; readers see valid JSON."""
    count = EACH["s3" if place.options else "posix"]
    reader = Reader(place, ".pdw" if key else "")
    reader.start()
    try:
        running = [start(place, process, count, key) for process in range(PROCESSES)]
        assert [process.wait(timeout=250) for process in running] == [0] * PROCESSES
    finally:
        reader.end()
    log, state = read(place, "log", key), read(place, "state", key)
    made = {f"{p}-{n}": n for p in range(PROCESSES) for n in range(count)}
    assert sorted(log) == sorted(made)
    assert state == made
    # The items of a process stand in the order in which it appended them.
    for process in range(PROCESSES):
        own = [made[item] for item in log if item.startswith(f"{process}-")]
        assert own == sorted(own)
    assert reader.damage == []
    assert reader.looks > 10
    assert reader.sizes == sorted(reader.sizes)

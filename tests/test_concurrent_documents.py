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
EACH = 200

# Processes of their own, as in a cluster: nothing in memory is shared.
_UPDATES = """
import json, sys
from pamola_dwriter import DataWriter

root, options, process, count, key = json.loads(sys.argv[1])
writer = DataWriter(root, storage_options=options, encryption_key=key)
for number in range(count):
    item = f"{process}-{number}"
    if process % 2:
        writer.append_to_json_array(item, "log", pretty=bool(number % 2))
    else:
        writer.merge_json_objects({item: number}, "state", pretty=bool(number % 2))
"""


def start(place: Place, process: int, key: str | None) -> subprocess.Popen[bytes]:
    arguments = json.dumps([place.root, dict(place.options), process, EACH, key])
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
    """Of 8 processes and 200 updates each nothing is lost or doubled; readers see valid JSON."""
    reader = Reader(place, ".pdw" if key else "")
    reader.start()
    try:
        running = [start(place, process, key) for process in range(PROCESSES)]
        assert [process.wait(timeout=250) for process in running] == [0] * PROCESSES
    finally:
        reader.end()
    log, state = read(place, "log", key), read(place, "state", key)
    odd, even = range(1, PROCESSES, 2), range(0, PROCESSES, 2)
    assert sorted(log) == sorted(f"{p}-{n}" for p in odd for n in range(EACH))
    assert state == {f"{p}-{n}": n for p in even for n in range(EACH)}
    # Each process's own items stand in the order in which it appended them.
    for process in odd:
        own = [int(item.split("-")[1]) for item in log if item.startswith(f"{process}-")]
        assert own == sorted(own)
    assert reader.damage == []
    assert reader.looks > 10
    assert reader.sizes == sorted(reader.sizes)

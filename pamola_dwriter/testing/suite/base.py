"""What the promises of a store have in common: how one is opened, and names to try it with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Event
from typing import TypeVar

import pyarrow as pa
import pytest

from pamola_dwriter import layout
from pamola_dwriter.contracts import Store
from pamola_dwriter.spec import Attempt, WriteId

Opener = Callable[[], Store]

WRITE = WriteId("0123456789abcdef")
OTHER = WriteId("fedcba9876543210")
DATASET = "output/d"
MANIFEST = f"{DATASET}/{layout.MANIFEST}"
RACERS = 8

T = TypeVar("T")
R = TypeVar("R")


class Promises:
    """Fixtures of a conformance suite."""

    shows_staged_parts = False
    clock_step = 1.0

    @pytest.fixture
    def opener(self) -> Opener:
        """Open the task directory of this test, empty at first: each call is one more client."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture named 'opener'")

    @pytest.fixture
    def store(self, opener: Opener) -> Store:
        """One client of the task directory."""
        return opener()


def part_path(number: int = 0, write_id: WriteId = WRITE, directory: str = DATASET) -> str:
    """Name a part of a dataset as a write would."""
    name = layout.part_name(number, write_id, Attempt("00000000"), 0, "csv")
    return layout.join(directory, name)


def stage(store: Store, path: str, data: bytes = b"x", write_id: WriteId = WRITE) -> str:
    """Stage bytes; return the token, which has to be one: what has none counts as published."""
    token = store.stage(path, pa.py_buffer(data), write_id)
    assert token
    return token


def publish(store: Store, path: str, data: bytes = b"x", write_id: WriteId = WRITE) -> None:
    """Stage and publish bytes."""
    store.publish({path: stage(store, path, data, write_id)})


def at_once(action: Callable[[T], R], arguments: Iterable[T]) -> list[R]:
    """Call `action` with each argument, in as many threads that start together."""
    listed = list(arguments)
    barrier = Barrier(len(listed))

    def one(argument: T) -> R:
        barrier.wait(60)
        return action(argument)

    with ThreadPoolExecutor(len(listed)) as pool:
        return list(pool.map(one, listed))


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Repeat `action` in a thread until the block ends; what it raises is raised here."""
    ended = Event()

    def repeat() -> None:
        while not ended.is_set():
            action()

    with ThreadPoolExecutor(1) as pool:
        repeated = pool.submit(repeat)
        try:
            yield
        finally:
            ended.set()
            repeated.result()

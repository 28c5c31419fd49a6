"""A store around a store, through one place that every call passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import BinaryIO, TypeVar

import pyarrow as pa

from pamola_dwriter import layout
from pamola_dwriter.contracts import Found, Store, Versioned
from pamola_dwriter.spec import WriteId
from pamola_dwriter.testing.faults import Call

T = TypeVar("T")

Some = Callable[[int | None], None]
"""Does a call of several items for the first so many of them; None: for all."""


class StoreWrapper(ABC):
    """Passes every call on to another store, by way of :meth:`_pass_on`.

    Parameters
    ----------
    store : Store
        The store that does the work.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._store!r}>"

    @abstractmethod
    def _pass_on(self, call: Call, act: Callable[[], T], some: Some | None = None) -> T:
        """Do `act`; or, of a call of several items, `some` of it."""

    def _pass_on_some(self, method: str, paths: Collection[str], some: Some) -> None:
        self._pass_on(Call(method, tuple(paths)), lambda: some(None), some)

    @property
    def atomic(self) -> bool:
        return self._store.atomic

    def check_writable(self, path: str) -> None:
        self._pass_on(Call("check_writable", (path,)), lambda: self._store.check_writable(path))

    def make_folders(self, paths: Collection[str]) -> None:
        self._pass_on_some(
            "make_folders",
            paths,
            lambda count: self._store.make_folders(list(islice(paths, count))),
        )

    def is_file(self, path: str) -> bool:
        return self._pass_on(Call("is_file", (path,)), lambda: self._store.is_file(path))

    def files_among(self, paths: Collection[str]) -> set[str]:
        call = Call("files_among", tuple(paths))
        return self._pass_on(call, lambda: self._store.files_among(paths))

    def listdir(self, path: str) -> list[str]:
        return self._pass_on(Call("listdir", (path,)), lambda: self._store.listdir(path))

    def size(self, path: str) -> int:
        return self._pass_on(Call("size", (path,)), lambda: self._store.size(path))

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        return self._pass_on(Call("read", (path,)), lambda: self._store.read(path, start, end))

    def open(self, path: str) -> BinaryIO:
        return self._pass_on(Call("open", (path,)), lambda: self._store.open(path))

    def read_versioned(self, path: str) -> Versioned | None:
        return self._pass_on(
            Call("read_versioned", (path,)), lambda: self._store.read_versioned(path)
        )

    def stage(self, path: str, data: pa.Buffer, write_id: WriteId) -> str:
        return self._pass_on(
            Call("stage", (path,)), lambda: self._store.stage(path, data, write_id)
        )

    def publish(self, staged: Mapping[str, str], *, overwrite: bool = True) -> None:
        self._pass_on_some(
            "publish",
            staged,
            lambda count: self._store.publish(
                dict(islice(staged.items(), count)), overwrite=overwrite
            ),
        )

    def put(self, path: str, data: bytes) -> None:
        self._pass_on(Call("put", (path,)), lambda: self._store.put(path, data))

    def note(self, path: str, data: bytes) -> None:
        self._pass_on(Call("note", (path,)), lambda: self._store.note(path, data))

    def put_if(self, path: str, data: bytes, expected: str | None) -> None:
        self._pass_on(Call("put_if", (path,)), lambda: self._store.put_if(path, data, expected))

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        return self._pass_on(Call("update", (path,)), lambda: self._store.update(path, change))

    def survey(self, path: str) -> list[Found]:
        return self._pass_on(Call("survey", (path,)), lambda: self._store.survey(path))

    def now(self) -> float:
        return self._pass_on(Call("now", ()), self._store.now)

    def discard(self, found: Collection[Found]) -> None:
        self._pass_on_some(
            "discard",
            [each.path for each in found],
            lambda count: self._store.discard(list(islice(found, count))),
        )

    def find_staged(self, directory: str, staged: Mapping[str, str]) -> set[str]:
        return self._pass_on(
            Call("find_staged", (directory,)), lambda: self._store.find_staged(directory, staged)
        )

    def remove(self, paths: Collection[str]) -> None:
        self._pass_on_some(
            "remove", paths, lambda count: self._store.remove(list(islice(paths, count)))
        )

    def sweep(self, directory: str, write_ids: Collection[WriteId], keep: Collection[str]) -> None:
        self._pass_on_some(
            "sweep",
            [directory],
            lambda count: self._store.sweep(directory, list(islice(write_ids, count)), keep),
        )

    def sweep_staged(self, write_id: WriteId) -> None:
        path = layout.join(layout.STAGING, write_id)
        self._pass_on(Call("sweep_staged", (path,)), lambda: self._store.sweep_staged(write_id))

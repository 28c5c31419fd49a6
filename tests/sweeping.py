"""Look for secrets, however spelt, in all that a Dask cluster shows or stores."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
import logging
import os
import pickle
import re
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml
from bokeh.client import pull_session
from distributed import Client

from deploy.local import servers

PIECE = 8
"""Bytes of a secret that count as a leak: a repr may have been cut. By chance they do not occur."""


_TESTS = str(Path(__file__).parent)
_PAGES_OF_TASKS = 30


@dataclass(frozen=True)
class Secret:
    """What must not show, under a name that may."""

    name: str
    value: bytes = field(repr=False)

    def pieces(self) -> dict[bytes, str]:
        """Every way to write a stretch of the secret, with the name of the way.

        In whatever way 15 bytes in a row are written, one of these stands in it.
        """
        cut = [self.value[at : at + PIECE] for at in range(0, len(self.value) - PIECE + 1, PIECE)]
        ways: dict[str, Iterable[bytes]] = {
            "base64": _base64_pieces(self.value, b"+/"),
            "base64 for URLs": _base64_pieces(self.value, b"-_"),
            "a URL": (quote(piece, safe="").encode() for piece in cut),
            "decimals": (_decimals(piece, sep) for piece in cut for sep in ("", ",")),
            "escaped text": (repr(piece.decode("latin-1"))[1:-1].encode() for piece in cut),
            "escaped bytes": (repr(piece)[2:-1].encode() for piece in cut),
            "UTF-8": (piece.decode("latin-1").encode() for piece in cut),
            "UTF-16": (piece.decode("latin-1").encode("utf-16-le") for piece in cut),
            "HEX": (piece.hex().upper().encode() for piece in cut),
            "hex": (piece.hex().encode() for piece in cut),
            "itself": cut,
        }
        return {piece: way for way, pieces in ways.items() for piece in pieces}


def _decimals(piece: bytes, separator: str) -> bytes:
    return separator.join(map(str, piece)).encode()


def _base64_pieces(secret: bytes, altchars: bytes) -> Iterable[bytes]:
    """Cut the base64 of `secret` as it is at each of the three offsets in a longer text."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + secret, altchars=altchars).rstrip(b"=")
        inner = text[-(-before * 8 // 6) : -1]  # without what the neighbours have a part in
        yield from (inner[at : at + 11] for at in range(0, len(inner) - 10, 11))


_BLANK = re.compile(rb"(\\n)?\s+")
_ESCAPES = re.compile(rb"\\+")
_HEX_ESCAPE = re.compile(rb"\\x[0-9a-fA-F]{2}")


def normal_forms(data: bytes) -> set[bytes]:
    """Return `data`, and what is left of it without blanks, nested escapes and their case."""
    joined = _BLANK.sub(b"", data)
    return {data, joined, *(_unescaped(one) for one in (data, joined) if b"\\\\" in one)}


def _unescaped(data: bytes) -> bytes:
    return _HEX_ESCAPE.sub(lambda found: found[0].lower(), _ESCAPES.sub(rb"\\", data))


@dataclass(frozen=True)
class Leak:
    """A secret was found; its value is not told again."""

    secret: str
    way: str
    place: str


def leaks(places: Mapping[str, bytes], secrets: Iterable[Secret]) -> set[Leak]:
    """Return where which secret shows, and in which way.

    Byte by byte, and faster than a search for each of some thousand pieces: of what begins with
    three bytes as a piece does, the first eight are looked up among those of the pieces.
    """
    wanted: dict[int, list[tuple[bytes, str, str]]] = {}
    for secret in secrets:
        for piece, way in secret.pieces().items():
            first = int.from_bytes(piece[:PIECE], "little")
            wanted.setdefault(first, []).append((piece, secret.name, way))
    firsts = np.array(sorted(wanted), dtype=np.uint64)
    promising = np.zeros(2**24, dtype=bool)
    promising[(firsts & np.uint64(2**24 - 1)).astype(np.int64)] = True
    return {
        Leak(name, way, place)
        for place, data in places.items()
        for text in normal_forms(data)
        for at, first in _candidates(text, firsts, promising)
        for piece, name, way in wanted[first]
        if text.startswith(piece, at)
    }


def _candidates(text: bytes, firsts: Any, promising: Any) -> Iterator[tuple[int, int]]:
    if len(text) < PIECE:
        return
    data = np.frombuffer(text, dtype=np.uint8)
    end = len(data) - PIECE + 1
    low, middle, high = (data[at : end + at].astype(np.int32) << 8 * at for at in range(3))
    at = np.flatnonzero(promising[low | middle | high])
    words = np.lib.stride_tricks.sliding_window_view(data, PIECE)[at].copy().view("<u8")[:, 0]
    found = np.isin(words, firsts)
    yield from zip(at[found].tolist(), words[found].tolist(), strict=True)


def shown(thing: Any) -> str:
    """Return everything that an object says of itself, in one text."""
    texts = [repr(thing), str(thing), f"{thing}"]
    for name in ("_repr_html_", "_repr_mimebundle_"):
        if (method := getattr(thing, name, None)) is not None:
            texts.append(repr(method()))
    return "\n".join(dict.fromkeys(texts))


def shown_error(error: BaseException) -> str:
    """Return all that an error report can hold: notes, causes, and the locals of every frame."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_TESTS):
        trace = trace.tb_next  # a caller of ours, who has the keys
    captured = traceback.TracebackException(type(error), error, trace, capture_locals=True)
    return "\n".join([shown(error), repr(error.args), "".join(captured.format())])


def pickled(thing: Any) -> bytes:
    """Return the pickle, or the reason why there is none."""
    try:
        return pickle.dumps(thing)
    except Exception as error:  # noqa: BLE001 - that too is something that shows
        return repr(error).encode()


def cluster_views(client: Client, folder: Path) -> dict[str, bytes]:
    """Collect what a client can ask of a cluster: dumps, stories, call stacks, events, logs."""
    keys = _task_keys(client)
    asked: dict[str, Callable[[], Any]] = {
        "scheduler info": lambda: client.scheduler_info(n_workers=-1),
        "processing": client.processing,
        "has_what": client.has_what,
        "who_has": client.who_has,
        "call stack": client.call_stack,
        "call stack of keys": lambda: client.call_stack(keys=keys) if keys else None,
        "task stream": client.get_task_stream,
        "story": lambda: client.story(*keys),
        "metadata": lambda: client.run_on_scheduler(_metadata),
        "events": client.get_events,
        "scheduler logs": client.get_scheduler_logs,
        "worker logs": client.get_worker_logs,
        "nanny logs": lambda: client.get_worker_logs(nanny=True),
        "versions": client.get_versions,
        "profile": client.profile,
        "scheduler tasks": lambda: client.run_on_scheduler(scheduler_tasks),
        "worker tasks": lambda: client.run(worker_tasks),
    }
    views = {name: repr(ask()).encode() for name, ask in asked.items()}
    for name, options in {"dump": {}, "whole dump": {"exclude": ()}}.items():
        path = str(folder / name)
        client.dump_cluster_state(path, format="msgpack", **options)
        views[f"{name} in msgpack"] = gzip.decompress(Path(f"{path}.msgpack.gz").read_bytes())
    return views


def yaml_dump(client: Client, folder: Path) -> bytes:
    """Return the cluster dump as YAML, which takes some seconds."""
    client.dump_cluster_state(str(folder / "dump"), format="yaml")
    dump = (folder / "dump.yaml").read_bytes()
    assert isinstance(yaml.load(dump, Loader=yaml.CSafeLoader), dict)
    return dump


def _task_keys(client: Client) -> list[Any]:
    found: list[Any] = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
    return found


def _metadata(dask_scheduler: Any) -> str:
    return repr((dask_scheduler.task_metadata, dask_scheduler.extensions))


def scheduler_tasks(dask_scheduler: Any) -> list[str]:
    """Return all that the scheduler's tasks say of themselves; Dask fills in the scheduler."""
    return [
        repr((task.key, task.run_spec, task.annotations, task.metadata, task.exception_text))
        for task in dask_scheduler.tasks.values()
    ]


def worker_tasks(dask_worker: Any) -> list[str]:
    """Return all that a worker's tasks and results say of themselves."""
    tasks = [
        repr((task, task.run_spec, task.annotations, task.exception_text))
        for task in dask_worker.state.tasks.values()
    ]
    stories = repr(dask_worker.state.story(*dask_worker.state.tasks))
    return [*tasks, stories, repr(dict(dask_worker.data))]


def pickled_results(dask_worker: Any) -> bytes:
    """Return every result that a worker holds, as it would be sent or spilled."""
    return b"".join(pickle.dumps(value) for value in dict(dask_worker.data).values())


def pickled_tasks(dask_scheduler: Any) -> bytes:
    """Return every task that the scheduler holds, as it is sent to a worker."""
    return b"".join(pickle.dumps(task.run_spec) for task in dask_scheduler.tasks.values())


@dataclass(frozen=True)
class Fingerprint:
    """What it takes to recognize a secret, and not to know it."""

    prefix: bytes
    size: int
    sha256: bytes

    @classmethod
    def of(cls, secret: Secret) -> Fingerprint:
        digest = hashlib.sha256(secret.value).digest()
        return cls(secret.value[:PIECE], len(secret.value), digest)

    def is_in(self, data: bytes) -> bool:
        at = data.find(self.prefix)
        while at >= 0:
            if hashlib.sha256(data[at : at + self.size]).digest() == self.sha256:
                return True
            at = data.find(self.prefix, at + 1)
        return False


def in_memory(sought: Mapping[str, Fingerprint]) -> set[str]:
    """Return the names of those secrets that the memory of this process has somewhere.

    They come as fingerprints: to hand the secrets over would put them there.
    """
    found: set[str] = set()
    with open("/proc/self/mem", "rb", 0) as memory:
        for start, end in _resident():
            with suppress(OSError):  # unmapped meanwhile
                data = os.pread(memory.fileno(), end - start, start)
                found |= {name for name, mark in sought.items() if mark.is_in(data)}
    return found


def _resident() -> Iterator[tuple[int, int]]:
    """Return the spans of writable memory that are there: allocators reserve far more.

    As in https://docs.kernel.org/admin-guide/mm/pagemap.html.
    """
    size = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/maps") as maps, open("/proc/self/pagemap", "rb", 0) as pages:
        for line in maps.readlines():
            addresses, mode = line.split()[:2]
            if not mode.startswith("rw"):
                continue
            start, end = (int(address, 16) // size for address in addresses.split("-"))
            entries = os.pread(pages.fileno(), 8 * (end - start), 8 * start)
            present = np.frombuffer(entries, dtype=np.uint64) >> np.uint64(62) > 0
            edges = np.flatnonzero(np.diff(present, prepend=False, append=False)) + start
            yield from ((int(at) * size, int(to) * size) for at, to in edges.reshape(-1, 2))


def dashboards(client: Client, url: str) -> dict[str, bytes]:
    """Fetch every page of the dashboards of the scheduler and the workers.

    Which there are, the servers are asked in person: their ``/sitemap.json`` fails.
    """
    info = client.scheduler_info(n_workers=-1)["workers"]
    running = [key for keys in client.processing().values() for key in keys]
    tasks = [*running, *_task_keys(client)][:_PAGES_OF_TASKS]
    names = [quote(str(name), safe="") for name in [*info, *tasks]]
    pages = _fetch_all(url, client.run_on_scheduler(routes), names)
    for address, paths in client.run(worker_routes).items():
        port = info[address]["services"]["dashboard"]
        pages |= _fetch_all(f"http://{servers.HOST}:{port}", paths, ())
    return pages


def routes(dask_scheduler: Any) -> list[str]:
    """Return the paths that a server answers, with gaps; Dask fills in the scheduler."""
    main = dask_scheduler.http_application
    paths = {path for each in main.applications for path in getattr(each, "app_paths", ())}
    routers = [main.default_router, main.wildcard_router]
    for router in routers:
        for rule in router.rules:
            if hasattr(rule.matcher, "regex"):
                paths.add(rule.matcher.regex.pattern.removesuffix("$"))
            if hasattr(rule.target, "rules"):
                routers.append(rule.target)
    return sorted(path for path in paths if path.startswith("/"))


def worker_routes(dask_worker: Any) -> list[str]:
    """As :func:`routes`, of a worker."""
    return routes(dask_worker)


def _fetch_all(url: str, paths: Iterable[str], names: Iterable[str]) -> dict[str, bytes]:
    """Fetch the pages; a gap in a path is filled with each of the names."""
    filled = set()
    for path in paths:
        if path.count("(") == 0:
            filled.add(path)
        elif path.startswith("/info"):
            filled |= {path.replace("(.*)", name) for name in names}
    return {url + path: _fetch(url + path) for path in filled if not path.endswith("eventstream")}


def _fetch(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


def bokeh_documents(url: str, pages: Iterable[str]) -> dict[str, bytes]:
    """Return what the dashboard sends a browser over its websocket, page by page."""
    documents = {}
    for page in pages:
        asyncio.set_event_loop(asyncio.new_event_loop())
        session = pull_session(url=f"{url}/{page}")
        try:
            documents[page] = json.dumps(session.document.to_json(), default=repr).encode()
        finally:
            session.close()
    return documents


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of every file, also of one that is written or removed meanwhile."""
    found = {}
    for inside, _, names in os.walk(folder):  # which looks past folders that go meanwhile
        for file in (Path(inside, name) for name in names):
            with suppress(FileNotFoundError):
                if file.is_file():
                    found[str(file)] = file.read_bytes()
    return found


class _Everything(logging.Handler):
    """Keeps messages and, whatever becomes of them, their arguments."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kept = io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.write(f"{record.name}: {record.getMessage()} {record.args!r}\n")
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.kept.write("".join(traceback.format_exception(record.exc_info[1])))


@contextmanager
def logs_of_this_process() -> Iterator[io.StringIO]:
    """Collect all that is logged here, at DEBUG."""
    handler = _Everything()
    loggers = [logging.getLogger(name) for name in ("", "distributed")]  # which does not propagate
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield handler.kept
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)

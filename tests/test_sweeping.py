"""The sweep itself: it finds what is planted, wherever and however that is written."""

from __future__ import annotations

import base64
import json
import logging
import pickle
from pathlib import Path
from secrets import token_bytes
from typing import Any

import pytest
import yaml
from distributed import Client, get_worker, wait

from deploy.local import servers
from tests import sweeping
from tests.sweeping import Fingerprint, Secret, in_memory, leaks

SECRET = Secret("planted", token_bytes(32))

SPELLINGS = {
    "raw": lambda key: b"..." + key + b"...",
    "hex": lambda key: key.hex().encode(),
    "HEX": lambda key: key.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64, one byte later": lambda key: base64.b64encode(b"x" + key + b"y"),
    "base64, two bytes later": lambda key: base64.b64encode(b"xy" + key + b"z"),
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64 in lines": lambda key: base64.encodebytes(bytes(40) + key),
    "list": lambda key: repr(list(key)).encode(),
    "tuple without blanks": lambda key: str(tuple(key)).replace(" ", "").encode(),
    "column of numbers": lambda key: "\n".join(map(str, key)).encode(),
    "repr of bytes": lambda key: repr({"key": key}).encode(),
    "repr of a repr": lambda key: repr(repr([repr(key)])).encode(),
    "repr of text": lambda key: repr(key.decode("latin-1")).encode(),
    "JSON": lambda key: json.dumps({"key": key.hex()}).encode(),
    "UTF-8": lambda key: key.decode("latin-1").encode(),
    "UTF-16": lambda key: key.decode("latin-1").encode("utf-16-le"),
    "YAML": lambda key: yaml.dump({"key": key}).encode(),
    "pickle": lambda key: pickle.dumps({"key": key}),
    "the first half": lambda key: repr(key[:16])[:-1].encode(),
    "the middle": lambda key: key[9:24].hex().encode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_found(spelling: str) -> None:
    """Raw, hex, base64 at any offset, numbers, escapes of escapes, and pieces of these."""
    for _ in range(50):
        secret = Secret("planted", token_bytes(32))
        data = b"x" * 1000 + SPELLINGS[spelling](secret.value) + b"x" * 1000
        assert {leak.secret for leak in leaks({"here": data}, [secret, SECRET])} == {"planted"}
        assert leaks({"here": data}, [SECRET]) == set()


def test_answers_do_not_leak() -> None:
    """Neither the repr of a secret nor that of a leak has it."""
    found = leaks({"here": SECRET.value}, [SECRET])
    assert leaks({"there": repr((SECRET, found)).encode()}, [SECRET]) == set()


def test_memory_is_searched() -> None:
    """A secret that this process holds is found by its fingerprint, and another is not."""
    held = Secret("held", token_bytes(32))
    other = Fingerprint(token_bytes(8), 32, token_bytes(32))
    assert in_memory({"held": Fingerprint.of(held), "other": other}) == {"held"}


def leak(key: bytes) -> bytes:
    """Do all that a task with a key must not do."""
    logging.getLogger("distributed.worker").warning("the key is %s", key.hex())
    get_worker().log_event("canary", {"key": list(key)})
    return key


def fail_with(key: bytes) -> None:
    raise ValueError(base64.b64encode(key).decode())


def test_leaks_of_a_cluster_are_found(
    client: Client, cluster: servers.Cluster, tmp_path: Path
) -> None:
    """A key in an argument, a result, a log, an event and an exception shows where it should."""
    futures: list[Any] = [client.submit(function, SECRET.value) for function in (leak, fail_with)]
    wait(futures)
    url = str(cluster.dashboard_url).removesuffix("/status")
    places = sweeping.cluster_views(client, tmp_path)
    places |= {"dump in YAML": sweeping.yaml_dump(client, tmp_path)}
    places |= sweeping.dashboards(client, url)
    places |= sweeping.bokeh_documents(url, ["exceptions"])
    places |= sweeping.files_below(cluster.run)
    places["error"] = sweeping.shown_error(futures[1].exception()).encode()
    found = {one.place for one in leaks(places, [SECRET])}
    assert {"events", "worker logs", "scheduler tasks", "worker tasks", "error"} <= found
    assert {"dump in msgpack", "whole dump in msgpack", "dump in YAML", "exceptions"} <= found
    assert any(place.endswith("workers.log") for place in found)
    assert any("/info/logs/" in place for place in found)
    assert any("/info/main/exceptions.html" in place for place in found)

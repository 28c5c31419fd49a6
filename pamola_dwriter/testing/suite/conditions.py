"""Promises about conditions: the manifest that makes a commit, and updates that all count."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pamola_dwriter import layout
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.testing.suite.base import MANIFEST, RACERS, Opener, Promises, at_once

_FILE = "metrics/run.json"


class ConditionPromises(Promises):
    """Of many writers that expect the same version exactly one wins; updates lose nothing."""

    def test_store_says_whether_it_is_atomic(self, store: Store) -> None:
        """A store says yes or no, not maybe."""
        assert store.atomic in (True, False)

    def test_manifest_is_created_by_one_of_many(self, opener: Opener) -> None:
        """Of eight creators at once exactly one succeeds, and its bytes stand."""
        _race(opener, MANIFEST, None)
        assert opener().listdir("") == [MANIFEST]

    def test_manifest_is_replaced_by_one_of_many(self, opener: Opener) -> None:
        """Of eight that replace the same version exactly one succeeds, and its bytes stand."""
        store = opener()
        store.put_if(MANIFEST, b"first", None)
        present = store.read_versioned(MANIFEST)
        assert present is not None
        _race(opener, MANIFEST, present.version)

    def test_manifest_is_replaced_only_if_unchanged(self, store: Store) -> None:
        """A stale version, or one where there is none, is a conflict that changes nothing."""
        assert store.read_versioned(MANIFEST) is None
        with pytest.raises(VersionConflict):
            store.put_if(MANIFEST, b"zero", '"0123456789abcdef0123456789abcdef"')
        assert not store.is_file(MANIFEST)
        store.put_if(MANIFEST, b"one", None)
        first = store.read_versioned(MANIFEST)
        assert first is not None
        assert first.data == b"one"
        store.put_if(MANIFEST, b"two", first.version)
        for stale in (first.version, None):
            with pytest.raises(VersionConflict):
                store.put_if(MANIFEST, b"three", stale)
        assert store.read(MANIFEST) == b"two"

    def test_removed_manifest_is_not_replaced(self, store: Store) -> None:
        """A version that somebody removed meanwhile is a conflict too."""
        store.put_if(MANIFEST, b"one", None)
        first = store.read_versioned(MANIFEST)
        assert first is not None
        store.remove([MANIFEST])
        with pytest.raises(VersionConflict):
            store.put_if(MANIFEST, b"two", first.version)
        assert not store.is_file(MANIFEST)
        store.put_if(MANIFEST, b"three", None)
        assert store.read(MANIFEST) == b"three"

    def test_version_is_of_the_bytes_read(self, opener: Opener) -> None:
        """Every client sees the same version of the same bytes, and another of others."""
        store, other = opener(), opener()
        store.put(MANIFEST, b"one")
        seen = [client.read_versioned(MANIFEST) for client in (store, other, store)]
        assert seen[0] is not None
        assert seen[0] == seen[1] == seen[2]
        store.put(MANIFEST, b"two")
        again = other.read_versioned(MANIFEST)
        assert again is not None
        assert (again.data, again.version != seen[0].version) == (b"two", True)

    def test_update_makes_and_changes_a_file(self, store: Store) -> None:
        """An update is given None for an absent file, then what stands, and says what it wrote."""
        given: list[bytes | None] = []

        def change(data: bytes | None) -> bytes:
            given.append(data)
            return (data or b"") + b"x"

        assert [store.update(_FILE, change) for _ in range(3)] == [b"x", b"xx", b"xxx"]
        assert given == [None, b"x", b"xx"]
        assert store.read(_FILE) == b"xxx"
        assert store.listdir(layout.STAGING) == []

    def test_failing_change_is_passed_on(self, store: Store) -> None:
        """Whatever a change raises comes out as it is, changes nothing and blocks nobody."""
        store.put(_FILE, b"old")
        with pytest.raises(ZeroDivisionError):
            store.update(_FILE, lambda data: b"%d" % (1 // 0))
        assert store.read(_FILE) == b"old"
        assert store.update(_FILE, lambda data: b"new") == b"new"

    def test_file_of_somebody_else_can_be_updated(self, store: Store) -> None:
        """A file that was put whole is updated like any other, and can be put again."""
        for item in ("a", "b"):
            store.put(_FILE, b'["put"]')
            store.update(_FILE, _appended(item))
            assert json.loads(store.read(_FILE)) == ["put", item]

    def test_updates_at_once_lose_nothing(self, opener: Opener) -> None:
        """Eight clients that append at once leave every item exactly once."""

        def append(who: int) -> None:
            client = opener()
            for number in range(6):
                client.update(_FILE, _appended(f"{who}-{number}"))

        at_once(append, range(RACERS))
        found = json.loads(opener().read(_FILE))
        wanted = [f"{who}-{number}" for who in range(RACERS) for number in range(6)]
        assert sorted(found) == sorted(wanted)

    def test_file_made_during_an_update_is_kept(self, store: Store) -> None:
        """When a file appears between reading and writing, the change is made to that file."""
        made: list[bytes | None] = []

        def change(data: bytes | None) -> bytes:
            if not made:
                store.put_if(_FILE, b"theirs", None)
            made.append(data)
            return (data or b"") + b"+ours"

        assert store.update(_FILE, change) == b"theirs+ours"
        assert made == [None, b"theirs"]


def _race(opener: Opener, path: str, expected: str | None) -> None:
    """Let several clients write on the same condition; exactly one may succeed."""

    def attempt(number: int) -> bool:
        try:
            clients[number].put_if(path, b"%d" % number, expected)
        except VersionConflict:
            return False
        return True

    clients = [opener() for _ in range(RACERS)]
    won = at_once(attempt, range(RACERS))
    assert won.count(True) == 1, f"{won.count(True)} of {RACERS} racers believe they wrote {path}"
    assert clients[0].read(path) == b"%d" % won.index(True)


def _appended(item: str) -> Callable[[bytes | None], bytes]:
    """Return a change that adds one item to a JSON list."""

    def change(data: bytes | None) -> bytes:
        return json.dumps([*json.loads(data or b"[]"), item]).encode()

    return change

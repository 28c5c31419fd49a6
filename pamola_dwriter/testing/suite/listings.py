"""Promises that garbage collection and resuming stand on: what lies there, since when."""

from __future__ import annotations

import pytest

from pamola_dwriter import layout
from pamola_dwriter.contracts import Found, Store
from pamola_dwriter.testing.suite.base import (
    DATASET,
    OTHER,
    WRITE,
    Opener,
    Promises,
    part_path,
    publish,
    stage,
)


class ListingPromises(Promises):
    """A survey misses nothing and says when it was, by the store's own clock."""

    def test_survey_of_nothing_is_empty(self, store: Store) -> None:
        """Where nothing was ever written, nothing is found."""
        assert store.survey("") == store.survey("absent/too") == []

    def test_survey_finds_every_file(self, store: Store) -> None:
        """All files are found, at any depth, by their paths in the task directory."""
        publish(store, part_path(directory=f"{DATASET}/country=FR"))
        for path in ("x.json", f"{DATASET}/_manifest.json"):
            store.put(path, b"1")
        store.note(f"{layout.STAGING}/w/note", b"1")
        found = store.survey("")
        assert all(each.upload is None for each in found)
        assert sorted(each.path for each in found) == store.listdir("")
        assert len(found) == 4
        assert {each.path for each in store.survey(DATASET)} == {
            f"{DATASET}/_manifest.json",
            part_path(directory=f"{DATASET}/country=FR"),
        }

    def test_survey_finds_what_is_staged(self, store: Store) -> None:
        """A staged part or file is found, as a file or as an upload, and after that gone."""
        tokens = {part_path(): stage(store, part_path())}
        assert len(store.survey("")) == 1
        tokens["output/x.csv"] = stage(store, "output/x.csv")
        assert len(store.survey("")) == 2
        store.publish(tokens)
        store.sweep_staged(WRITE)
        found = store.survey("")
        assert [each.upload for each in found] == [None, None]
        assert {each.path for each in found} == {part_path(), "output/x.csv"}

    def test_times_are_of_the_stores_clock(self, store: Store) -> None:
        """Whatever is made between two looks at the clock was made between those times."""
        began = store.now()
        store.put("x.json", b"1")
        store.note(f"{layout.STAGING}/w/note", b"1")
        publish(store, part_path())
        stage(store, part_path(1))
        ended = store.now()
        found = store.survey("")
        assert len(found) == 4
        for each in found:
            assert began - self.clock_step <= each.modified <= ended + self.clock_step, each

    def test_clock_leaves_no_trace(self, opener: Opener) -> None:
        """Asking for the time writes nothing that stays, and all clients are told the same one."""
        times = [client.now() for client in (opener(), opener(), opener())]
        assert times == sorted(times)
        assert opener().survey("") == []

    def test_replaced_file_is_new_again(self, store: Store) -> None:
        """The time of a file is that of its last change: a sign of life that is repeated counts."""
        store.put("x.json", b"1")
        store.put("y.json", b"1")
        before = store.now()
        store.put("x.json", b"2")
        (found,) = (each for each in store.survey("") if each.path == "x.json")
        assert found.modified >= before - self.clock_step

    def test_discard_takes_exactly_what_it_is_given(self, store: Store) -> None:
        """Files and uploads are discarded, the rest stays, and what is gone is passed over."""
        store.put("x.json", b"1")
        publish(store, part_path(0, OTHER), b"1", OTHER)
        kept = {each.path for each in store.survey("")}
        token = stage(store, part_path())
        stage(store, "output/x.csv")
        store.note(f"{layout.STAGING}/{WRITE}/note", b"1")
        garbage = [each for each in store.survey("") if each.path not in kept]
        assert len(garbage) == 3
        for _ in range(2):
            store.discard(garbage)
            assert {each.path for each in store.survey("")} == kept
        with pytest.raises(OSError, match=r".*"):
            store.publish({part_path(): token})
        store.discard([Found(path="absent/x.json", modified=0.0)])
        store.discard([])

    def test_staged_parts_are_found_again(self, opener: Opener) -> None:
        """Who resumes a write learns which parts can be published, or are; and no others."""
        store = opener()
        paths = [part_path(number) for number in range(4)]
        staged = {path: stage(store, path) for path in paths}
        assert opener().find_staged(DATASET, staged) == set(paths)
        store.publish({paths[0]: staged[paths[0]]})
        assert opener().find_staged(DATASET, staged) == set(paths)
        store.remove([paths[0]])
        assert opener().find_staged(DATASET, staged) == set(paths[1:])
        store.sweep(DATASET, {WRITE}, {paths[2].rpartition("/")[2]})
        assert opener().find_staged(DATASET, staged) <= {paths[2]}
        assert opener().find_staged(DATASET, {}) == set()

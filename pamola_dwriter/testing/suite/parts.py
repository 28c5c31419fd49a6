"""Promises about parts: staged, published, swept."""

from __future__ import annotations

from contextlib import suppress

import pytest

from pamola_dwriter import layout
from pamola_dwriter.contracts import Store, VersionConflict
from pamola_dwriter.testing.suite.base import (
    DATASET,
    MANIFEST,
    OTHER,
    WRITE,
    Opener,
    Promises,
    at_once,
    meanwhile,
    part_path,
    publish,
    stage,
)

_REQUEST = 5 * 2**20
"""Bytes in one request of a multipart upload, at least: S3 takes no smaller ones."""


class PartPromises(Promises):
    """What is staged is durable, counts for nothing until published, and can be swept."""

    @pytest.mark.parametrize("size", [0, 1, _REQUEST, 2 * _REQUEST + 1])
    def test_published_bytes_are_the_staged_ones(self, store: Store, size: int) -> None:
        """Whatever the size, what is published is what was staged, and can be read in ranges."""
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        publish(store, part_path(), data)
        assert store.is_file(part_path())
        assert store.size(part_path()) == size
        assert store.read(part_path()) == data
        if size > 1:
            assert store.read(part_path(), 1, 9) == data[1:9]
            assert store.read(part_path(), size - 1, size) == data[-1:]
        with store.open(part_path()) as file:
            assert file.read() == data

    def test_file_opened_is_read_from_any_place(self, store: Store) -> None:
        """An open file seeks, forth, back and from its end."""
        publish(store, part_path(), bytes(range(100)))
        with store.open(part_path()) as file:
            assert (file.seek(40), file.read(2)) == (40, b"\x28\x29")
            assert (file.seek(-1, 2), file.read()) == (99, b"\x63")
            assert (file.seek(3), file.read(1)) == (3, b"\x03")

    def test_publishing_again_changes_nothing(self, opener: Opener) -> None:
        """A second finalize, perhaps in another process, publishes the same parts in peace."""
        store = opener()
        token = stage(store, part_path(), b"x,y\n")
        for client in (store, store, opener()):
            client.publish({part_path(): token})
        assert store.read(part_path()) == b"x,y\n"
        assert store.listdir(layout.STAGING) == []

    def test_publishing_goes_on_where_it_was_broken_off(self, store: Store) -> None:
        """When some parts of several are published already, the rest follow."""
        paths = [part_path(number) for number in range(5)]
        staged = {path: stage(store, path, path.encode()) for path in paths}
        store.publish({paths[1]: staged[paths[1]], paths[3]: staged[paths[3]]})
        store.publish(staged)
        assert [store.read(path) for path in paths] == [path.encode() for path in paths]

    def test_nothing_can_be_published(self, store: Store) -> None:
        """Publishing no part at all is no error, and makes nothing."""
        store.publish({})
        assert store.survey("") == []

    def test_staged_part_is_invisible_where_the_store_can(self, store: Store) -> None:
        """A part shows in the dataset once it is published, and not before."""
        stage(store, part_path())
        visible = [part_path().rpartition("/")[2]] if self.shows_staged_parts else []
        assert store.listdir(DATASET) == visible

    def test_parts_are_staged_side_by_side(self, opener: Opener) -> None:
        """Parts that many clients stage at once are published together, none lost or mixed."""
        paths = [part_path(number) for number in range(8)]
        tokens = at_once(lambda path: stage(opener(), path, path.encode()), paths)
        store = opener()
        store.publish(dict(zip(paths, tokens, strict=True)))
        assert [store.read(path) for path in paths] == [path.encode() for path in paths]
        assert len(store.listdir(DATASET)) == len(paths)

    def test_sweep_removes_what_one_write_staged_or_published(self, store: Store) -> None:
        """Sweeping a write takes its parts, kept ones excepted, and leaves those of others."""
        kept, foreign = part_path(1), part_path(0, OTHER)
        for path, write_id in ((part_path(), WRITE), (kept, WRITE), (foreign, OTHER)):
            publish(store, path, b"1", write_id)
        nested = part_path(3, directory=f"{DATASET}/country=FR")
        publish(store, nested)
        stage(store, part_path(2), b"2")
        stage(store, "output/single.csv", b"3")
        names = sorted(path.rpartition("/")[2] for path in (kept, foreign))
        for _ in range(2):
            store.sweep(DATASET, {WRITE}, {kept.rpartition("/")[2]})
            assert store.listdir(DATASET) == names
            assert [found.path for found in store.survey(layout.STAGING)] == []
            assert {found.path for found in store.survey("")} == {kept, foreign}

    def test_sweep_leaves_the_neighbours(self, store: Store) -> None:
        """A sweep ends at its directory: one whose name only begins so keeps its parts."""
        beside = part_path(directory=f"{DATASET}d")
        token = stage(store, part_path(1, directory=f"{DATASET}d"))
        publish(store, beside)
        store.put(f"{DATASET}.json", b"1")
        store.sweep(DATASET, {OTHER}, ())
        store.sweep("output/x", {OTHER}, ())
        store.publish({part_path(1, directory=f"{DATASET}d"): token})
        assert len(store.listdir("output")) == 3

    def test_sweep_of_another_write_leaves_what_is_staged(self, opener: Opener) -> None:
        """What a write staged can be published after the sweeps of others in the same dataset."""
        store = opener()
        token = stage(store, part_path(), b"kept")
        opener().sweep(DATASET, {OTHER}, ())
        opener().sweep_staged(OTHER)
        store.publish({part_path(): token})
        assert store.read(part_path()) == b"kept"

    def test_writers_survive_the_sweeps_of_others(self, opener: Opener) -> None:
        """While others sweep a dataset, and its folders with it, every part still gets there."""
        store, other = opener(), opener()
        with meanwhile(lambda: other.sweep(DATASET, {OTHER}, ())):
            for number in range(20):
                path = part_path(number, directory=f"{DATASET}/country=FR")
                publish(store, path)
                store.put(MANIFEST, b"x")
                store.remove([path, MANIFEST])

    def test_swept_part_cannot_be_published(self, store: Store) -> None:
        """A late commit of a write that was given up and swept is an error, not half a dataset."""
        staged = {path: stage(store, path) for path in (part_path(0), part_path(1))}
        store.sweep(DATASET, {WRITE}, ())
        with pytest.raises(OSError, match=r".*"):
            store.publish(staged)
        assert store.survey("") == []

    def test_late_publication_meets_a_sweep(self, opener: Opener) -> None:
        """A worker that was cut off, and publishes while its write is swept, leaves nothing."""
        store, late = opener(), opener()
        for number in range(5):
            path = part_path(number)
            staged = {path: stage(store, path)}

            def publish_late(staged: dict[str, str] = staged) -> None:
                with suppress(OSError):
                    late.publish(staged)

            with meanwhile(publish_late):
                store.sweep(DATASET, {WRITE}, ())
            assert store.survey("") == []

    def test_single_file_is_published_whole(self, store: Store) -> None:
        """A single file is absent until published, and then replaced at once."""
        path = "output/single.csv"
        token = stage(store, path, b"old")
        assert not store.is_file(path)
        store.publish({path: token})
        again = stage(store, path, b"new", OTHER)
        assert store.read(path) == b"old"
        store.publish({path: again})
        assert store.read(path) == b"new"

    def test_single_file_of_others_is_kept(self, store: Store) -> None:
        """Without `overwrite` a file that stands already is a conflict, and stays."""
        path = "output/single.csv"
        publish(store, path, b"old")
        token = stage(store, path, b"no", OTHER)
        with pytest.raises(VersionConflict):
            store.publish({path: token}, overwrite=False)
        assert store.read(path) == b"old"

    def test_single_file_is_created_once_by_two_runs(self, store: Store) -> None:
        """A finalize that died after creating its file, and is run again, finds it its own."""
        path = "output/single.csv"
        token = stage(store, path, b"mine")
        store.publish({path: token}, overwrite=False)
        store.publish({path: token}, overwrite=False)
        assert store.read(path) == b"mine"

    def test_single_file_is_swept(self, store: Store) -> None:
        """Sweeping a write takes the single file it staged, and those of no other."""
        stage(store, "output/single.csv", b"1")
        token = stage(store, "output/other.csv", b"2", OTHER)
        store.sweep_staged(WRITE)
        store.sweep_staged(WRITE)
        store.publish({"output/other.csv": token})
        store.sweep_staged(OTHER)
        assert [found.path for found in store.survey("")] == ["output/other.csv"]

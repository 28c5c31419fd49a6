"""Promises about small files: written whole, read, listed, removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pamola_dwriter.contracts import Store
from pamola_dwriter.testing.suite.base import MANIFEST, Opener, Promises, meanwhile

_NAMES = (
    "a b.json",
    "a+b&c=d#e.json",
    "a[1].json",
    "a1.json",
    "d/city=S%C3%A3o%20Paulo/x.csv",
    "é.json",
)
"""Names that something on the way may take for a pattern, an escape or the end of a URL."""


class FilePromises(Promises):
    """A file is there whole or not at all, under exactly its name."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda store, path: store.read(path),
            lambda store, path: store.read(path, 0, 1),
            lambda store, path: store.size(path),
            lambda store, path: store.open(path).read(),
        ],
        ids=["read", "range", "size", "open"],
    )
    def test_absent_file_is_file_not_found(
        self, store: Store, call: Callable[[Store, str], object]
    ) -> None:
        """Reading what is not there is FileNotFoundError on every store."""
        store.put("there/x.json", b"1")
        for path in ("absent", "absent/x.json", "there/y.json"):
            with pytest.raises(FileNotFoundError):
                call(store, path)

    def test_absent_file_is_no_file(self, store: Store) -> None:
        """Neither what is absent nor a folder is a file, and an absent directory is empty."""
        store.put("there/x.json", b"1")
        assert store.is_file("there/x.json")
        absent = ("there", "there/y.json", "absent/x.json")
        assert not any(map(store.is_file, absent))
        assert store.files_among([*absent, "there/x.json"]) == {"there/x.json"}
        assert store.listdir("absent") == []
        assert store.read_versioned("absent/x.json") is None

    def test_odd_names_are_kept(self, store: Store) -> None:
        """Every name is written, listed, read, measured and removed as it is."""
        for name in _NAMES:
            store.put(f"output/{name}", name.encode())
        assert store.listdir("output") == sorted(_NAMES)
        assert [store.read(f"output/{name}").decode() for name in _NAMES] == list(_NAMES)
        assert sum(store.size(f"output/{name}") for name in _NAMES) == sum(
            len(name.encode()) for name in _NAMES
        )
        assert {found.path for found in store.survey("output")} == {f"output/{n}" for n in _NAMES}
        store.remove([f"output/{name}" for name in _NAMES])
        assert store.listdir("") == []

    def test_listing_ends_at_its_directory(self, store: Store) -> None:
        """A listing holds what is below its directory, and no name that only begins like it."""
        for path in ("d/x.json", "d/e/y.json", "dd/z.json", "d.json"):
            store.put(path, b"1")
        assert store.listdir("d") == ["e/y.json", "x.json"]
        assert {found.path for found in store.survey("d")} == {"d/e/y.json", "d/x.json"}
        assert store.listdir("") == ["d.json", "d/e/y.json", "d/x.json", "dd/z.json"]

    def test_put_replaces(self, store: Store) -> None:
        """A small file is replaced as a whole, also by a shorter one or an empty one."""
        for data in (b"longer", b"short", b""):
            store.put("output/x.json", data)
            assert store.read("output/x.json") == data
        assert store.listdir("") == ["output/x.json"]

    def test_note_is_read_back(self, store: Store) -> None:
        """A note is a file like any other: read, listed and removed."""
        store.note("_staging/w/part-0.json", b"noted")
        store.note("_staging/w/part-1.json", b"")
        assert store.read("_staging/w/part-0.json") == b"noted"
        assert store.listdir("_staging/w") == ["part-0.json", "part-1.json"]
        store.remove(["_staging/w/part-0.json", "_staging/w/part-1.json"])
        assert store.survey("") == []

    def test_remove_takes_what_is_there(self, store: Store) -> None:
        """Removing takes files that exist, whatever is absent, and reads no pattern into a name."""
        for name in ("a[1].json", "a1.json", "b.json"):
            store.put(name, b"1")
        store.remove(["absent.json", "a[1].json", "absent/too.json", "b.json"])
        store.remove(())
        assert store.listdir("") == ["a1.json"]

    def test_check_of_a_new_place_leaves_no_trace(self, store: Store) -> None:
        """Whether a path can be written is found out without leaving a file or an upload."""
        store.check_writable(MANIFEST)
        store.check_writable("x.json")
        assert store.survey("") == []

    def test_made_folders_hold_nothing(self, store: Store) -> None:
        """Folders can be made twice, hold no file, and are in nobody's way."""
        for _ in range(2):
            store.make_folders(["output", "logs/run"])
        assert store.survey("") == []
        store.put("logs/run/x.json", b"1")
        assert store.listdir("logs") == ["run/x.json"]

    def test_reader_never_sees_half_a_file(self, opener: Opener) -> None:
        """While a small file is replaced again and again, a reader finds one version or another."""
        store, reader = opener(), opener()
        versions = [letter * 2**22 for letter in (b"a", b"b")]
        store.put("x.json", versions[0])

        def check() -> None:
            found = reader.read("x.json")
            assert (len(found), len(set(found))) == (2**22, 1)

        with meanwhile(check):
            for number in range(12):
                store.put("x.json", versions[number % 2])

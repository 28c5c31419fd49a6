"""rotate_keys of single files, which are sealed anew, and of all that lies below a directory."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import fsspec
import pytest
from matplotlib.figure import Figure

from pamola_dwriter import (
    DirectoryRotationReport,
    Passphrase,
    RawKey,
    collect_garbage,
    describe,
    envelope,
    keys,
    layout,
    manifest,
    open_artifact,
    rotate_keys,
    verify,
)
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataReadError,
    IntegrityError,
    InvalidKeyError,
    InvalidTargetError,
    InvalidWriteError,
    MissingKeyError,
    RotationIncompleteError,
    TargetNotFoundError,
    TargetUnavailableError,
    WrongKeyError,
)
from pamola_dwriter.keys import Cost
from pamola_dwriter.rotation import RotationReport
from pamola_dwriter.sealing import parse_file_header
from pamola_dwriter.spec import WrappedKey
from pamola_dwriter.testing import (
    Crash,
    Fault,
    assert_no_leftovers,
    inject,
)
from tests.meddling import just_before
from tests.places import Place, batch

OLD, NEW, OTHER = (bytes([number]) * 32 for number in range(3))
CHEAP = Cost(iterations=1, memory_kib=32, lanes=1)
FILE = "*/list.json.pdw"


def key_id(key: bytes) -> str:
    return RawKey(key).key_id


def words(text: str) -> Passphrase:
    return Passphrase(text, cost=CHEAP)


def file(place: Place, name: str = "list.json.pdw") -> str:
    return f"{place.root}/{name}"


def write_list(place: Place, *items: Any, key: Any = OLD, name: str = "list") -> str:
    place.writer().write_json(list(items), name, encryption_key=key)
    return f"{place.root}/{name}.json.pdw"


def load(place: Place, key: Any, name: str = "list.json.pdw") -> Any:
    with open_artifact(
        file(place, name), encryption_key=key, storage_options=place.options
    ) as opened:
        return json.loads(opened.read())


def rotate(place: Place, name: str = "list.json.pdw", key: Any = OLD, **options: Any) -> Any:
    path = f"{place.root}/{name}".rstrip("/")
    return rotate_keys(path, encryption_key=key, storage_options=dict(place.options), **options)


def key_ids(place: Place, name: str = "list.json.pdw") -> list[str]:
    facts = describe(file(place, name), storage_options=place.options)
    return [key["key_id"] for key in facts["keys"]]


def stored(place: Place, name: str = "list.json.pdw") -> bytes:
    file_system, root = fsspec.core.url_to_fs(place.root, **place.options)
    data: bytes = file_system.cat_file(f"{root}/{name}")
    return data


def put(place: Place, name: str, data: bytes) -> None:
    file_system, root = fsspec.core.url_to_fs(place.root, **place.options)
    file_system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
    file_system.pipe_file(f"{root}/{name}", data)


def opens(data: bytes, dataset_key: bytes) -> bool:
    try:
        envelope.open_sealed(data, dataset_key)
    except IntegrityError:
        return False
    return True


def dataset_key(data: bytes, key: bytes) -> bytes:
    """Return what a file is sealed under, as somebody may have kept it."""
    held = parse_file_header(envelope.read_header(lambda a, b: data[a:b]).fields)
    return keys.unwrap_any([RawKey(key)], held.wrapped, manifest.key_context(held.keyed_by))


def just_before_the_update(meddle: Callable[[], object]) -> AbstractContextManager[None]:
    """Let `meddle` happen between what is read first and the update."""
    return just_before(lambda call: call.method == "update", meddle)


def test_a_key_is_replaced(place: Place) -> None:
    """Document, frame and figure open with the new key alone, and hold what they held."""
    writer = place.writer()
    write_list(place, 1, 2)
    writer.write_dataframe(batch(0), "one", "csv", single_file=True, encryption_key=OLD)
    writer.write_visualization(Figure(), "plot", encryption_key=OLD)
    names = [name for name in place.files() if name.endswith(".pdw")]
    assert len(names) == 3
    for name in names:
        path, options = file(place, name), place.options
        with open_artifact(path, encryption_key=OLD, storage_options=options) as opened:
            plain = opened.read()
        write_id = describe(path, storage_options=options)["write_id"]
        report = rotate(place, name, to=NEW, revoke=key_id(OLD))
        assert (report.added, report.revoked) == ((key_id(NEW),), (key_id(OLD),))
        assert list(report.key_ids) == key_ids(place, name) == [key_id(NEW)]
        assert (report.write_id, report.fresh_key) == (write_id, True)
        checked = verify(path, encryption_key=NEW, storage_options=options)
        assert checked.checksum == report.checksum
        with open_artifact(path, encryption_key=NEW, storage_options=options) as opened:
            assert opened.read() == plain
        with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$"):
            open_artifact(path, encryption_key=OLD, storage_options=options)
    assert_no_leftovers(place.root, storage_options=place.options)


def test_a_key_that_somebody_kept_opens_it_no_longer(place: Place) -> None:
    """The dataset key of an old copy opens that copy, and nothing that is written since."""
    write_list(place, "secret")
    before = stored(place)
    kept = dataset_key(before, OLD)
    rotate(place, to=NEW, revoke=key_id(OLD))
    after = stored(place)
    assert opens(before, kept)
    assert not opens(after, kept)
    place.writer().append_to_json_array("more", "list", encryption_key=NEW)
    assert not opens(stored(place), kept)
    assert load(place, NEW) == ["secret", "more"]


def test_a_key_is_added(place: Place) -> None:
    """Both open it, under a fresh key, since both were given."""
    write_list(place, 1)
    kept = dataset_key(stored(place), OLD)
    report = rotate(place, to=NEW)
    assert (report.added, report.revoked, report.fresh_key) == ((key_id(NEW),), (), True)
    assert not opens(stored(place), kept)
    assert load(place, OLD) == load(place, NEW) == [1]


def test_a_key_is_added_beside_one_that_is_not_at_hand(place: Place) -> None:
    """Nobody is shut out: the file keeps its key, which the report says."""
    write_list(place, 1, key=[OLD, OTHER])
    report = rotate(place, to=NEW)
    assert (report.added, report.fresh_key) == ((key_id(NEW),), False)
    assert list(report.key_ids) == [key_id(key) for key in (OLD, OTHER, NEW)]
    assert load(place, OLD) == load(place, OTHER) == load(place, NEW) == [1]


def test_revoking_takes_every_key_that_stays(place: Place) -> None:
    """A fresh key cannot be wrapped under a key that was not given: that is refused, by its id."""
    write_list(place, 1, key=[OLD, OTHER])
    before = stored(place)
    with pytest.raises(InvalidKeyError, match=rf"^{key_id(OTHER)} would go on .*give every key"):
        rotate(place, to=NEW, revoke=key_id(OLD))
    assert stored(place) == before
    report = rotate(place, key=[OLD, OTHER], to=NEW, revoke=key_id(OLD))
    assert (report.added, report.revoked) == ((key_id(NEW),), (key_id(OLD),))
    assert key_ids(place) == [key_id(OTHER), key_id(NEW)]
    assert load(place, OTHER) == load(place, NEW) == [1]
    assert rotate(place, key=NEW, to=OTHER, revoke=key_id(NEW)).key_ids == (key_id(OTHER),)


def test_what_is_so_already_is_not_written(place: Place) -> None:
    """A key that opens it is not added again, and the file not read."""
    write_list(place, 1, key=[OLD, NEW])
    before = place.files()
    with inject() as injection:
        report = rotate(place, to=[NEW, OLD])
    assert (report.added, report.revoked, report.checksum) == ((), (), None)
    assert "update" not in {call.method for call in injection.calls}
    assert place.files() == before


def test_a_passphrase_is_changed(tmp_path: Path) -> None:
    """All passphrases have one id, and the new one does not go with the old one."""
    place = Place(str(tmp_path))
    first, second = words("first passphrase"), words("second passphrase")
    write_list(place, 1, key=first)
    rotate(place, key=first, to=second, revoke="passphrase")
    assert load(place, "second passphrase") == [1]
    with pytest.raises(WrongKeyError):
        load(place, "first passphrase")


class PublicKey:
    """Wraps for somebody else, and opens nothing."""

    uri = None

    def __init__(self, key: bytes) -> None:
        self._inner = RawKey(key)

    def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
        return self._inner.wrap(dataset_key, context)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        raise WrongKeyError("none of the given keys opens this")


@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_a_public_key_is_given_for_its_owner(place: Place, kind: str) -> None:
    """It is added once, stays while others go, and is no proof that anybody can open."""
    if kind == "file":
        write_list(place, 1)
        name = "list.json.pdw"
    else:
        frame = dd.from_pandas(batch(0), npartitions=1)
        options: dict[str, Any] = {"single_file": False, "encryption_key": OLD}
        place.writer().write_dataframe(frame, "people", "parquet", **options)
        name = "output/people"
    auditor = PublicKey(OTHER)
    for _ in range(2):
        assert rotate(place, name, to=auditor).key_ids == (key_id(OLD), key_id(OTHER))
    with pytest.raises(InvalidKeyError, match="name in `to`"):
        rotate(place, name, to=auditor, revoke=key_id(OLD))
    rotate(place, name, to=[NEW, auditor], revoke=key_id(OLD))
    assert set(key_ids(place, name)) == {key_id(OTHER), key_id(NEW)}
    for key in (OTHER, NEW):
        verify(file(place, name), encryption_key=key, storage_options=place.options)


def test_no_append_is_lost(place: Place) -> None:
    """Items appended by many while the key is changed again and again are all there."""
    write_list(place, key=[OLD, NEW])
    chain = [OLD, NEW] * 3
    with ThreadPoolExecutor(4) as pool:
        appends = [
            pool.submit(place.writer().append_to_json_array, n, "list", encryption_key=[OLD, NEW])
            for n in range(16)
        ]
        for key, other in pairwise(chain):
            rotate(place, key=[key, other], to=other, revoke=key_id(key))
            rotate(place, key=other, to=key)
        for call in appends:
            call.result()
    assert sorted(load(place, NEW)) == list(range(16))
    assert_no_leftovers(place.root, storage_options=place.options)


def test_an_append_just_before_is_kept(place: Place) -> None:
    """What the update finds is what counts, not what was looked at first."""
    write_list(place, 1)
    writer = place.writer()
    with just_before_the_update(lambda: writer.append_to_json_array(2, "list", encryption_key=OLD)):
        report = rotate(place, to=NEW, revoke=key_id(OLD))
    assert load(place, NEW) == [1, 2]
    assert report.write_id == describe(file(place), storage_options=place.options)["write_id"]


def test_an_append_with_the_revoked_key_is_told(place: Place) -> None:
    """It fails, and what it would have appended is not half there."""
    write_list(place, 1)
    with (
        just_before_the_update(lambda: rotate(place, to=NEW, revoke=key_id(OLD))),
        pytest.raises(WrongKeyError),
    ):
        place.writer().append_to_json_array(2, "list", encryption_key=OLD)
    assert load(place, NEW) == [1]


def test_an_overwrite_just_before_is_rotated(place: Place) -> None:
    """The new content stands, with its key replaced."""
    write_list(place, "old")
    with just_before_the_update(lambda: write_list(place, "new", key=[OLD, OTHER])):
        report = rotate(place, key=[OLD, OTHER], to=NEW, revoke=key_id(OLD))
    assert load(place, NEW) == load(place, OTHER) == ["new"]
    assert report.revoked == (key_id(OLD),)


def test_an_overwrite_is_never_undone(place: Place) -> None:
    """Whatever is written over a file while it is rotated stands in the end, at the first time too.

    A file that was never updated has no lock beside it yet that an overwrite could wait for.
    """
    with ThreadPoolExecutor(2) as pool:
        for number in range(12):
            name = f"list-{number // 2}"
            write_list(place, "before", name=name)
            change = {"key": [OLD, NEW], "to": NEW, "revoke": key_id(OLD)}
            rotation = pool.submit(rotate, place, f"{name}.json.pdw", **change)
            write_list(place, "after", name=name)
            rotation.result()
            assert load(place, [OLD, NEW], f"{name}.json.pdw") == ["after"]


def test_a_file_removed_meanwhile_does_not_come_back(place: Place) -> None:
    """There is nothing to rotate any more."""
    write_list(place, 1)
    file_system, root = fsspec.core.url_to_fs(place.root, **place.options)
    with (
        just_before_the_update(lambda: file_system.rm_file(f"{root}/list.json.pdw")),
        pytest.raises(TargetNotFoundError, match="removed meanwhile"),
    ):
        rotate(place, to=NEW)
    assert "list.json.pdw" not in place.files()


def test_rotations_at_once_all_count(place: Place) -> None:
    """Six let in one key each, at the same moment."""
    write_list(place, 1)
    others = [bytes([number]) * 32 for number in range(10, 16)]
    with ThreadPoolExecutor(6) as pool:
        for call in [pool.submit(rotate, place, to=key) for key in others]:
            call.result()
    assert set(key_ids(place)) == {key_id(key) for key in (OLD, *others)}
    assert all(load(place, key) == [1] for key in (OLD, *others))


def test_two_replace_the_same_key(place: Place) -> None:
    """The second finds the key gone, and changes nothing."""
    write_list(place, 1)
    with (
        just_before_the_update(lambda: rotate(place, to=OTHER, revoke=key_id(OLD))),
        pytest.raises(WrongKeyError),
    ):
        rotate(place, to=NEW, revoke=key_id(OLD))
    assert key_ids(place) == [key_id(OTHER)]


@pytest.mark.parametrize(
    ("fault", "error", "counts"),
    [
        (Fault("update", "before", path="list.json.pdw", transient=True), None, True),
        (Fault("update", "before", path="list.json.pdw"), TargetUnavailableError, False),
        (Fault("update", "lost", path="list.json.pdw"), CommitOutcomeUnknownError, True),
        (Fault("update", "before", path="list.json.pdw", error=Crash), Crash, False),
        (Fault("update", "after", path="list.json.pdw", error=Crash), Crash, True),
    ],
    ids=repr,
)
def test_what_is_said_agrees_with_what_stands(
    place: Place, fault: Fault, error: type[BaseException] | None, counts: bool
) -> None:
    """A fault of the update leaves the old keys or the new ones, and never a torn file."""
    write_list(place, 1)
    retry = {"pamola-dwriter.retry-seconds": 5 if fault.transient else 0}
    with dask.config.set(retry), inject(fault) as injection:
        if error is None:
            rotate(place, to=NEW, revoke=key_id(OLD))
        else:
            with pytest.raises((error, TargetUnavailableError)):
                rotate(place, to=NEW, revoke=key_id(OLD))
    assert injection.injected
    assert load(place, NEW if counts else OLD) == [1]
    assert key_ids(place) == [key_id(NEW if counts else OLD)]


@pytest.mark.parametrize(
    ("key", "options", "error", "says"),
    [
        (None, {"to": NEW}, MissingKeyError, "is encrypted"),
        (OTHER, {"to": NEW}, WrongKeyError, "^none of the given keys opens this$"),
        (OLD, {}, InvalidWriteError, "`to`"),
        (OLD, {"to": b"short"}, InvalidKeyError, "to: .*32 bytes"),
        (OLD, {"to": NEW, "revoke": "raw:0000"}, InvalidKeyError, "no key .*raw:0000; .*raw:"),
        (OLD, {"revoke": [key_id(OLD)]}, InvalidKeyError, "name in `to`"),
        (OLD, {"to": [bytes([n]) * 32 for n in range(20, 36)]}, InvalidKeyError, "at most 16"),
    ],
)
def test_bad_input_changes_nothing(
    tmp_path: Path, key: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    """What cannot be done is refused, with what to change, before anything is written."""
    place = Place(str(tmp_path))
    write_list(place, 1)
    before = place.files(), stored(place)
    with pytest.raises(error, match=says):
        rotate(place, key=key, **options)
    assert (place.files(), stored(place)) == before


def test_a_damaged_file_is_left_alone(tmp_path: Path) -> None:
    """One that is cut, altered in stream or header, or not sealed at all, by its name."""
    place = Place(str(tmp_path))
    write_list(place, "x" * 3_000_000)
    good = stored(place)
    head = good.index(b"keyed_by") + 12
    for data in (
        good[:-1],
        good[:1_500_000] + b"\0\0\0\0" + good[1_500_004:],
        good[:head] + (b"0" if good[head] != 48 else b"1") + good[head + 1 :],
        b"[1]",
        b"",
    ):
        put(place, "list.json.pdw", data)
        with pytest.raises((IntegrityError, WrongKeyError)) as raised:
            rotate(place, to=NEW)
        assert "xxx" not in str(raised.value)
        assert stored(place) == data


def test_a_plain_file_has_no_keys(place: Place) -> None:
    """There is nothing to rotate, which is an error."""
    place.writer().write_json([1], "list")
    with pytest.raises(InvalidTargetError, match="not encrypted"):
        rotate(place, "list.json", to=NEW)


def test_an_age_file_is_refused(tmp_path: Path) -> None:
    """It does not say who opens it."""
    place = Place(str(tmp_path))
    put(place, "list.json.age", b"age-encryption.org/v1\n-> X25519 abc\n")
    with pytest.raises(InvalidTargetError, match="age file"):
        rotate(place, "list.json.age", to=NEW)
    with pytest.raises(RotationIncompleteError, match=r"list\.json\.age: InvalidTargetError"):
        rotate(place, "", to=NEW)


def fill(place: Place, key: Any = OLD) -> dict[str, str]:
    """Write one of each kind everywhere; return what to rotate, with what is plain."""
    writer = place.writer()
    frame = dd.from_pandas(batch(0), npartitions=2)
    options: dict[str, Any] = {"write_index": False, "encryption_key": key}
    writer.write_dataframe(frame, "people", "parquet", **options)
    writer.write_dataframe(
        frame, "deep", "csv", subdir="output/a/b", partition_on=["name"], **options
    )
    writer.write_dataframe(frame, "open", "parquet", write_index=False)
    writer.write_dataframe(batch(0), "one", "csv", single_file=True, **options)
    writer.write_dictionary({"a": 1}, "codes", encryption_key=key)
    writer.write_metrics({"a": 1}, "metrics", timestamp_in_name=False, encryption_key=key)
    writer.append_to_json_array("begun", "log", subdir="logs", encryption_key=key)
    writer.write_visualization(Figure(), "plot", encryption_key=key)
    writer.write_json([1], "plain", subdir="logs")
    return {
        "output/people": "dataset",
        "output/a/b/deep": "dataset",
        **{name: "file" for name in place.files() if name.endswith(".pdw") and "part-" not in name},
    }


def check_all(place: Place, names: Any, key: bytes, *shut_out: bytes) -> None:
    for name in names:
        path = file(place, name)
        verify(path, encryption_key=key, storage_options=place.options)
        for other in shut_out:
            with pytest.raises(WrongKeyError):
                verify(path, encryption_key=other, storage_options=place.options)


def test_a_task_directory_is_rotated(place: Place) -> None:
    """Every dataset and file in it, wherever; what is plain is named; again, it is all so."""
    names = fill(place)
    assert len(names) == 7
    report = rotate(place, "", to=NEW, revoke=key_id(OLD))
    assert isinstance(report, DirectoryRotationReport)
    assert set(report.rotated) == set(names)
    assert report.plain == ("logs/plain.json", "output/open")
    assert not report.unchanged
    assert not report.failed
    for name, one in report.rotated.items():
        assert one.key_ids == (key_id(NEW),)
        assert one.fresh_key == (names[name] == "file")
    check_all(place, names, NEW, OLD)
    with inject() as injection:
        again = rotate(place, "", to=NEW, revoke=key_id(OLD))
    assert not {"update", "put_if", "put"} & {call.method for call in injection.calls}
    assert (set(again.unchanged), dict(again.rotated)) == (set(names), {})
    assert_no_leftovers(place.root, storage_options=place.options, encryption_key=NEW)


def test_what_a_key_does_not_open_stops_nothing_else(place: Place) -> None:
    """The rest is rotated; the error tells what is not, and why, and its report tells all."""
    names = fill(place)
    write_list(place, 1, key=OTHER)
    put(place, "cut.json.pdw", stored(place)[:-5])
    put(place, "torn/_manifest.json", b"{")
    with pytest.raises(RotationIncompleteError, match="WrongKeyError: none") as raised:
        rotate(place, "", to=NEW, revoke=key_id(OLD))
    report = raised.value.report
    assert set(report.rotated) == set(names)
    assert {name: why.error for name, why in report.failed.items()} == {
        "cut.json.pdw": "WrongKeyError",
        "list.json.pdw": "WrongKeyError",
        "torn": "IntegrityError",
    }
    check_all(place, names, NEW, OLD)
    assert load(place, OTHER) == [1]


def test_a_folder_is_rotated_alone(place: Place) -> None:
    """Any folder will do."""
    names = fill(place)
    report = rotate(place, "output", to=NEW)
    inside = {name.removeprefix("output/") for name in names if name.startswith("output/")}
    assert set(report.rotated) == inside
    check_all(place, ["logs/log.json.pdw"], OLD, NEW)


def test_an_id_that_only_some_have(place: Place) -> None:
    """It is enough if one has it; where nothing has, that is an error before anything changes."""
    write_list(place, 1, name="a")
    write_list(place, 1, key=[OLD, OTHER], name="b")
    with pytest.raises(InvalidKeyError, match=r"no key of .* has the id raw:0000; those it has"):
        rotate(place, "", to=NEW, revoke=["raw:0000", key_id(OTHER)])
    assert key_ids(place, "a.json.pdw") == [key_id(OLD)]
    report = rotate(place, "", revoke=key_id(OTHER))
    assert (set(report.unchanged), set(report.rotated)) == ({"a.json.pdw"}, {"b.json.pdw"})
    with pytest.raises(InvalidKeyError):
        rotate(place, "", revoke=key_id(OTHER))


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_a_directory_with_nothing_in_it(place: Place, make: bool) -> None:
    """It is as if there were none."""
    if make and not place.root.startswith("s3:"):
        Path(place.root).mkdir(parents=True)
    with pytest.raises(TargetNotFoundError, match="no dataset or single file"):
        rotate(place, "", to=NEW)


def test_a_plain_directory_has_no_keys(place: Place) -> None:
    """An error, as for one plain file."""
    place.writer().write_json([1], "list")
    with pytest.raises(InvalidTargetError, match=r"nothing below .* is encrypted"):
        rotate(place, "", to=NEW)


def test_a_passphrase_of_a_directory_is_changed(tmp_path: Path) -> None:
    """Run again, the new passphrase, which has the id of the old one, is left alone."""
    place = Place(str(tmp_path))
    first, second = words("first passphrase"), words("second passphrase")
    for name in ("a", "b"):
        write_list(place, name, key=first, name=name)
    rotate(place, "a.json.pdw", key=first, to=second, revoke="passphrase")
    report = rotate(place, "", key=first, to=second, revoke="passphrase")
    assert (set(report.unchanged), set(report.rotated)) == ({"a.json.pdw"}, {"b.json.pdw"})
    assert load(place, second, "b.json.pdw") == ["b"]
    again = rotate(place, "", key=first, to=second, revoke="passphrase")
    assert not again.rotated


def test_a_store_that_goes_down_is_not_asked_for_every_file(tmp_path: Path) -> None:
    """Each request is tried for as long as may be, and that once; all that is left is named."""
    place = Place(str(tmp_path))
    for number in range(5):
        write_list(place, number, name=f"n{number}")
    down = Fault("update", path="n1*", transient=True, forever=True)
    with (
        dask.config.set({"pamola-dwriter.retry-seconds": 0}),
        inject(down) as injection,
        pytest.raises(RotationIncompleteError) as raised,
    ):
        rotate(place, "", to=NEW)
    assert len(injection.injected) == 1
    report = raised.value.report
    assert set(report.rotated) == {"n0.json.pdw"}
    assert set(report.failed) == {f"n{number}.json.pdw" for number in range(1, 5)}
    assert len(rotate(place, "", to=NEW).rotated) == 4


KILLED = """
import json, sys
from pamola_dwriter import RawKey, rotate_keys, storage
from pamola_dwriter.testing import StoreWrapper

class Slow(StoreWrapper):
    def _pass_on(self, call, act, some=None):
        writes = call.method in ("update", "put_if")
        if writes:
            print("begin", call.paths, flush=True)
            if call.paths[0].endswith(sys.argv[2]):
                sys.stdin.read()  # until killed
        return act()

storage.WRAPPERS.append(Slow)
old, new = bytes(32), bytes([1]) * 32
rotate_keys(
    sys.argv[1], encryption_key=old, to=new, revoke=RawKey(old).key_id,
    storage_options=json.loads(sys.argv[3]),
)
"""


@pytest.mark.parametrize("at", ["log.json.pdw", "people/_manifest.json"])
def test_a_killed_rotation_goes_on_when_run_again(place: Place, at: str) -> None:
    """SIGKILL between any two targets: each has the old key or the new one, and then the new."""
    names = fill(place)
    victim = subprocess.Popen(
        [sys.executable, "-c", KILLED, place.root, at, json.dumps(dict(place.options))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    assert victim.stdin is not None
    begun = next(line for line in victim.stdout if at in line)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait(30) == -signal.SIGKILL
    victim.stdin.close()
    victim.stdout.close()
    assert begun
    done = {name for name in names if key_id(NEW) in key_ids(place, name)}
    assert 0 < len(done) < len(names)
    check_all(place, done, NEW, OLD)
    check_all(place, set(names) - done, OLD, NEW)
    report = rotate(place, "", to=NEW, revoke=key_id(OLD))
    assert set(report.unchanged) == done
    assert set(report.rotated) == set(names) - done
    check_all(place, names, NEW, OLD)
    assert_no_leftovers(place.root, storage_options=place.options, encryption_key=NEW)


def test_a_kill_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    """Also in the middle of a system call; what it staged is garbage that is collected."""
    place = Place(str(tmp_path / "task"))
    write_list(place, "x" * 20_000_000)
    for _ in range(3):
        victim = subprocess.Popen(
            [sys.executable, "-c", KILLED, place.root, "nothing", "{}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert victim.stdout is not None
        next(victim.stdout, None)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait(30)
        victim.stdout.close()
        assert len(load(place, [OLD, NEW])[0]) == 20_000_000
    rotate(place, "", to=NEW, revoke=key_id(OLD))
    assert load(place, NEW)
    with dask.config.set({"pamola-dwriter.lease-seconds": 0}):
        collect_garbage(place.root, older_than=0)
    assert sorted(place.files()) == [layout.lock_name("list.json.pdw"), "list.json.pdw"]


def test_nothing_secret_is_said(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Reports, errors and logs hold ids, and neither keys nor data."""
    fill(place)
    write_list(place, "plaintext-marker", key=OTHER)
    kept = dataset_key(stored(place, "metrics.json.pdw"), OLD)
    with caplog.at_level(logging.DEBUG, "pamola_dwriter"):
        with pytest.raises(RotationIncompleteError) as raised:
            rotate(place, "", to=NEW, revoke=key_id(OLD))
        alone = rotate(place, key=OTHER, to=NEW)
    assert isinstance(alone, RotationReport)
    report = raised.value.report
    said = f"{caplog.text}{raised.value!r}{report!r}{alone!r}{json.dumps(asdict(report))}"
    fresh = dataset_key(stored(place, "metrics.json.pdw"), NEW)
    for secret in (OLD, NEW, OTHER, kept, fresh):
        assert secret.hex() not in said
        assert repr(secret) not in said
    assert "plaintext-marker" not in said


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pamola_dwriter", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_takes_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code says whether all were rotated, and its output what became of each."""
    monkeypatch.setenv("OLD_KEY", OLD.hex())
    monkeypatch.setenv("NEW_KEY", NEW.hex())
    place = Place(str(tmp_path))
    write_list(place, 1, name="a")
    write_list(place, 1, key=OTHER, name="b")
    place.writer().write_json([1], "plain")
    change = ["--encryption-key", "env:OLD_KEY", "--to", "env:NEW_KEY", "--revoke", key_id(OLD)]
    partial = run("rotate", place.root, *change, "--json")
    assert partial.returncode == 7
    facts = json.loads(partial.stdout)
    assert facts["rotated"]["a.json.pdw"]["key_ids"] == [key_id(NEW)]
    assert facts["failed"]["b.json.pdw"]["error"] == "WrongKeyError"
    assert json.loads(partial.stderr)["error"] == "RotationIncompleteError"
    shown = run("rotate", place.root, *change)
    assert shown.returncode == 7
    for line in ("unchanged: a.json.pdw: raw:", "plain: plain.json", "failed: b.json.pdw: Wrong"):
        assert line in shown.stdout
    (tmp_path / "b.json.pdw").unlink()
    assert run("rotate", place.root, *change).returncode == 0
    single = run("rotate", file(place, "a.json.pdw"), "--encryption-key", "env:NEW_KEY",
                 "--to", "env:OLD_KEY", "--json")  # fmt: skip
    assert single.returncode == 0
    assert json.loads(single.stdout)["fresh_key"] is True


def test_a_part_is_not_a_file_of_its_own(tmp_path: Path) -> None:
    """One that is named itself is refused, and one without a manifest passed over."""
    place = Place(str(tmp_path))
    fill(place)
    (part,) = [name for name in place.files() if "people/part-00000" in name]
    with pytest.raises(DataReadError, match="part of a dataset"):
        rotate(place, part, to=NEW)
    (tmp_path / "output/people/_manifest.json").unlink()
    report = rotate(place, "", to=NEW)
    assert not any("people" in name for name in report.rotated)

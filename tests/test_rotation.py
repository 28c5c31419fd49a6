"""rotate_keys changes who opens a dataset: by its manifest alone, and never so that nobody does."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any
from uuid import uuid4

import dask
import dask.dataframe as dd
import fsspec
import pytest

from pamola_dwriter import (
    Passphrase,
    RawKey,
    WriterResult,
    describe,
    layout,
    storage,
    verify,
)
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    IntegrityError,
    InvalidKeyError,
    InvalidTargetError,
    InvalidWriteError,
    MissingKeyError,
    TargetNotFoundError,
    TargetUnavailableError,
    WrongKeyError,
)
from pamola_dwriter.keys import MAX_WRAPPED, Cost
from pamola_dwriter.rotation import RotationReport, rotate_keys
from pamola_dwriter.spec import WrappedKey
from pamola_dwriter.testing import Crash, Fault, assert_no_leftovers, inject
from tests.meddling import just_before
from tests.places import Place, batch

OLD, NEW, OTHER = (bytes([number]) * 32 for number in range(3))
CHEAP = Cost(iterations=1, memory_kib=32, lanes=1)
MANIFEST = f"*/{layout.MANIFEST}"


def key_id(key: bytes) -> str:
    return RawKey(key).key_id


def words(text: str) -> Passphrase:
    return Passphrase(text, cost=CHEAP)


def url(place: Place) -> str:
    return f"{place.root}/output/people"


def write(place: Place, key: Any = OLD, first: int = 0, **options: Any) -> WriterResult:
    frame = dd.from_pandas(batch(first), npartitions=2)
    result: WriterResult = place.writer().write_dataframe(
        frame, "people", "parquet", encryption_key=key, write_index=False, **options
    )
    return result


def rotate(place: Place, key: Any = OLD, **options: Any) -> RotationReport:
    report = rotate_keys(
        url(place), encryption_key=key, storage_options=dict(place.options), **options
    )
    assert isinstance(report, RotationReport)
    return report


def key_ids(place: Place) -> list[str]:
    facts = describe(url(place), storage_options=place.options)
    return [key["key_id"] for key in facts["keys"]]


def rows(place: Place, key: Any) -> int:
    """Return how many rows stand, every part of which is as it was written."""
    report = verify(url(place), encryption_key=key, storage_options=place.options)
    assert len(place.read(url(place), encryption_key=key)) == report.rows
    return report.rows


def contents(place: Place) -> dict[str, bytes]:
    """Return every file but the manifest."""
    file_system, root = fsspec.core.url_to_fs(place.root, **place.options)
    return {
        file: file_system.cat_file(f"{root}/{file}")
        for file in place.files()
        if layout.MANIFEST not in file
    }


def just_before_it_counts(meddle: Callable[[], object]) -> AbstractContextManager[None]:
    """Let `meddle` happen between what is read for the next manifest and its being written."""
    return just_before(
        lambda call: call.method == "put_if" and call.paths[0].endswith(layout.MANIFEST), meddle
    )


def test_a_key_is_added(place: Place) -> None:
    """Both keys open the dataset, which is otherwise byte for byte what it was."""
    written = write(place)
    before = contents(place)
    report = rotate(place, to=NEW)
    assert contents(place) == before
    assert (report.added, report.revoked) == ((key_id(NEW),), ())
    assert report.key_ids == tuple(key_ids(place)) == (key_id(OLD), key_id(NEW))
    assert report.write_id == written.write_id
    for key in (OLD, NEW):
        assert rows(place, key) == 10
    found = describe(url(place), encryption_key=NEW, storage_options=place.options)
    assert report.checksum == found["checksum"] != written.checksum
    place.assert_no_leftovers(written.write_id)


def test_a_key_is_replaced(place: Place) -> None:
    """The new key reads and appends; the old one opens nothing, and is told no more than that."""
    written = write(place)
    report = rotate(place, to=NEW, revoke=key_id(OLD))
    assert (report.added, report.revoked) == ((key_id(NEW),), (key_id(OLD),))
    for use in (lambda: place.read(url(place), encryption_key=OLD), lambda: rotate(place, to=OLD)):
        with pytest.raises(WrongKeyError, match=r"^none of the given keys opens this$"):
            use()
    with pytest.raises(WrongKeyError):
        write(place, OLD, 10, append=True)
    appended = write(place, NEW, 10, append=True)
    assert rows(place, NEW) == 20
    assert key_ids(place) == [key_id(NEW)]
    place.assert_no_leftovers(written.write_id, appended.write_id)


def test_a_key_is_revoked(place: Place) -> None:
    """Without any key to add, those that are named go and the others stay."""
    write(place, [OLD, NEW, OTHER])
    report = rotate(place, revoke=[key_id(NEW), key_id(OTHER)])
    assert (report.added, report.revoked) == ((), (key_id(NEW), key_id(OTHER)))
    assert rows(place, OLD) == 10
    for key in (NEW, OTHER):
        with pytest.raises(WrongKeyError):
            rows(place, key)


def test_a_dataset_grows_while_its_keys_change(place: Place) -> None:
    """Rotations and appends in turn, then an overwrite with a key of its own."""
    written = write(place)
    chain = [OLD, NEW, OTHER, OLD]
    for number, (key, to) in enumerate(pairwise(chain), start=1):
        rotate(place, key, to=to, revoke=key_id(key))
        written = write(place, to, 10 * number, append=True)
        assert rows(place, to) == 10 * number + 10
    assert len(place.read(url(place), encryption_key=OLD)) == 40
    written = write(place, OTHER)
    assert (rows(place, OTHER), key_ids(place)) == (10, [key_id(OTHER)])
    place.assert_no_leftovers(written.write_id)


def test_a_passphrase_is_changed(tmp_path: Any) -> None:
    """All passphrases have one id, and the new one does not go with the old one."""
    place = Place(str(tmp_path))
    write(place, words("first passphrase"))
    report = rotate(
        place, words("first passphrase"), to=words("second passphrase"), revoke="passphrase"
    )
    assert report.key_ids == ("passphrase",)
    assert rows(place, "second passphrase") == 10
    with pytest.raises(WrongKeyError):
        rows(place, "first passphrase")


def test_a_passphrase_is_made_dearer(tmp_path: Any) -> None:
    """The same passphrase is wrapped anew, at the cost it has now, if it is revoked as well."""
    place = Place(str(tmp_path))
    write(place, words("first passphrase"))
    dear = Passphrase("first passphrase", cost=Cost(iterations=2, memory_kib=64, lanes=1))
    rotate(place, dear, to=dear, revoke={"passphrase"})
    (stored,) = json.loads((tmp_path / "output/people/_manifest.json").read_text())["encryption"][
        "keys"
    ]
    assert stored["parameters"]["iterations"] == 2
    assert rows(place, dear) == 10


def test_the_manifest_alone_is_written(place: Place) -> None:
    """No part is looked at, nor the table of a wide dataset; one conditional write does it."""
    with dask.config.set({"pamola-dwriter.inline-parts": 1}):
        write(place)
        with inject() as injection:
            rotate(place, to=NEW, revoke=key_id(OLD))
    assert [(call.method, call.paths[0].rpartition("/")[2]) for call in injection.calls] == [
        ("read_versioned", layout.MANIFEST),
        ("put_if", layout.MANIFEST),
    ]
    assert rows(place, NEW) == 10


def test_a_key_that_opens_it_already_is_not_added_again(place: Place) -> None:
    """Repeating a rotation writes nothing."""
    write(place)
    first = rotate(place, to=[NEW, NEW, OLD])
    assert first.added == (key_id(NEW),)
    with inject() as injection:
        second = rotate(place, NEW, to=[OLD, NEW])
    assert [call.method for call in injection.calls] == ["read_versioned"]
    assert (second.added, second.revoked) == ((), ())
    assert (second.key_ids, second.checksum) == (first.key_ids, first.checksum)


def test_rotations_at_once_all_count(place: Place) -> None:
    """Eight let in one key each at the same moment, and one more takes out the first."""
    write(place, [OLD, OTHER])
    others = [bytes([number]) * 32 for number in range(10, 18)]
    with ThreadPoolExecutor(9) as pool:
        calls = [pool.submit(rotate, place, to=key) for key in others]
        calls.append(pool.submit(rotate, place, OTHER, revoke=key_id(OLD)))
        for call in calls:
            error = call.exception()
            # Whoever had not opened the dataset before his key went is told that he cannot.
            assert error is None or type(error) is WrongKeyError
    counted = {
        key_id(key) for key, call in zip(others, calls, strict=False) if not call.exception()
    }
    assert calls[-1].exception() is None
    assert set(key_ids(place)) == {key_id(OTHER), *counted}
    assert rows(place, OTHER) == 10


def test_two_replace_the_same_key(place: Place) -> None:
    """Both new keys open the dataset then, and the old one does not."""
    write(place)
    with just_before_it_counts(lambda: rotate(place, to=OTHER, revoke=key_id(OLD))):
        report = rotate(place, to=NEW, revoke=key_id(OLD))
    assert set(report.key_ids) == set(key_ids(place)) == {key_id(NEW), key_id(OTHER)}
    assert rows(place, NEW) == rows(place, OTHER) == 10


def test_what_others_add_meanwhile_is_not_revoked(tmp_path: Any) -> None:
    """Of several passphrases, which have one id, those go that were there when it began."""
    place = Place(str(tmp_path))
    first, second, third = map(words, ("first passphrase", "second passphrase", "third passphrase"))
    write(place, first)
    with just_before_it_counts(lambda: rotate(place, first, to=third)):
        rotate(place, first, to=second, revoke="passphrase")
    assert rows(place, second) == rows(place, third) == 10
    with pytest.raises(WrongKeyError):
        rows(place, first)


def test_an_append_meanwhile_counts(place: Place) -> None:
    """Rows that are committed while a key is replaced are there under the new one."""
    written = write(place)
    appended = []
    with just_before_it_counts(lambda: appended.append(write(place, OLD, 10, append=True))):
        report = rotate(place, to=NEW, revoke=key_id(OLD))
    assert report.write_id == appended[0].write_id
    assert (rows(place, NEW), key_ids(place)) == (20, [key_id(NEW)])
    place.assert_no_leftovers(written.write_id, appended[0].write_id)


def test_an_append_keeps_a_rotation_meanwhile(place: Place) -> None:
    """An append begun with a key that is replaced meanwhile counts, and does not bring it back."""
    write(place)
    with just_before_it_counts(lambda: rotate(place, to=NEW, revoke=key_id(OLD))):
        write(place, OLD, 10, append=True)
    assert (rows(place, NEW), key_ids(place)) == (20, [key_id(NEW)])


def test_appends_and_rotations_at_once_all_count(place: Place) -> None:
    """In whatever order they come."""
    write(place)
    others = [bytes([number]) * 32 for number in range(10, 14)]
    with ThreadPoolExecutor(8) as pool:
        appends = [
            pool.submit(write, place, OLD, 10 * number, append=True) for number in range(1, 5)
        ]
        rotations = [pool.submit(rotate, place, to=key) for key in others]
        for call in (*appends, *rotations):
            call.result()
    assert set(key_ids(place)) == {key_id(key) for key in (OLD, *others)}
    assert all(rows(place, key) == 50 for key in others)


def test_an_overwrite_meanwhile_is_rotated(place: Place) -> None:
    """What was committed while a key is replaced stands, and with its key replaced."""
    write(place)
    written = []
    with just_before_it_counts(lambda: written.append(write(place, [OLD, OTHER], 50))):
        report = rotate(place, to=NEW, revoke=key_id(OLD))
    assert (report.write_id, report.revoked) == (written[0].write_id, (key_id(OLD),))
    assert key_ids(place) == [key_id(OTHER), key_id(NEW)]
    assert place.read(url(place), encryption_key=NEW)["x"].min() == 50
    assert rows(place, NEW) == rows(place, OTHER) == 10
    place.assert_no_leftovers(written[0].write_id)


def test_an_overwrite_does_not_undo_a_rotation(place: Place) -> None:
    """One that was begun before would bring the old key back: it fails, and leaves nothing."""
    written = write(place)
    with (
        just_before_it_counts(lambda: rotate(place, to=NEW, revoke=key_id(OLD))),
        pytest.raises(ConcurrentWriteError),
    ):
        write(place, OLD, 50)
    assert (rows(place, NEW), key_ids(place)) == (10, [key_id(NEW)])
    place.assert_no_leftovers(written.write_id)


def test_an_overwrite_meanwhile_may_shut_the_rotation_out(tmp_path: Any) -> None:
    """A version under a key that was not given is left as it is."""
    place = Place(str(tmp_path))
    write(place)
    with (
        just_before_it_counts(lambda: write(place, OTHER, 50)),
        pytest.raises(WrongKeyError),
    ):
        rotate(place, to=NEW)
    assert (rows(place, OTHER), key_ids(place)) == (10, [key_id(OTHER)])


def test_a_rotation_that_is_always_beaten_gives_up(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not try for ever."""
    place = Place(str(tmp_path))
    write(place)
    monkeypatch.setattr("pamola_dwriter.rotation.datasets._TRIES", 3)
    conflict = Fault("put_if", path=MANIFEST, forever=True, error=storage.objects.VersionConflict)
    with (
        inject(conflict) as injection,
        pytest.raises(ConcurrentWriteError, match="given up"),
    ):
        rotate(place, to=NEW)
    assert len(injection.injected) == 3
    assert key_ids(place) == [key_id(OLD)]


@pytest.mark.parametrize(
    ("fault", "error", "counts"),
    [
        (Fault("put_if", "lost", path=MANIFEST), None, True),
        (Fault("put_if", "lost", path=MANIFEST, transient=True), None, True),
        (Fault("put_if", "before", path=MANIFEST, transient=True), None, True),
        (Fault("put_if", "before", path=MANIFEST), TargetUnavailableError, False),
        (
            Fault("put_if", "before", path=MANIFEST, answered=False),
            CommitOutcomeUnknownError,
            False,
        ),
        (Fault("put_if", "lost", path=MANIFEST, outage=True), CommitOutcomeUnknownError, True),
        (Fault("put_if", "before", path=MANIFEST, error=Crash), Crash, False),
        (Fault("put_if", "after", path=MANIFEST, error=Crash), Crash, True),
    ],
    ids=lambda value: repr(value) if isinstance(value, Fault) else None,
)
def test_what_is_said_agrees_with_what_stands(
    place: Place, fault: Fault, error: type[BaseException] | None, counts: bool
) -> None:
    """A fault of the one write leaves the old keys or the new ones, and a doubt is called one."""
    written = write(place)
    retry = {"pamola-dwriter.retry-seconds": 5 if fault.transient else 0}
    with dask.config.set(retry), inject(fault) as injection:
        if error is None:
            assert rotate(place, to=NEW, revoke=key_id(OLD)).added == (key_id(NEW),)
        else:
            with pytest.raises(error):
                rotate(place, to=NEW, revoke=key_id(OLD))
    assert injection.injected
    assert key_ids(place) == [key_id(NEW if counts else OLD)]
    assert rows(place, NEW if counts else OLD) == 10
    place.assert_no_leftovers(written.write_id)


def test_a_lost_reply_with_an_append_on_top_counts_once(place: Place) -> None:
    """Whoever was faster may have built on the very keys whose reply was lost."""
    write(place)
    lost = Fault("put_if", "lost", path=MANIFEST)

    def append_on_top() -> None:
        with inject(lost):
            rotate(place, to=NEW, revoke=key_id(OLD))
        write(place, NEW, 10, append=True)

    with just_before_it_counts(append_on_top):
        rotate(place, to=NEW, revoke=key_id(OLD))
    assert (rows(place, NEW), key_ids(place)) == (20, [key_id(NEW)])


@pytest.mark.parametrize(
    ("key", "options", "error", "says"),
    [
        (None, {"to": NEW}, MissingKeyError, "is encrypted"),
        (OTHER, {"to": NEW}, WrongKeyError, "none of the given keys"),
        (b"short", {"to": NEW}, InvalidKeyError, "32 bytes"),
        (OLD, {"to": b"short"}, InvalidKeyError, "to: .*32 bytes"),
        (OLD, {"to": []}, InvalidKeyError, "to: .*between 1 and 16"),
        (OLD, {}, InvalidWriteError, "`to`"),
        (OLD, {"to": NEW, "revoke": "raw:0000"}, InvalidKeyError, "no key .*raw:0000; .*raw:"),
        (OLD, {"revoke": [key_id(OLD)]}, InvalidKeyError, "name in `to`"),
        (OLD, {"to": [bytes([n]) * 32 for n in range(20, 36)]}, InvalidKeyError, "at most 16"),
    ],
)
def test_bad_input_changes_nothing(
    tmp_path: Any, key: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    """What cannot be done is refused, with what to change, before anything is written."""
    place = Place(str(tmp_path))
    write(place)
    with inject() as injection, pytest.raises(error, match=says):
        rotate(place, key, **options)
    assert {call.method for call in injection.calls} <= {"read_versioned"}
    assert rows(place, OLD) == 10


def test_who_is_left_must_have_been_given(tmp_path: Any) -> None:
    """A key that nobody tried is no reason to believe that the dataset stays open."""
    place = Place(str(tmp_path))
    write(place, [OLD, OTHER])
    with pytest.raises(InvalidKeyError, match="name in `to`"):
        rotate(place, revoke=key_id(OLD))
    rotate(place, to=OTHER, revoke=key_id(OLD))
    assert key_ids(place) == [key_id(OTHER)]


def test_a_provider_that_cannot_open_what_it_wrapped_is_refused(tmp_path: Any) -> None:
    """The manifest is not written before one of the new keys has opened it."""

    class Forgetful(RawKey):
        def wrap(self, dataset_key: bytes, context: bytes) -> WrappedKey:
            return RawKey(OTHER).wrap(dataset_key, context)

    place = Place(str(tmp_path))
    write(place)
    with pytest.raises(InvalidKeyError, match="none of the keys"):
        rotate(place, to=Forgetful(NEW), revoke=key_id(OLD))
    assert rows(place, OLD) == 10


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("output/nobody", TargetNotFoundError, "no dataset"),
        ("output/plain", InvalidTargetError, "not encrypted"),
        ("output/single.parquet", TargetNotFoundError, "no dataset"),
    ],
)
def test_only_an_encrypted_dataset_has_keys(
    place: Place, path: str, error: type[Exception], says: str
) -> None:
    """There must be one, and it must be encrypted."""
    writer = place.writer()
    writer.write_dataframe(batch(0), "plain", "parquet", single_file=False)
    writer.write_dataframe(batch(0), "single", "parquet", single_file=True, encryption_key=OLD)
    with pytest.raises(error, match=says):
        rotate_keys(
            f"{place.root}/{path}", encryption_key=OLD, to=NEW, storage_options=place.options
        )


def test_an_altered_manifest_is_left_alone(tmp_path: Any) -> None:
    """A body that does not open is not put under new keys."""
    place = Place(str(tmp_path))
    write(place)
    path = tmp_path / "output/people/_manifest.json"
    document = json.loads(path.read_text())
    sealed = document["encryption"]["sealed"]
    document["encryption"]["sealed"] = sealed[:-12] + "A" * 8 + sealed[-4:]
    path.write_text(json.dumps(document))
    before = path.read_bytes()
    with pytest.raises(IntegrityError):
        rotate(place, to=NEW)
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", [NEW, [NEW, OLD]], ids=["new key", "both keys"])
def test_an_append_that_was_interrupted_before(place: Place, key: Any) -> None:
    """It is resumed with both keys, as its lease knows the old one alone; else clearly refused."""
    written = write(place)
    vanish = Fault("put_if", path=MANIFEST, answered=False, outage=True)
    retry = {"pamola-dwriter.retry-seconds": 0, "pamola-dwriter.lease-seconds": 0}
    with dask.config.set(retry):
        with inject(vanish), pytest.raises(CommitOutcomeUnknownError):
            write(place, OLD, 10, append=True)
        rotate(place, to=NEW, revoke=key_id(OLD))
        if key == NEW:
            with pytest.raises(WrongKeyError, match="a key that it was begun with"):
                write(place, key, 10, append=True, resume=True)
            assert len(place.read(url(place), encryption_key=NEW)) == 10
            return
        appended = write(place, key, 10, append=True, resume=True)
    assert (appended.resumed, rows(place, NEW), key_ids(place)) == (2, 20, [key_id(NEW)])
    place.assert_no_leftovers(written.write_id, appended.write_id)


def test_a_dataset_need_not_lie_in_any_folder() -> None:
    """One that was copied to the root of a bucket can be rotated there."""
    name = uuid4().hex
    place = Place(f"memory://{name}")
    write(place)
    memory = fsspec.filesystem("memory")
    copy = f"{name}-copy"
    memory.copy(f"/{name}/output/people", f"/{copy}", recursive=True)
    rotate_keys(f"memory://{copy}", encryption_key=OLD, to=NEW, revoke=key_id(OLD))
    assert len(place.read(f"memory://{copy}", encryption_key=NEW)) == 10
    assert rows(place, OLD) == 10


def test_nothing_passes_through_the_dataset(tmp_path: Any) -> None:
    """What a killed rotation leaves is no file that a later overwrite would find foreign."""
    place = Place(str(tmp_path / "task"))
    write(place)
    dataset = tmp_path / "task/output/people"
    seen: set[str] = set()
    with ThreadPoolExecutor(2) as pool:
        keys = [bytes([number]) * 32 for number in range(20, 20 + MAX_WRAPPED - 1)]
        going = [pool.submit(rotate, place, to=key) for key in keys]
        while not all(call.done() for call in going):
            seen.update(path.name for path in dataset.iterdir())
    assert layout.foreign_files(seen) == []
    assert set(key_ids(place)) == {key_id(key) for key in (OLD, *keys)}
    assert_no_leftovers(place.root, encryption_key=OLD)

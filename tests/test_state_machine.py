"""Whatever is done to a task directory, in whatever order: what is read is what a model says.

The model is a few lines: a dataset is a list of batches and a set of keys, and each call makes one
of them of another. Faults, crashes, resumed writes, collections, rotations and writes that were
prepared long ago only decide which of two states it is, and mostly not even that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from pamola_dwriter import (
    DataWriter,
    RawKey,
    collect_garbage,
    layout,
    manifest,
    read_dataset,
    verify,
)
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    ConcurrentWriteError,
    DataWriteError,
    InvalidTargetError,
    TargetUnavailableError,
    WrongKeyError,
)
from pamola_dwriter.execution import LazyWrite
from pamola_dwriter.rotation import rotate_keys
from pamola_dwriter.testing import Crash, Fault, Injection, assert_no_leftovers, inject
from tests.test_fault_matrix import DELETES, KINDS, PHASES

PARTITIONS = 2
DATASETS = ("first", "second")
KEYS = {name: bytes([number]) * 32 for number, name in enumerate(("red", "green", "blue"))}
KEY_IDS = {RawKey(key).key_id: name for name, key in KEYS.items()}
ALL_KEYS = list(KEYS.values())

COLLECTING = {
    "clock": Fault("now"),
    "lease": Fault("put_if"),
    "discard": Fault("discard"),
    "discard: one": Fault("discard", items=1),
}
"""The calls of a collection that change something, as PHASES has those of a write."""

COMMIT = {"manifest": PHASES["manifest"]}

Said = Literal["done", "refused", "unknown"]

names = st.sampled_from((*DATASETS[:1] * 3, *DATASETS))  # what meets on one dataset tells most
some_key = st.sampled_from(list(KEYS))
key_or_none = st.sampled_from((None, *KEYS))
kinds = st.sampled_from(list(KINDS.values()))


def faults(calls: Mapping[str, Fault]) -> st.SearchStrategy[Fault | None]:
    """Draw which of `calls` fails and how; or none."""
    struck = st.sampled_from(list(calls.values()))
    return st.none() | st.builds(lambda call, kind: replace(call, **kind), struck, kinds)


@dataclass(frozen=True)
class Version:
    """What a dataset consists of, and which keys open it: none if it is plain."""

    batches: frozenset[int] = frozenset()
    keys: frozenset[str] = frozenset()

    @property
    def key(self) -> str | None:
        """One key that opens it."""
        return min(self.keys, default=None)


@dataclass(frozen=True)
class Write:
    """One call of ``write_dataframe``."""

    name: str
    batch: int
    key: str | None
    append: bool = False

    def applied_to(self, version: Version) -> Version:
        """Return what stands once it has committed."""
        if self.append and self.batch in version.batches:
            return version
        if self.append and version.batches:
            return replace(version, batches=version.batches | {self.batch})
        return Version(frozenset([self.batch]), frozenset([self.key] if self.key else []))


@dataclass(frozen=True)
class Prepared:
    """A write that waits, and what stood when it was prepared."""

    write: Write
    lazy: LazyWrite
    stored: bytes | None


@dataclass(frozen=True)
class Outcome:
    """What was said of a call, and the faults that struck meanwhile."""

    said: Said
    error: BaseException | None
    struck: tuple[Fault, ...]

    @property
    def is_explained(self) -> bool:
        """Whether only a fault kept the call from its end."""
        return self.said == "done" or bool(self.struck)

    @property
    def could_clean_up(self) -> bool:
        """Whether the faults left a chance to delete something after them."""
        return self.said != "unknown" and not any(
            fault.outage or (fault.method in DELETES and not fault.transient)
            for fault in self.struck
        )


@cache
def frame(batch: int) -> dd.DataFrame:
    """Return a batch as a collection, whose identity a resumed write goes by."""
    return dd.from_pandas(rows(batch), npartitions=PARTITIONS)


def rows(*batches: int) -> pd.DataFrame:
    numbers = [(batch, row) for batch in sorted(batches) for row in range(2 + batch % 3)]
    return pd.DataFrame(
        {
            "batch": pd.Series([batch for batch, _ in numbers], dtype="int64"),
            "row": pd.Series([row for _, row in numbers], dtype="int64"),
            "name": pd.Series([f"person {batch}.{row}" for batch, row in numbers], dtype="str"),
        }
    )


@contextmanager
def struck_by(fault: Fault | None) -> Iterator[Injection]:
    """Let a fault strike; what a crash left running ends with the block.

    One thread does the work: chance would else have a say in what comes of a fault.
    """
    retry = 5 if fault is not None and fault.transient else 0
    with (
        inject(*([] if fault is None else [fault])) as injection,
        ThreadPoolExecutor(1) as pool,
        dask.config.set({"pool": pool, "pamola-dwriter.retry-seconds": retry}),
    ):
        yield injection


class TaskDirectory(RuleBasedStateMachine):
    """A task directory, and the model of it."""

    prepared = Bundle("prepared")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = f"{self.folder.name}/task"
        self.batches = 0
        self.model = dict.fromkeys(DATASETS, Version())
        self.interrupted: dict[str, Write] = {}
        """The last write of each dataset of which it is not known what became of it."""
        self.undisturbed: set[str] = set()
        """Datasets to which nothing was done since."""
        self.is_clean = True
        """Whether whoever failed could clean up."""

    @initialize(inline_parts=st.sampled_from([1, 4096]), retain=st.sampled_from([0, 3600]))
    def configure(self, inline_parts: int, retain: int) -> None:
        """Parts are listed in the manifest or beside it; replaced ones go at once, or later."""
        self.config = dask.config.set(
            {
                "pamola-dwriter.inline-parts": inline_parts,
                "pamola-dwriter.retain-seconds": retain,
                "pamola-dwriter.retry-seconds": 0,
                "pamola-dwriter.lease-seconds": 0,
            }
        )

    def teardown(self) -> None:
        try:
            self.collect(None)
        finally:
            self.config.__exit__(None, None, None)
            self.folder.cleanup()

    @rule(name=names, key=key_or_none, append=st.booleans(), fault=faults(PHASES))
    def write(self, name: str, key: str | None, append: bool, fault: Fault | None) -> None:
        """Write a new batch, in the place of what stands or in addition to it."""
        write = self._next_write(name, key, append)
        outcome = self._attempt(lambda: self._call(write), fault)
        assert outcome.is_explained, repr(outcome.error)
        self._conclude(write, outcome)

    @rule(target=prepared, name=names, key=key_or_none, append=st.booleans())
    def prepare(self, name: str, key: str | None, append: bool) -> Prepared:
        """Prepare a write, to be run at some later time."""
        write = self._next_write(name, key, append)
        return Prepared(write, self._call(write, compute=False), self._stored(name))

    @rule(waiting=consumes(prepared), fault=faults(PHASES))
    def run_prepared(self, waiting: Prepared, fault: Fault | None) -> None:
        """It counts if it may follow what stands by now; else it is refused for that reason."""
        may_count = self._may_count(waiting)
        outcome = self._attempt(waiting.lazy.compute, fault)
        if may_count:
            assert outcome.is_explained, repr(outcome.error)
            self._conclude(waiting.write, outcome)
        else:
            assert outcome.struck or isinstance(outcome.error, ConcurrentWriteError), outcome
            assert outcome.said != "done"
            self._conclude(waiting.write, outcome, never=True)

    @rule(name=names, fault=faults(PHASES))
    def resume(self, name: str, fault: Fault | None) -> None:
        """Take up what was interrupted, at once or after all sorts of things."""
        write = self.interrupted.get(name)
        if write is None:
            return
        has_begun = any(Path(self.root).glob("_staging/*/lease.json"))
        outcome = self._attempt(lambda: self._call(write, resume=True), fault)
        if name in self.undisturbed and not outcome.is_explained:
            assert write.append, repr(outcome.error)
            assert not has_begun, repr(outcome.error)
            assert isinstance(outcome.error, InvalidTargetError), repr(outcome.error)
        self._conclude(write, outcome)

    @rule(fault=faults(COLLECTING))
    def collect(self, fault: Fault | None) -> None:
        """Take away all garbage, as a dry run foretells; or a part of it."""
        plan = collect_garbage(self.root, older_than=0, encryption_key=ALL_KEYS, dry_run=True)
        assert not plan.unopened
        self.undisturbed.clear()
        with suppress(TargetUnavailableError, Crash), struck_by(fault) as injection:
            done = collect_garbage(self.root, older_than=0, encryption_key=ALL_KEYS)
            assert {each.path for each in done.removed} == {each.path for each in plan.removed}
        if not injection.injected:
            self.is_clean = True
            self.nothing_is_left_over()

    @rule(name=names, to=some_key, alone=st.booleans(), fault=faults(COMMIT))
    def rotate(self, name: str, to: str, alone: bool, fault: Fault | None) -> None:
        """Let a key in, and perhaps all others out."""
        before = self.model[name]
        if before.key is None:
            return
        after = replace(before, keys=frozenset([to]) if alone else before.keys | {to})
        others = [key_id for key_id, key in KEY_IDS.items() if key in before.keys - {to}]
        outcome = self._attempt(
            lambda: rotate_keys(
                self._path(name),
                encryption_key=KEYS[before.key],
                to=KEYS[to],
                revoke=others if alone else (),
            ),
            fault,
        )
        assert outcome.is_explained, repr(outcome.error)
        self.undisturbed.discard(name)
        self._settle(name, outcome, before, after)

    @rule(name=names)
    def verify(self, name: str) -> None:
        """Nothing is altered or missing; nor too much, if all could clean up after themselves."""
        version = self.model[name]
        if version.batches and self.is_clean:
            report = verify(self._path(name), encryption_key=KEYS.get(version.key))
            assert report.rows == len(rows(*version.batches))

    @invariant()
    def what_is_read_is_what_the_model_says(self) -> None:
        assert {name: self._standing(name) for name in DATASETS} == self.model

    @invariant()
    def nothing_is_left_over(self) -> None:
        if self.is_clean:
            assert_no_leftovers(self.root, encryption_key=ALL_KEYS)

    def _next_write(self, name: str, key: str | None, append: bool) -> Write:
        """Return a write of a new batch; one that appends to something has a key of that."""
        self.batches += 1
        version = self.model[name]
        fits = version.key if append and version.batches else key
        return Write(name, self.batches, fits, append)

    def _call(self, write: Write, **options: Any) -> Any:
        return DataWriter(self.root).write_dataframe(
            frame(write.batch),
            write.name,
            "parquet",
            encryption_key=KEYS.get(write.key),
            append=write.append,
            write_index=False,
            **options,
        )

    def _attempt(self, call: Callable[[], Any], fault: Fault | None) -> Outcome:
        said: Said = "done"
        failure: BaseException | None = None
        with struck_by(fault) as injection:
            try:
                call()
            except (CommitOutcomeUnknownError, Crash) as error:
                said, failure = "unknown", error
            except DataWriteError as error:
                said, failure = "refused", error
        outcome = Outcome(said, failure, tuple(struck for struck, _ in injection.injected))
        self.is_clean = self.is_clean and outcome.could_clean_up
        return outcome

    def _conclude(self, write: Write, outcome: Outcome, *, never: bool = False) -> None:
        """Settle what stands after a write, which perhaps must `never` count."""
        self.undisturbed.discard(write.name)
        if outcome.said == "unknown":
            self.interrupted[write.name] = write
            self.undisturbed.add(write.name)
        elif self.interrupted.get(write.name) == write:
            del self.interrupted[write.name]
        before = self.model[write.name]
        self._settle(write.name, outcome, before, before if never else write.applied_to(before))

    def _settle(self, name: str, outcome: Outcome, before: Version, after: Version) -> None:
        found = self._standing(name)
        permitted = {"done": {after}, "refused": {before}, "unknown": {before, after}}
        assert found in permitted[outcome.said], f"{found} after {outcome}"
        self.model[name] = found

    def _may_count(self, waiting: Prepared) -> bool:
        """Return whether a write that was prepared may follow what stands by now."""
        stored = self._stored(waiting.write.name)
        if not waiting.write.append:
            return stored == waiting.stored
        if stored is None:
            return True
        shown, sealing = manifest.parse_envelope(stored), waiting.lazy._spec.sealing
        keyed_by = None if shown.sealed is None else shown.keyed_by
        return keyed_by == (None if sealing is None else sealing.keyed_by)

    def _path(self, name: str) -> str:
        return f"{self.root}/output/{name}"

    def _stored(self, name: str) -> bytes | None:
        path = Path(self._path(name), layout.MANIFEST)
        return path.read_bytes() if path.exists() else None

    def _standing(self, name: str) -> Version:
        """Return what stands; it is whole, and opens with its keys and no other."""
        stored = self._stored(name)
        if stored is None:
            return Version()
        shown = manifest.parse_envelope(stored)
        opening = frozenset(KEY_IDS[key["key_id"]] for key in shown.wrapped)
        assert len(opening) == len(shown.wrapped)
        found = {self._read(name, key) for key in opening or [None]}
        for key in KEYS.keys() - opening if opening else ():
            with pytest.raises(WrongKeyError):
                self._read(name, key)
        (batches,) = found
        return Version(batches, opening)

    def _read(self, name: str, key: str | None) -> frozenset[int]:
        """Return which batches stand, every row of them once."""
        found = read_dataset(self._path(name), encryption_key=KEYS.get(key))
        stored = found.compute(scheduler="sync").sort_values(["batch", "row"], ignore_index=True)
        batches = frozenset(int(batch) for batch in stored["batch"].unique())
        pd.testing.assert_frame_equal(stored, rows(*batches), check_dtype=False)
        return batches


TestTaskDirectory = TaskDirectory.TestCase
TestTaskDirectory.settings = settings(
    max_examples=30,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

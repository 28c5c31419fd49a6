"""A fault of every kind at every step of a write: what is said agrees with what stands.

Each case writes a small frame, over an earlier version or for the first time, while one fault
strikes; then what stands is read as if by somebody else, and nothing may be left over.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, Literal

import dask
import dask.dataframe as dd
import pandas as pd
import pytest

from pamola_dwriter import collect_garbage, open_artifact, tasks
from pamola_dwriter.errors import (
    CommitOutcomeUnknownError,
    DataWriteError,
    TargetNotFoundError,
    TargetUnavailableError,
    WriteFailedError,
)
from pamola_dwriter.testing import Crash, Fault, Injection, assert_no_leftovers, inject
from tests.places import Place

PARTITIONS = 4
OLD, NEW = 0, 1000
DELETES = {"discard", "remove", "sweep", "sweep_staged"}

Outcome = Literal["committed", "failed", "unknown", "crashed"]
Version = tuple[int, ...]
"""What was written to make it, in order; empty if there is none."""

KINDS: dict[str, dict[str, Any]] = {
    "refused": {"when": "before"},
    "refused at first": {"when": "before", "transient": True},
    "dropped": {"when": "before", "answered": False},
    "done and refused": {"when": "after"},
    "done and refused at first": {"when": "after", "transient": True},
    "lost": {"when": "lost"},
    "lost at first": {"when": "lost", "transient": True},
    "gone before": {"when": "before", "answered": False, "outage": True},
    "gone after": {"when": "lost", "outage": True},
    "crash before": {"when": "before", "error": Crash, "outage": True},
    "crash after": {"when": "after", "error": Crash, "outage": True},
}
"""What happens; ``at first``: the error says that it passes, and the next try finds it has."""

INTERRUPTIONS = [kind for kind in KINDS if kind.startswith(("gone", "crash"))]

PHASES = {
    "prepare": Fault("check_writable"),
    "stage": Fault("stage", nth=2),
    "publish": Fault("publish"),
    "manifest": Fault("put_if", path="*/_manifest.json"),
    "sweep": Fault("sweep"),
}
"""The one call of a phase that changes something, or would."""

OTHER_CALLS = {
    "prepare: folders": Fault("make_folders"),
    "prepare: version": Fault("read_versioned", path="*/_manifest.json"),
    "prepare: lease": Fault("put_if", path="_staging/*/lease.json"),
    "stage: first": Fault("stage"),
    "stage: last": Fault("stage", nth=PARTITIONS),
    "stage: record": Fault("note", nth=2),
    "commit: version": Fault("read_versioned", path="*/_manifest.json", nth=2),
    "commit: lease": Fault("put_if", path="_staging/*/lease.json", nth=2),
    "publish: half": Fault("publish", items=PARTITIONS // 2),
    "manifest: read back": Fault("read_versioned", path="*/_manifest.json", nth=3),
    "sweep: superseded": Fault("remove"),
}
"""Every other call that a write makes, some of them several times."""

SPREAD_CALLS = {
    "claim: version": Fault("read_versioned", path="*/_manifest.json", nth=2),
    "claim: lease": Fault("put_if", path="_staging/*/lease.json", nth=2),
    "publish: first": Fault("publish"),
    "publish: half of the first": Fault("publish", items=1),
    "publish: last": Fault("publish", nth=2),
    "commit: version": Fault("read_versioned", path="*/_manifest.json", nth=3),
    "commit: lease": Fault("put_if", path="_staging/*/lease.json", nth=3),
    "manifest": PHASES["manifest"],
    "sweep": PHASES["sweep"],
}
"""The calls from the claim on where two tasks publish, with half of the parts each."""

LOST_COMMIT = Fault("put_if", "lost", path="*/_manifest.json")
"""The manifest of a store that is atomic is read back only when the reply to it is lost."""

PHASES_OF_A_FILE = {
    "prepare": Fault("check_writable"),
    "stage": Fault("stage"),
    "manifest": Fault("publish"),  # which is what commits a single file
    "sweep": Fault("sweep_staged"),
}


@dataclass(frozen=True)
class Job:
    """What is written, where, and over what."""

    place: Place
    key: str | None
    before: Version = ()
    is_file: bool = False

    def write(self, version: int, **options: Any) -> None:
        writer = self.place.writer(encryption_key=self.key)
        writer.write_dataframe(frame(version), "d", "parquet", single_file=self.is_file, **options)

    def standing(self) -> Version:
        """Return what stands, which is whole."""
        try:
            found = self._read()
        except TargetNotFoundError:
            return ()
        versions = tuple(version for version in (OLD, NEW) if version in set(found["x"]))
        wanted = pd.concat([rows(version) for version in versions], ignore_index=True)
        pd.testing.assert_frame_equal(found, wanted)
        return versions

    def _read(self) -> pd.DataFrame:
        path = f"{self.place.root}/output/d"
        if not self.is_file:
            return self.place.read(path, encryption_key=self.key)
        path += ".parquet.pdw" if self.key else ".parquet"
        options = {"encryption_key": self.key, "storage_options": self.place.options}
        with open_artifact(path, **options) as file:
            return pd.read_parquet(file).astype(rows(OLD).dtypes).reset_index(drop=True)

    def collect(self) -> None:
        """Remove what a write left that could not clean up."""
        place = self.place
        with patience(retry=0, lease=0):
            collect_garbage(
                place.root,
                older_than=0,
                encryption_key=self.key,
                storage_options=place.options,
            )

    def assert_no_leftovers(self) -> None:
        assert_no_leftovers(
            self.place.root, storage_options=self.place.options, encryption_key=self.key
        )


@dataclass(frozen=True)
class Case:
    """One write with a fault in it, and what was said of it."""

    outcome: Outcome
    error: BaseException | None
    injection: Injection

    @property
    def could_clean_up(self) -> bool:
        """Whether the fault left the write a chance to delete something after it."""
        return self.outcome in ("committed", "failed") and not any(
            fault.outage or (fault.method in DELETES and not fault.transient)
            for fault, _ in self.injection.injected
        )


@pytest.fixture(params=[(OLD,), ()], ids=["overwrite", "first"])
def before(request: pytest.FixtureRequest) -> Version:
    """The version that stands before, if one does."""
    version: Version = request.param
    return version


each_two = pytest.mark.parametrize(
    ("place", "key", "before"),
    [
        pytest.param("posix", None, (OLD,), id="posix-plain-overwrite"),
        pytest.param("posix", "env:PII_KEY", (), id="posix-encrypted-first"),
        pytest.param("s3", None, (), id="s3-plain-first"),
        pytest.param("s3", "env:PII_KEY", (OLD,), id="s3-encrypted-overwrite"),
    ],
    indirect=True,
)
"""Every two of place, key and what stands before meet, in half of all combinations."""


@cache
def frame(version: int) -> dd.DataFrame:
    numbers = range(version, version + 5 * PARTITIONS)
    pdf = pd.DataFrame({"x": numbers, "name": [f"person {n}" for n in numbers]})
    return dd.from_pandas(pdf, npartitions=PARTITIONS)


@cache
def rows(version: int) -> pd.DataFrame:
    return frame(version).compute(scheduler="sync").reset_index(drop=True)


@contextmanager
def patience(*, retry: float, lease: float = 120) -> Iterator[None]:
    settings = {"pamola-dwriter.retry-seconds": retry, "pamola-dwriter.lease-seconds": lease}
    with dask.config.set(settings):
        yield


def strike(job: Job, *faults: Fault, **options: Any) -> Case:
    """Write while `faults` strike; threads that a crash left behind end before this returns."""
    with patience(retry=0):
        for version in job.before:
            job.write(version)
    with (
        inject(*faults) as injection,
        ThreadPoolExecutor(2) as pool,
        dask.config.set(pool=pool),
        patience(retry=5 if any(fault.transient for fault in faults) else 0),
    ):
        try:
            job.write(NEW, **options)
        except CommitOutcomeUnknownError as error:
            return Case("unknown", error, injection)
        except Crash as error:
            return Case("crashed", error, injection)
        except DataWriteError as error:
            return Case("failed", error, injection)
    return Case("committed", None, injection)


def check(job: Job, case: Case, new: Version = (NEW,)) -> None:
    """What was said agrees with what stands, and nothing else does."""
    allowed: dict[Outcome, set[Version]] = {
        "committed": {new},
        "failed": {job.before},
        "unknown": {job.before, new},
        "crashed": {job.before, new},
    }
    found = job.standing()
    assert found in allowed[case.outcome], f"{found} stands"
    if case.outcome == "unknown":
        assert {call.method for call in case.injection.calls}.isdisjoint(DELETES)
    if not case.could_clean_up:
        job.collect()
    job.assert_no_leftovers()
    assert job.standing() == found


def best_outcomes(phase: str, kind: str) -> set[Outcome]:
    """What a write may say at most after a fault, in one phase."""
    if kind.startswith("crash"):
        return {"crashed"}
    if kind.endswith("at first") or phase == "sweep":
        return {"committed"}
    if phase == "manifest" and kind in ("lost", "done and refused"):
        return {"committed"}
    if phase == "manifest" and kind != "refused":
        return {"unknown"}
    # When the store is gone for good, nobody can be asked what stands there.
    return {"failed", "unknown"} if kind.startswith("gone") and phase != "prepare" else {"failed"}


def check_outcome(case: Case, phase: str, kind: str) -> None:
    """The fault has struck, and the write made the best of it."""
    assert case.injection.injected
    assert case.outcome in best_outcomes(phase, kind), repr(case.error)
    assert case.outcome != "failed" or isinstance(case.error, TargetUnavailableError)


@each_two
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", PHASES)
def test_fault(place: Place, key: str | None, before: Version, phase: str, kind: str) -> None:
    """Whatever fails, success means the new version, failure the old one, and never a mix."""
    job = Job(place, key, before)
    case = strike(job, replace(PHASES[phase], **KINDS[kind]))
    check_outcome(case, phase, kind)
    check(job, case)


@each_two
@pytest.mark.parametrize("error", [ZeroDivisionError, Crash])
def test_fault_between_the_calls(
    place: Place,
    key: str | None,
    before: Version,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When no store fails but the gathering of the records, the old version stands."""
    job = Job(place, key, before)

    def gather(records: object) -> None:
        raise error("injected")

    with monkeypatch.context() as patch:
        for version in before:
            job.write(version)
        patch.setattr(tasks, "gather", gather)
        case = strike(replace(job, before=()))
    assert case.outcome == ("crashed" if error is Crash else "failed")
    assert error is Crash or isinstance(case.error, WriteFailedError)
    check(job, case)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", OTHER_CALLS)
@pytest.mark.parametrize(("place", "key"), [("posix", None)], indirect=True)
def test_fault_of_another_call(
    place: Place, key: str | None, before: Version, step: str, kind: str
) -> None:
    """The same for the calls that change nothing readers see, and for those done by half."""
    job = Job(place, key, before)
    others = [LOST_COMMIT] if step == "manifest: read back" else []
    case = strike(job, replace(OTHER_CALLS[step], **KINDS[kind]), *others)
    assert case.injection.injected
    if kind.endswith("at first"):
        assert case.outcome == "committed", repr(case.error)
    check(job, case)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", SPREAD_CALLS)
@pytest.mark.parametrize(
    ("place", "key", "before"),
    [
        pytest.param("posix", "env:PII_KEY", (OLD,), id="posix-encrypted-overwrite"),
        pytest.param("s3", None, (), id="s3-plain-first"),
    ],
    indirect=True,
)
def test_fault_where_tasks_publish(
    place: Place, key: str | None, before: Version, step: str, kind: str
) -> None:
    """The same where publishing is spread over tasks of its own."""
    job = Job(place, key, before)
    with dask.config.set({"pamola-dwriter.gather-width": PARTITIONS // 2}):
        case = strike(job, replace(SPREAD_CALLS[step], **KINDS[kind]))
    if step in PHASES:
        check_outcome(case, step, kind)
    assert case.injection.injected
    if kind.endswith("at first"):
        assert case.outcome == "committed", repr(case.error)
    check(job, case)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    ("place", "key"), [("posix", None), ("posix", "env:PII_KEY")], indirect=True
)
def test_fault_of_an_append(place: Place, key: str | None, phase: str, kind: str) -> None:
    """Rows that are appended are there once or not at all, those before in any case."""
    job = Job(place, key, (OLD,))
    case = strike(job, replace(PHASES[phase], **KINDS[kind]), append=True)
    check_outcome(case, phase, kind)
    check(job, case, new=(OLD, NEW))


@each_two
@pytest.mark.parametrize(
    ("phase", "kind"),
    # No store may answer that it has not done what it has, and of a file none is asked again.
    sorted(set(product(PHASES_OF_A_FILE, KINDS)) - {("manifest", "done and refused")}),
)
def test_fault_of_a_single_file(
    place: Place, key: str | None, before: Version, phase: str, kind: str
) -> None:
    """A single file has no manifest to tell its write by, and the same holds of it."""
    job = Job(place, key, before, is_file=True)
    case = strike(job, replace(PHASES_OF_A_FILE[phase], **KINDS[kind]))
    check_outcome(case, phase, kind)
    check(job, case)


@pytest.mark.parametrize("kind", INTERRUPTIONS)
@pytest.mark.parametrize("phase", PHASES)
def test_interrupted_write_is_resumed(place: Place, key: str | None, phase: str, kind: str) -> None:
    """After an interruption anywhere, the same write with ``resume`` ends and leaves nothing."""
    job = Job(place, key, (OLD,))
    strike(job, replace(PHASES[phase], **KINDS[kind]))
    with patience(retry=0, lease=0):
        job.write(NEW, resume=True)
    assert job.standing() == (NEW,)
    job.assert_no_leftovers()

"""One run: start a write, strike, wait, heal, and compare what stands with the model."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soak.model import Outcome, Row, State, Verdict, Write, judge, permitted, rows_of
from benchmarks.soak.plan import Plan, Strike
from benchmarks.soak.spare import Job, outcome_of
from benchmarks.soak.world import Site, World, pids
from deploy.local.proxy import Line
from pamola_dwriter import collect_garbage, read_dataset
from pamola_dwriter.errors import DataReadError, DataWriteError, TargetNotFoundError
from pamola_dwriter.execution import WriteFuture

KEY = "env:PII_KEY"
LONGEST_WRITE = 150.0
"""Seconds after which a write counts as hung."""

_POLL = 0.01

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Result:
    """What came of a run.

    Attributes
    ----------
    injected : list of str
        Kinds of the faults that struck; those come too late for a write that has ended.
    outcomes : list of str
        What was reported of each write.
    failures : list of str
        What must not be, other than rows lost or doubled.
    """

    number: int
    injected: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Model:
    """What stands in each dataset, and all writes that were ever tried."""

    states: dict[tuple[str, str], State] = field(default_factory=dict)
    writes: dict[int, Write] = field(default_factory=dict)


class Run:
    """The execution of one plan."""

    def __init__(self, plan: Plan, world: World, model: Model) -> None:
        self._plan = plan
        self._world = world
        self._model = model
        self._site = world.sites[plan.store]
        self._started = 0.0
        self._handle: WriteFuture | None = None
        self._racers: list[tuple[Write, WriteFuture | Outcome]] = []
        self._pids: dict[str, int] = {}
        self.result = Result(number=plan.number)

    def execute(self) -> Result:
        """Do all of it; only a broken world raises."""
        begun = time.monotonic()
        self._pids = pids(self._world.client)
        write = self._new_write(2 * self._plan.number, append=self._plan.append)
        outcome = self._write(write)
        writes = [(write, outcome), *self._racing()]
        self.result.outcomes = [outcome.value for _, outcome in writes]
        if "scheduler" in self.result.injected or self.result.failures:
            self._world.replace_crew()
        if "client" in self._plan.kinds:
            self._world.replace_spare()
        self._world.heal()
        self._compare(writes)
        self.result.seconds = round(time.monotonic() - begun, 2)
        return self.result

    def _new_write(self, number: int, *, append: bool) -> Write:
        write = Write(number, self._plan.partitions, append)
        self._model.writes[number] = write
        return write

    def _write(self, write: Write) -> Outcome:
        try:
            self._start(write)
        except DataWriteError as error:
            return outcome_of(error)
        self._started = time.monotonic()
        for strike in self._plan.strikes:
            if self._sleep_until(strike.at) and self._strike(strike):
                self.result.injected.append(strike.kind)
        if self._handle is None:
            return self._world.spare.outcome()
        return self._outcome(self._handle)

    def _start(self, write: Write) -> None:
        job = self._job(write)
        if "client" in self._plan.kinds:
            self._world.spare.start(job)
        else:
            self._handle = job.submit(self._world.client)

    def _job(self, write: Write) -> Job:
        return Job(
            address=self._world.crew.scheduler_address,
            root=self._site.root,
            options=self._site.options,
            dataset=self._plan.dataset,
            key=KEY if self._plan.sealed else None,
            write=write,
            seconds=self._plan.seconds,
        )

    def _sleep_until(self, at: float) -> bool:
        """Sleep until a moment of the write; return whether it still goes on by then."""
        while (left := self._started + at - time.monotonic()) > 0 and self._goes_on():
            time.sleep(min(left, _POLL))
        return self._goes_on()

    def _goes_on(self) -> bool:
        return self._handle is None or not self._handle.done()

    def _strike(self, strike: Strike) -> bool:
        """Inject a fault; return whether that was possible."""
        return bool(getattr(self, f"_strike_{strike.kind}")(strike.draw))

    def _strike_worker(self, draw: float) -> bool:
        addresses = sorted(self._pids)
        return self._kill(addresses[int(draw * len(addresses))]) if addresses else False

    def _strike_committer(self, draw: float) -> bool:
        deadline = time.monotonic() + 5
        while self._goes_on() and time.monotonic() < deadline:
            try:
                address = _committer(self._world.client.processing())
            except OSError:  # the scheduler was killed before
                return False
            if address:
                time.sleep(draw / 3)  # it takes about as long
                return self._kill(address)
            time.sleep(_POLL)
        return False

    def _kill(self, address: str) -> bool:
        pid = self._pids.pop(address, None)  # None: born since, or killed already
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def _strike_scheduler(self, _: float) -> bool:
        self._world.crew.kill_scheduler()
        return True

    def _strike_client(self, _: float) -> bool:
        self._world.spare.kill()
        return True

    def _strike_server(self, draw: float) -> bool:
        assert self._world.server is not None  # noqa: S101 - only drawn for S3
        self._world.server.kill()
        time.sleep(draw)
        self._world.server.start()
        return True

    def _strike_resets(self, draw: float) -> bool:
        assert self._world.network is not None  # noqa: S101 - as above
        self._world.network.line = Line(reset_probability=draw / 3)
        return True

    def _strike_racer(self, draw: float) -> bool:
        write = self._new_write(2 * self._plan.number + 1, append=draw < 0.4)
        try:
            self._racers.append((write, self._job(write).submit(self._world.client)))
        except DataWriteError as error:
            self._racers.append((write, outcome_of(error)))
        return True

    def _strike_gc(self, _: float) -> bool:
        collect(self._site)
        return True

    def _racing(self) -> list[tuple[Write, Outcome]]:
        return [
            (write, racer if isinstance(racer, Outcome) else self._outcome(racer))
            for write, racer in self._racers
        ]

    def _outcome(self, handle: WriteFuture) -> Outcome:
        try:
            return outcome_of(handle.exception(LONGEST_WRITE))
        except TimeoutError:
            self.result.failures.append("a write hung")
        except Exception as error:  # noqa: BLE001 - whatever is no error of ours is a finding
            self.result.failures.append(f"a write raised {error!r}")
        return Outcome.UNKNOWN

    def _compare(self, writes: list[tuple[Write, Outcome]]) -> None:
        dataset = (self._plan.store, self._plan.dataset)
        states = permitted(self._model.states.get(dataset), writes)
        verdict, failure = check(self._site, self._plan.dataset, states, self._model.writes)
        self._model.states[dataset] = verdict.state
        self.result.lost, self.result.doubled = verdict.lost, verdict.doubled
        if failure:
            self.result.failures.append(failure)


def check(
    site: Site, dataset: str, states: set[State], writes: dict[int, Write]
) -> tuple[Verdict, str | None]:
    """Read a dataset and compare it; also return why it could not be read, if so."""
    found, failure = Counter[Row](), None
    try:
        found = read(site, dataset)
    except DataReadError as error:
        failure = f"{dataset} cannot be read: {error!r}"
    return judge(found, states, writes), failure


def read(site: Site, dataset: str) -> Counter[Row]:
    """Read the rows of a dataset, on threads of this process; none if there is no dataset."""
    options: dict[str, Any] = {"storage_options": site.direct}
    if dataset.startswith("sealed"):
        options["encryption_key"] = KEY
    try:
        return rows_of(read_dataset(f"{site.root}/output/{dataset}", **options).compute())
    except TargetNotFoundError:
        return Counter()


def collect(site: Site) -> int:
    """Collect the garbage of a task directory, however young; return how much that was."""
    report = collect_garbage(site.root, older_than="0s", storage_options=site.direct)
    return len(report.removed)


def _committer(processing: dict[str, Any]) -> str | None:
    for address, keys in processing.items():
        if any(str(key).startswith("pamola-commit-") for key in keys):
            return address
    return None

"""A client in a process of its own, to be killed in the middle of its write.

``python -m benchmarks.soak.spare`` imports everything, says that it is ready, and waits for one
job on its standard input: a new process for each run would spend two seconds on imports.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from distributed import Client

from benchmarks.soak.model import Outcome, Write
from pamola_dwriter import DataWriter
from pamola_dwriter.errors import CommitOutcomeUnknownError, DataWriteError
from pamola_dwriter.execution import WriteFuture


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One write, and where."""

    address: str
    root: str
    options: dict[str, Any]
    dataset: str
    key: str | None
    write: Write
    seconds: float

    def submit(self, client: Client) -> WriteFuture:
        """Start the write."""
        writer = DataWriter(self.root, storage_options=self.options, client=client)
        return writer.submit_dataframe(
            self.write.frame(self.seconds),
            self.dataset,
            "parquet",
            encryption_key=self.key,
            append=self.write.append,
            write_index=False,
        )


def outcome_of(error: BaseException | None) -> Outcome:
    """Return what a write reported by ending so.

    Raises
    ------
    BaseException
        It ended with what is no error of ours, which is a fault of ours.
    """
    if error is None:
        return Outcome.COMMITTED
    if isinstance(error, CommitOutcomeUnknownError):
        return Outcome.UNKNOWN
    if isinstance(error, DataWriteError):
        return Outcome.REFUSED
    raise error


class Spare:
    """The process, ready for its job."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak.spare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, job: Job) -> None:
        """Hand over the job, and return once the write is submitted or has failed to be."""
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        self._said()
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        self._said()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def outcome(self) -> Outcome:
        """Wait for the end, and return what was reported: nothing by one that was killed."""
        said = self._said()
        return Outcome(said) if said else Outcome.UNKNOWN

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def _said(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - as above
        return self._process.stdout.readline().strip()


def main() -> None:
    """Do one job and say how it ended."""
    print("ready", flush=True)
    given = json.loads(sys.stdin.readline())
    job = Job(**{**given, "write": Write(**given["write"])})
    with Client(job.address, set_as_default=False) as client:
        try:
            handle = job.submit(client)
        except DataWriteError as error:
            print("submitted", outcome_of(error).value, sep="\n", flush=True)
            return
        print("submitted", flush=True)
        print(outcome_of(handle.exception()).value, flush=True)


if __name__ == "__main__":
    main()

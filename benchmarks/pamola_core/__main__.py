"""Run operations of ``pamola-core`` with its own data writer and with ours, and compare.

``python -m benchmarks.pamola_core`` in an environment that has both packages; every run has a
fresh task directory. What differs between two runs of the reference itself, such as durations,
is left out. Every other difference has to be one of those in ``meant``, else the exit status
is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from pamola_core.utils.ops.op_data_writer import DataWriter as ReferenceWriter

from benchmarks.pamola_core.calls import CALLS
from benchmarks.pamola_core.catalog import cases
from benchmarks.pamola_core.pipelines import PIPELINES
from benchmarks.pamola_core.run import VARIANTS, run_calls, run_case, run_pipeline
from benchmarks.pamola_core.verdict import Job, compare, show, summarize
from pamola_dwriter import DataWriter


def main() -> int:
    """Run what the command line names; return the number for the shell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of the names of comparisons; default all")
    parser.add_argument("--control", action="store_true", help="the reference in our place")
    parser.add_argument("--keep", type=Path, help="new folder to keep the outputs in")
    arguments = parser.parse_args()
    matplotlib.use("Agg")
    warnings.simplefilter("ignore")
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="pamola-core-") as temporary:
        folder = (arguments.keep or Path(temporary)).absolute()
        for job in _jobs(ReferenceWriter if arguments.control else DataWriter):
            if not arguments.only or any(part in job.name for part in arguments.only):
                verdicts.append(compare(job, folder / job.name.replace(" ", "-")))
                show(verdicts[-1])
    return summarize(verdicts)


def _jobs(writer: type[Any]) -> Iterator[Job]:
    control = writer is ReferenceWriter
    for case in cases():
        for variant in VARIANTS:
            execute = variant.reference_executes
            yield Job(
                name=f"{case.name}, {variant.name}",
                reference=partial(run_case, case, variant, ReferenceWriter, execute=execute),
                ours=partial(run_case, case, variant, writer, execute=execute and control),
            )
    for pipeline in PIPELINES:
        yield Job(
            name=f"task: {pipeline.name}",
            reference=partial(run_pipeline, pipeline, ReferenceWriter),
            ours=partial(run_pipeline, pipeline, writer),
        )
    for calls in CALLS:
        yield Job(
            name=f"calls: {calls.name}",
            reference=partial(run_calls, calls, ReferenceWriter),
            ours=partial(run_calls, calls, writer),
        )


if __name__ == "__main__":
    sys.exit(main())

"""The command line of the soak, and its totals."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any

import dask

import benchmarks.soak
from benchmarks.soak.plan import draw
from benchmarks.soak.run import KEY, Model, Result, Run, check, collect
from benchmarks.soak.world import World
from pamola_dwriter.testing import assert_no_leftovers

_LEASE_SECONDS = 3
"""Short, so that what a dead client left is garbage soon; a live write renews its lease."""

_PACKAGES = ("pamola_dwriter", "dask", "distributed", "pandas", "pyarrow", "s3fs")


@dataclass(kw_only=True)
class Totals:
    """What all runs together came to."""

    runs: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    failures: list[str] = field(default_factory=list)
    collected: int = 0
    leftovers: list[str] = field(default_factory=list)
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one run."""
        self.runs += 1
        self.injected.update(result.injected)
        self.outcomes.update(result.outcomes)
        self.lost += result.lost
        self.doubled += result.doubled
        self.failures += [f"run {result.number}: {failure}" for failure in result.failures]
        self.results.append(result)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.failures or self.leftovers)

    def lines(self) -> list[str]:
        """Return what there is to say."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.injected.items()))
        return [
            f"runs               {self.runs}",
            f"faults injected    {self.injected.total()} ({kinds})",
            f"commits            {self.outcomes['committed']}",
            f"refusals           {self.outcomes['refused']}",
            f"unknown outcomes   {self.outcomes['unknown']}",
            f"rows lost          {self.lost}",
            f"rows doubled       {self.doubled}",
            f"other failures     {len(self.failures)}",
            f"garbage collected  {self.collected}",
            f"left after that    {len(self.leftovers)}",
            f"seconds            {self.seconds:.0f}",
            *self.failures,
            *self.leftovers,
        ]


def main() -> int:
    """Run the soak named by the command line; return its exit code."""
    arguments = _parse()
    logging.getLogger("pamola_dwriter").setLevel(logging.CRITICAL)  # failures are the point here
    stores = ("posix", "s3") if arguments.store == "both" else (arguments.store,)
    totals = soak(arguments.seed, range(arguments.first, arguments.first + arguments.runs), stores)
    print("\n".join(totals.lines()))
    if arguments.json:
        arguments.json.write_text(json.dumps(_as_json(arguments, totals), indent=1) + "\n")
    return 0 if totals.is_clean else 1


def soak(seed: int, numbers: range, stores: tuple[str, ...]) -> Totals:
    """Do the runs, then collect the garbage and look at everything once more."""
    begun = time.monotonic()
    os.environ["PII_KEY"] = token_hex(32)
    totals, model = Totals(), Model()
    settings = {
        "distributed.comm.timeouts.connect": "3s",
        "pamola-dwriter.lease-seconds": _LEASE_SECONDS,
    }
    with (
        tempfile.TemporaryDirectory(prefix="pamola-soak-") as folder,
        dask.config.set(settings),
        World(Path(folder), stores, os.environ["PII_KEY"]) as world,
    ):
        for number in numbers:
            plan = draw(seed, number, stores)
            result = Run(plan, world, model).execute()
            totals.add(result)
            _show(plan.as_json(), result)
        time.sleep(_LEASE_SECONDS)
        _finish(world, model, totals)
    totals.seconds = time.monotonic() - begun
    return totals


def _finish(world: World, model: Model, totals: Totals) -> None:
    for site in world.sites.values():
        totals.collected += collect(site)
        try:
            assert_no_leftovers(site.root, storage_options=site.direct, encryption_key=KEY)
        except AssertionError as error:
            totals.leftovers.append(str(error))
    for (store, dataset), state in model.states.items():
        verdict, failure = check(world.sites[store], dataset, {state}, model.writes)
        totals.lost += verdict.lost
        totals.doubled += verdict.doubled
        if failure:
            totals.failures.append(f"at the end: {failure}")


def _show(plan: dict[str, Any], result: Result) -> None:
    print(
        f"{result.number:>4}  {plan['store']:<5}  {plan['dataset']:<8}  "
        f"{'append' if plan['append'] else 'write':<6}  {'+'.join(result.outcomes):<20}  "
        f"{result.seconds:5.1f} s  {' '.join(result.injected)}",
        flush=True,
    )


def _as_json(arguments: argparse.Namespace, totals: Totals) -> dict[str, Any]:
    return {
        "seed": arguments.seed,
        "store": arguments.store,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in _PACKAGES},
        **asdict(totals),
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=benchmarks.soak.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--store", choices=("posix", "s3", "both"), default="both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the results there too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

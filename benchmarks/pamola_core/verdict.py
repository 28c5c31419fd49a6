"""How the reference's run and ours compare, and how that is printed."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.pamola_core.compare import Difference, differences, is_measured
from benchmarks.pamola_core.meant import aligned, rule_for
from benchmarks.pamola_core.run import Outcome

_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Job:
    """A comparison: the reference's run and ours, each in the folder it is given."""

    name: str
    reference: Callable[[Path], Outcome]
    ours: Callable[[Path], Outcome]


@dataclass(kw_only=True)
class Verdict:
    """How one comparison came out; with `failure` of the reference there was none.

    Attributes
    ----------
    files : int
        Files that the reference left.
    volatile : int
        Leaves that differ between two runs of the reference itself.
    """

    name: str
    files: int = 0
    volatile: int = 0
    meant: Counter[str] = field(default_factory=Counter)
    wrong: list[Difference] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    failure: str | None = None


def compare(job: Job, folder: Path) -> Verdict:
    """Run the reference twice and ours once, and compare what they left."""
    theirs, again = _run(job.reference, folder / "reference"), _run(job.reference, folder / "again")
    if failure := _failure(theirs):
        return Verdict(name=job.name, failure=failure)
    ours = _run(job.ours, folder / "ours")
    verdict = Verdict(name=job.name, files=len(theirs.seen["files"]), log=ours.log)
    if "raised" in ours.seen:
        verdict.wrong.append(Difference(("raised",), None, ours.seen["raised"]))
        return verdict
    if not ours.seen.get("succeeded", True):
        verdict.wrong.append(Difference(("succeeded",), True, False))
        return verdict
    volatile = {difference.path for difference in differences(theirs.seen, again.seen)}
    verdict.volatile = len(volatile)
    for difference in differences(theirs.seen, _renamed(theirs.seen, ours.seen, verdict.meant)):
        if difference.path in volatile or is_measured(difference):
            continue
        if rule := rule_for(difference):
            verdict.meant[rule.name] += 1
        else:
            verdict.wrong.append(difference)
    return verdict


def _run(start: Callable[[Path], Outcome], root: Path) -> Outcome:
    root.mkdir(parents=True)
    try:
        return start(root)
    except Exception as error:  # noqa: BLE001 - whatever it raises is how it came out
        return Outcome(seen={"raised": f"{type(error).__name__}: {error}", "files": {}}, log=[])


def _failure(outcome: Outcome) -> str | None:
    if "raised" in outcome.seen:
        return str(outcome.seen["raised"])
    if not outcome.seen.get("succeeded", True):
        return "the task ended with an error"
    results = outcome.seen.get("results", [])
    return next((one["error"] for one in results if one["status"] == "ERROR"), None)


def _renamed(theirs: dict[str, Any], ours: dict[str, Any], meant: Counter[str]) -> dict[str, Any]:
    files, reasons = aligned(theirs["files"], ours["files"])
    meant.update(reasons)
    renamed = {**ours, "files": files}
    if "results" in ours:
        renamed["results"] = [
            {**one, "artifacts": aligned(theirs["files"], one["artifacts"])[0]}
            for one in ours["results"]
        ]
    return renamed


def show(verdict: Verdict) -> None:
    """Print one line for a comparison, and below it what is wrong."""
    if verdict.failure is not None:
        print(f"{verdict.name:<40} -       the reference fails: {verdict.failure[:100]}")
        return
    state = "DIFFERS" if verdict.wrong else "same"
    meant = sum(verdict.meant.values())
    print(
        f"{verdict.name:<40} {state:<8}{verdict.files:>3} files"
        f"{verdict.volatile:>5} volatile{meant:>6} meant"
    )
    kinds: dict[str, list[Difference]] = {}
    for difference in verdict.wrong:
        kind = re.sub(r" > \d+", " > *", " > ".join(difference.path))
        kinds.setdefault(kind, []).append(difference)
    for alike in list(kinds.values())[:_SHOWN]:
        print(f"    {alike[0]}" + (f" and {len(alike) - 1} alike" if len(alike) > 1 else ""))
    if len(kinds) > _SHOWN:
        print(f"    and {len(kinds) - _SHOWN} other kinds")
    for line in verdict.log[:_SHOWN] if verdict.wrong else []:
        print(f"    {line[:200]}")
    sys.stdout.flush()


def summarize(verdicts: list[Verdict]) -> int:
    """Print the differences that are meant and the totals; return the number for the shell."""
    compared = [verdict for verdict in verdicts if verdict.failure is None]
    wrong = sum(bool(verdict.wrong) for verdict in compared)
    meant = sum((verdict.meant for verdict in compared), Counter[str]())
    print("\nmeant:")
    for name, count in meant.most_common():
        print(f"{count:>7}  {name}")
    left_out = len(verdicts) - len(compared)
    print(f"\n{len(compared)} compared, {wrong} differ; the reference fails in {left_out}")
    return 1 if wrong or not compared else 0

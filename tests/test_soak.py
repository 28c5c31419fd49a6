"""A short slice of the soak: faults at random moments lose no row and double none."""

from __future__ import annotations

import pytest

from benchmarks.soak.__main__ import soak
from benchmarks.soak.model import Outcome, Write, judge, permitted
from benchmarks.soak.plan import draw

SEED, RUNS = 3, 6
STORES = ("posix", "s3")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_slice_of_the_soak_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers, clients and servers die in it, and what stands is what was reported."""
    monkeypatch.setenv("PII_KEY", "drawn anew by the soak")
    totals = soak(SEED, range(RUNS), STORES)
    assert totals.is_clean, "\n".join(totals.lines())
    assert totals.runs == RUNS
    assert totals.outcomes["committed"] > 0
    assert totals.injected.total() >= RUNS // 2


def test_a_seed_is_a_plan() -> None:
    """The same seed draws the same faults, another one others, and each kind gets its turn."""
    plans = [draw(SEED, number, STORES) for number in range(200)]
    assert plans == [draw(SEED, number, STORES) for number in range(200)]
    assert plans != [draw(SEED + 1, number, STORES) for number in range(200)]
    kinds = set[str]().union(*(plan.kinds for plan in plans))
    assert kinds == {
        *("worker", "committer", "scheduler", "client", "server", "resets", "racer", "gc")
    }


@pytest.mark.parametrize(
    ("outcome", "states"),
    [
        (Outcome.COMMITTED, {(1, 2)}),
        (Outcome.REFUSED, {(1,)}),
        (Outcome.UNKNOWN, {(1,), (1, 2)}),
    ],
)
def test_rows_are_counted_against_what_was_reported(
    outcome: Outcome, states: set[tuple[int, ...]]
) -> None:
    """A lost row and a doubled one are found, whatever an append said of itself."""
    first, second = Write(1, 3), Write(2, 3, append=True)
    assert permitted((1,), [(second, outcome)]) == states
    writes = {1: first, 2: second}
    for state in states:
        whole = sum((writes[number].rows() for number in state[1:]), first.rows())
        assert (judge(whole, states, writes).lost, judge(whole, states, writes).doubled) == (0, 0)
        row = next(iter(first.rows()))
        assert judge(whole + type(whole)([row]), states, writes).doubled == 1
        assert judge(whole - type(whole)([row]), states, writes).lost == 1

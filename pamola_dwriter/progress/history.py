"""How far a write had come at times past, in bounded memory; the pace follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

_MOST = 240
"""Samples kept; when there are more, every other is dropped and they are taken half as often."""

_FIRST_INTERVAL = 0.5
"""Seconds between samples at the beginning."""

_WINDOW = 30.0
"""Seconds that the present pace is measured over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How much was done at a time.

    Attributes
    ----------
    time : float
        Seconds since the epoch.
    fraction : float
        Of all tasks of partitions, from 0 to 1.
    """

    time: float
    partitions: int
    rows: int
    size_bytes: int
    memory_bytes: int
    fraction: float


@dataclass(slots=True)
class History:
    """Samples of one write, in order of time."""

    samples: list[Sample] = field(default_factory=list)
    interval: float = _FIRST_INTERVAL

    def is_due(self, now: float) -> bool:
        """Return whether it is time for another sample."""
        return not self.samples or now - self.samples[-1].time >= self.interval

    def add(self, sample: Sample) -> None:
        """Keep a sample, and thin the old ones out when there are too many."""
        self.samples.append(sample)
        if len(self.samples) > _MOST:
            # The first stays, for it says when the write began.
            self.samples = self.samples[::2]
            self.interval *= 2

    def lately(self, now: float) -> Sample | None:
        """Return the last sample that is older than the window, or else the first."""
        older = [one for one in self.samples if one.time <= now - _WINDOW]
        return older[-1] if older else next(iter(self.samples), None)

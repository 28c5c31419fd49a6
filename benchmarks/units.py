"""Spell figures and ratios with three digits, and figures with a unit that fits their size."""

from __future__ import annotations

_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
}


def spell(value: float, unit: str) -> str:
    """Return a figure with its unit.

    Parameters
    ----------
    unit : str
        ``s``, ``bytes``, or one of these with words behind it (``s a record``); another one is
        left as it is.
    """
    base, _, words = unit.partition(" ")
    scales = _SCALES.get(base, ((1.0, base),))
    size, name = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    return " ".join(filter(None, (digits(value / size), name, words)))


def digits(value: float) -> str:
    """Return a number with three digits or, if it takes more, as an integer."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"

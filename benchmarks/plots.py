"""Plots of comparisons: bars of ratios with their spread, and a mark where a target is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.measuring import Comparison
from benchmarks.units import digits, spell

_INK, _PALE, _BAR, _OURS, _TARGET = "#333333", "#d9d9d9", "#a6bddb", "#2b8cbe", "#d95f0e"
_WIDTH, _BAR_HEIGHT, _HEAD_HEIGHT = 8.0, 0.3, 0.75
_WIDE = 12.0
"""From this ratio on the axis is logarithmic."""

# No random ids, and text as text: small files, the same for the same results.
_STYLE = {"svg.hashsalt": "pamola", "svg.fonttype": "none", "font.size": 9}


def draw(comparisons: Sequence[Comparison], file: Path) -> None:
    """Draw comparisons that have a peer, one above the other, as an SVG file."""
    heights = [_HEAD_HEIGHT + _BAR_HEIGHT * len(_candidates(each)) for each in comparisons]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained", facecolor="white")
        canvas = FigureCanvasSVG(figure)
        rows = figure.subplots(len(comparisons), squeeze=False, height_ratios=heights)
        for axes, comparison in zip(rows[:, 0], comparisons, strict=True):
            _draw_one(axes, comparison)
        canvas.print_svg(str(file), metadata={"Date": None})


def _candidates(comparison: Comparison) -> list[str]:
    return [name for name in comparison.figures if name != comparison.peer]


def _ratios_aimed_at(comparison: Comparison, name: str) -> list[float]:
    bounds = (comparison.targets.get(name), comparison.at_least.get(name))
    return [bound for bound in bounds if bound is not None]


def _draw_one(axes: Axes, comparison: Comparison) -> None:
    largest, smallest = 1.0, 1.0
    names = _candidates(comparison)
    for row, name in enumerate(names):
        ratio = comparison.ratio(name)
        if ratio is None:
            continue
        largest, smallest = max(largest, ratio.high), min(smallest, ratio.low)
        aims = _ratios_aimed_at(comparison, name)
        color = _OURS if name.startswith("ours") else _BAR
        axes.barh(row, ratio.median, color=color, height=0.62)
        axes.plot([ratio.low, ratio.high], [row, row], color=_INK, linewidth=1.2)
        axes.annotate(
            f"{digits(ratio.median)} ({spell(comparison.median(name), comparison.unit)})",
            (max([ratio.high, *(aim for aim in aims if aim < 1.6 * ratio.median)]), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=_INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
        for aim in aims:
            axes.plot([aim, aim], [row - 0.42, row + 0.42], color=_TARGET, linewidth=2.2)
    _set_limits(axes, smallest, largest)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    _label(axes, comparison)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=_PALE, linewidth=0.6)
    axes.set_axisbelow(True)


def _set_limits(axes: Axes, smallest: float, largest: float) -> None:
    """Show from zero on or, where ratios are large, all of them by a logarithm."""
    if largest > _WIDE:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(smallest * 0.7, largest * 3)
    else:
        axes.set_xlim(0, largest * 1.25)
    axes.axvline(1.0, color=_INK, linewidth=0.8, linestyle=":")


def _label(axes: Axes, comparison: Comparison) -> None:
    peer = str(comparison.peer)
    words = f"times {peer} ({spell(comparison.median(peer), comparison.unit)})"
    if any(_ratios_aimed_at(comparison, name) for name in comparison.figures):
        words += "; orange: target"
    axes.set_title(comparison.title, loc="left", fontsize=9, wrap=True)
    axes.set_xlabel(words, fontsize=8)

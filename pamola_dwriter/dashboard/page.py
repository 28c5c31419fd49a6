"""The page itself: Bokeh models, and their update from the folds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    Div,
    FactorRange,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    NumeralTickFormatter,
)
from bokeh.plotting import figure

from pamola_dwriter.dashboard import columns, texts
from pamola_dwriter.dashboard.style import Look
from pamola_dwriter.progress import Fold, Snapshot
from pamola_dwriter.spec import WriteId

_FEW = 120
"""Cells in a row of the grid up to which they are parted by lines."""


class WritesPage:
    """The page of one session.

    Parameters
    ----------
    look : Look
        Colours.
    asked : str, optional
        Id of the write whose details are shown; by default the newest.
    """

    def __init__(self, look: Look, asked: str | None) -> None:
        self._look = look
        self._asked = asked
        self._seen: object = None
        self.stages = ColumnDataSource(columns.stages({}), name="stages")
        self.throughput = ColumnDataSource(columns.throughput([]), name="throughput")
        self.workers = ColumnDataSource(columns.workers({}), name="workers")
        self.grid = ColumnDataSource({"cells": [], "dw": [], "dh": []}, name="grid")
        self._writes, self._headline, self._failures = self._div(), self._div(), self._div()
        self._stage_range, self._worker_range = FactorRange(), FactorRange()
        self._grid_plot = self._draw_grid()
        self._writes.text = texts.EMPTY
        self._details = column(
            self._headline,
            row(self._draw_stages(), self._draw_throughput(), sizing_mode="stretch_width"),
            row(self._draw_workers(), self._failures, sizing_mode="stretch_width"),
            self._grid_plot,
            self._div(look.legend),
            sizing_mode="stretch_width",
            visible=False,
        )
        self.root = column(self._writes, self._details, sizing_mode="stretch_width")

    def update(self, folds: Mapping[WriteId, Fold]) -> None:
        """Show the folds as they are now; what has not changed is left alone."""
        now = time.time()
        snapshots = {write_id: fold.snapshot(now) for write_id, fold in folds.items()}
        if not snapshots:
            return
        newest = max(snapshots.values(), key=lambda one: one.started)
        chosen = next((one for one in snapshots.values() if one.write_id == self._asked), newest)
        self._details.visible = True
        self._writes.text = texts.writes_table(
            snapshots.values(), chosen.write_id, self._look.scheme
        )
        self._headline.text = texts.headline(chosen)
        seen = (chosen.write_id, chosen.status, chosen.stages, chosen.size_bytes)
        if seen != self._seen:
            self._seen = seen
            self._show(folds[chosen.write_id], chosen)

    def _show(self, fold: Fold, snapshot: Snapshot) -> None:
        _replace(self.stages, columns.stages(snapshot.stages), self._stage_range, "stage")
        _replace(self.throughput, columns.throughput(fold.history.samples))
        _replace(self.workers, columns.workers(fold.by_worker), self._worker_range, "worker")
        self._failures.text = texts.failures_table(snapshot.failures)
        self._show_grid(columns.grid(fold.partition_states()), snapshot.partitions)

    def _show_grid(self, made: columns.Grid, partitions: int) -> None:
        shown = self.grid.data["cells"]
        if len(shown) and np.array_equal(shown[0], made.cells[::-1], equal_nan=True):
            return
        high, wide = made.cells.shape
        self.grid.data = {"cells": [made.cells[::-1]], "dw": [wide], "dh": [high]}
        few = wide <= _FEW
        self._grid_plot.xgrid.ticker = FixedTicker(ticks=list(range(wide + 1)) if few else [])
        self._grid_plot.ygrid.ticker = FixedTicker(ticks=list(range(high + 1)) if few else [])
        stands_for = "partition" if made.per_cell == 1 else f"{made.per_cell:,} partitions"
        self._grid_plot.title.text = f"{partitions:,} partitions, one cell for each {stands_for}"

    def _div(self, text: str = "") -> Div:
        return Div(text=text, sizing_mode="stretch_width", stylesheets=[self._look.css])

    def _draw_stages(self) -> figure:
        plot = self._figure("Stages", height=290, y_range=self._stage_range, x_range=(0, 1))
        plot.hbar_stack(
            columns.COUNTED,
            y="stage",
            height=0.4,
            source=self.stages,
            color=[self._look.tasks[name] for name in columns.COUNTED],
            line_color=None,
        )
        plot.text(
            x=0,
            y="stage",
            text="text",
            y_offset=-9,
            source=self.stages,
            text_font_size="11px",
            text_baseline="bottom",
            text_color=self._look.ink,
        )
        plot.xaxis.formatter = NumeralTickFormatter(format="0%")
        tips = [(name, f"@{name}_tasks{{0,0}}") for name in columns.COUNTED]
        plot.add_tools(HoverTool(tooltips=[("stage", "@stage"), *tips]))
        return plot

    def _draw_throughput(self) -> figure:
        plot = self._figure("Bytes a second", height=290)
        for name, label, color in [
            ("taken_in", "taken in", self._look.second),
            ("stored", "stored", self._look.first),
        ]:
            plot.line(
                "seconds",
                name,
                source=self.throughput,
                legend_label=label,
                color=color,
                line_width=2,
            )
        plot.yaxis.formatter = NumeralTickFormatter(format="0.0 b")
        plot.xaxis.axis_label = "seconds since the beginning"
        plot.y_range.start = 0
        plot.legend.location = "top_left"
        plot.legend.orientation = "horizontal"
        plot.legend.background_fill_alpha = 0
        plot.legend.border_line_alpha = 0
        plot.legend.label_text_color = self._look.ink
        plot.add_tools(
            HoverTool(
                tooltips=[
                    ("stored", "@stored{0.0 b}/s"),
                    ("taken in", "@taken_in{0.0 b}/s"),
                    ("after", "@seconds{0.0} s"),
                ],
                mode="vline",
            )
        )
        return plot

    def _draw_workers(self) -> figure:
        plot = self._figure("Stored by each worker", y_range=self._worker_range)
        plot.hbar(
            y="worker",
            right="size_bytes",
            height=0.6,
            source=self.workers,
            color=self._look.first,
        )
        plot.xaxis.formatter = NumeralTickFormatter(format="0.0 b")
        plot.x_range.start = 0
        plot.add_tools(HoverTool(tooltips=[("worker", "@worker"), ("stored", "@text")]))
        return plot

    def _draw_grid(self) -> figure:
        plot = self._figure("Partitions", height=230)
        mapper = LinearColorMapper(
            palette=self._look.partitions,
            low=-0.5,
            high=len(self._look.partitions) - 0.5,
            nan_color="rgba(0, 0, 0, 0)",
        )
        plot.image("cells", x=0, y=0, dw="dw", dh="dh", source=self.grid, color_mapper=mapper)
        plot.axis.visible = False
        plot.grid.level = "overlay"
        plot.grid.grid_line_color = self._look.paper
        plot.x_range.range_padding = plot.y_range.range_padding = 0
        return plot

    def _figure(self, title: str, height: int = 220, **options: Any) -> figure:
        plot = figure(
            title=title,
            height=height,
            tools="",
            toolbar_location=None,
            sizing_mode="stretch_width",
            **options,
        )
        self._look.apply(plot)
        return plot


def _replace(
    source: ColumnDataSource,
    data: columns.Columns,
    factors: FactorRange | None = None,
    factor: str = "",
) -> None:
    """Set columns that have changed; their labels first, or nothing has a place."""
    if factors is not None and factors.factors != data[factor]:
        factors.factors = data[factor]
    if source.data != data:
        source.data = data

"""Colours of the page, light and dark; told apart also by those who see few colours.

After the palette of M. Okabe and K. Ito, Color Universal Design (2008).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_BLUE, _SKY, _ORANGE, _YELLOW = "#0072B2", "#56B4E9", "#E69F00", "#F0E442"
_PURPLE, _PINK, _VERMILION = "#9B5C85", "#CC79A7", "#D55E00"

_CSS = """
:host { color: INK; font: 13px/1.45 system-ui, sans-serif; }
.bk-clearfix { width: 100%; }
a { color: INK; }
.headline { display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap; margin-top: 6px; }
.name { font-size: 17px; overflow-wrap: anywhere; }
.about, .soft { color: SOFT; overflow-wrap: anywhere; }
.status { padding: 1px 9px; border-radius: 9px; color: white; background: #667085; }
.status.running { background: #0072B2; }
.status.committed { background: #00785A; }
.status.failed { background: #B84A00; }
.figures { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 8px 0 4px; }
.figure { display: flex; flex-direction: column; min-width: 62px; }
.figure b { font-size: 16px; font-variant-numeric: tabular-nums; }
.figure span { color: SOFT; font-size: 11px; }
.scroll { max-height: 172px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: 12px; color: SOFT; background: PANEL;
  position: sticky; top: 0; }
th, td { padding: 4px 8px; border-bottom: 1px solid LINE; white-space: nowrap; }
td:first-child { max-width: 260px; overflow: hidden; text-overflow: ellipsis; }
tr.chosen td { background: PANEL; font-weight: 600; }
.share { display: block; padding: 0 5px; border-radius: 3px;
  background: linear-gradient(to right, BAR var(--share), transparent var(--share)); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; color: SOFT; font-size: 12px; }
.legend i { display: inline-block; width: 11px; height: 11px; margin-right: 5px; }
.title { font-size: 13px; }
.empty { font-size: 15px; color: SOFT; margin: 30px 4px; }
"""

_PAGE = """
html { background: PAPER; color-scheme: SCHEME; }
body { margin: 0; padding: 10px 16px 20px !important; box-sizing: border-box; color: INK;
  font: 13px/1.45 system-ui, sans-serif; }
a { color: INK; }
nav { display: flex; gap: 16px; align-items: baseline; margin-bottom: 8px; }
nav h1 { font-size: 18px; margin: 0 8px 0 0; }
nav .last { margin-left: auto; }
"""


@dataclass(frozen=True)
class Look:
    """How the page looks.

    Attributes
    ----------
    scheme : str
        ``light`` or ``dark``.
    paper, panel, ink, soft, line, bar, waiting : str
        Colours of the background, of what stands out from it, of text, of lesser text, of lines,
        of the share that is done behind a number, and of what waits.
    """

    scheme: str
    paper: str
    panel: str
    ink: str
    soft: str
    line: str
    bar: str
    waiting: str
    first: str = _BLUE
    second: str = _ORANGE
    tasks: dict[str, str] = field(init=False)
    partitions: list[str] = field(init=False)

    def __post_init__(self) -> None:
        tasks = {
            "done": _BLUE,
            "running": _SKY,
            "waiting": self.waiting,
            "failed": _VERMILION,
            "cancelled": self.soft,
        }
        object.__setattr__(self, "tasks", tasks)
        named = dict(zip(_STATES, [self.waiting, *_STATE_COLORS], strict=True))
        object.__setattr__(self, "partitions", list(named.values()))

    @property
    def legend(self) -> str:
        """The states of partitions with their colours, as HTML."""
        marks = "".join(
            f"<span><i style='background:{color}'></i>{state}</span>"
            for state, color in zip(_STATES, self.partitions, strict=True)
        )
        return f"<div class='legend'>{marks}</div>"

    @property
    def css(self) -> str:
        """Style of text beside the plots."""
        return self._fill(_CSS)

    @property
    def page(self) -> str:
        """Style of the document."""
        return self._fill(_PAGE)

    def apply(self, plot: Any) -> None:
        """Give a Bokeh figure these colours."""
        plot.background_fill_color = plot.border_fill_color = self.paper
        plot.outline_line_color = None
        plot.title.text_color = self.ink
        plot.title.text_font_size = "13px"
        plot.title.text_font = "system-ui, sans-serif"
        plot.grid.grid_line_color = self.line
        plot.axis.axis_line_color = plot.axis.major_tick_line_color = self.line
        plot.axis.minor_tick_line_color = None
        plot.axis.major_label_text_color = plot.axis.axis_label_text_color = self.soft
        plot.axis.axis_label_text_font_style = "normal"

    def _fill(self, text: str) -> str:
        for name in ("scheme", "paper", "panel", "ink", "soft", "line", "bar"):
            text = text.replace(name.upper(), getattr(self, name))
        return text


_STATES = [
    *("waiting", "serializing", "serialized", "encrypting", "encrypted", "storing"),
    *("stored", "failed", "partly stored"),
]
_STATE_COLORS = [_ORANGE, _YELLOW, _PURPLE, _PINK, _SKY, _BLUE, _VERMILION, "#7FB2D6"]

LIGHT = Look(
    scheme="light",
    paper="#ffffff",
    panel="#f2f4f7",
    ink="#1d2939",
    soft="#5d6879",
    line="#e4e7ec",
    bar="#cfe5f5",
    waiting="#d0d5dd",
)
DARK = Look(
    scheme="dark",
    paper="#15191f",
    panel="#1f2630",
    ink="#e6e9ee",
    soft="#9aa4b5",
    line="#2c3440",
    bar="#1c4a68",
    waiting="#3a4452",
)

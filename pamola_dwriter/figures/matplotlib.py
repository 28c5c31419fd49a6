"""Figures of Matplotlib, and of what is built on it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pamola_dwriter.figures.page import picture_page
from pamola_dwriter.figures.pillow import png_to_jpg
from pamola_dwriter.figures.renderer import FORMATS, Renderer, unsupported

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Its text layout and its settings are shared by all threads. Re-entrant, since drawing calls back.
_DRAWING = threading.RLock()

# Format to the backend that draws it, and the metadata to leave out: with a date no two files
# would be the same.
_BACKENDS: dict[str, tuple[str, dict[str, None]]] = {
    "png": ("agg", {}),
    "svg": ("svg", {"Date": None}),
    "pdf": ("pdf", {"CreationDate": None}),
}


def close(drawn: Any) -> None:
    """Make pyplot forget the figure of `drawn`, if it knows it.

    Only a pyplot that the caller imported can: importing it here might start a backend.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(_figure_of(drawn))


def _draw(drawn: Any, format_name: str) -> bytes:
    figure = _figure_of(drawn)
    if format_name == "jpg":
        return png_to_jpg(_save(figure, "png"))
    if format_name == "html":
        return picture_page(_title(figure), "image/svg+xml", _save(figure, "svg"))
    return _save(figure, format_name)


def _figure_of(drawn: Any) -> Figure:
    from matplotlib.figure import Figure

    owner = drawn
    while owner is not None and not isinstance(owner, Figure):
        owner = getattr(owner, "figure", None)  # of axes in a subfigure that, and then its figure
    if owner is None:
        raise unsupported(drawn)
    return owner


def _save(figure: Figure, format_name: str) -> bytes:
    buffer = io.BytesIO()
    backend, metadata = _BACKENDS[format_name]
    with _DRAWING, _repeatable_ids():
        # Naming the backend lends the figure a canvas without a window, whatever canvas it has.
        figure.savefig(buffer, format=format_name, backend=backend, metadata=metadata)
    return buffer.getvalue()


@contextmanager
def _repeatable_ids() -> Iterator[None]:
    """Salt the ids in an SVG by a constant, unless the caller has chosen a salt.

    Only this one setting is touched: ``rc_context`` would put back all of them, and so undo what
    another thread sets meanwhile.
    """
    from matplotlib import rcParams

    salt = rcParams["svg.hashsalt"]
    if salt is None:
        rcParams["svg.hashsalt"] = "pamola_dwriter"
    try:
        yield
    finally:
        rcParams["svg.hashsalt"] = salt


def _title(figure: Figure) -> str:
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return next((title for title in titles if title), "Figure")


MATPLOTLIB = Renderer(formats=FORMATS, draw=_draw)

"""Figures of Plotly.

Its html holds plotly.js, so it works without a network. All else is drawn by the package kaleido,
which runs a browser.
"""

from __future__ import annotations

from typing import Any

from pamola_dwriter.errors import InvalidWriteError
from pamola_dwriter.figures.renderer import FORMATS, Renderer, check_installed, unsupported


def _draw(figure: Any, format_name: str) -> bytes:
    if not hasattr(figure, "to_image"):  # a trace or a layout
        raise unsupported(figure)
    if format_name == "html":
        # By default the id is drawn at random, and no two files would be the same.
        page: str = figure.to_html(include_plotlyjs=True, full_html=True, div_id="figure")
        return page.encode()
    check_installed("kaleido", "kaleido", f"a Plotly figure as {format_name}")
    try:
        image: bytes = figure.to_image(format=format_name)
    except Exception as error:
        if _lacks_browser(error):
            raise InvalidWriteError(
                f"a Plotly figure is drawn as {format_name} by a browser: install Chrome or "
                "Chromium; or choose html"
            ) from error
        raise
    return image


def _lacks_browser(error: Exception) -> bool:
    # Plotly raises a RuntimeError in its place. By name: the class moved between releases.
    names = {type(error).__name__, type(error.__context__).__name__}
    return "ChromeNotFoundError" in names


PLOTLY = Renderer(formats=FORMATS, draw=_draw)

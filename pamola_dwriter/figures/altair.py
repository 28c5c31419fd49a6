"""Charts of Altair, through the package vl-convert-python: without a browser or a network."""

from __future__ import annotations

from typing import Any

from pamola_dwriter.figures.generic import saved
from pamola_dwriter.figures.pillow import png_to_jpg
from pamola_dwriter.figures.renderer import FORMATS, Renderer, check_installed, unsupported


def _draw(figure: Any, format_name: str) -> bytes:
    if not hasattr(figure, "to_html"):  # an encoding or a part of a chart
        raise unsupported(figure)
    check_installed("vl-convert-python", "vl_convert", f"an Altair chart as {format_name}")
    if format_name == "html":
        # By default the page fetches its scripts from a network.
        page: str = figure.to_html(inline=True)
        return page.encode()
    if format_name == "jpg":
        return png_to_jpg(saved(figure.save, "png"))
    return saved(figure.save, format_name)


ALTAIR = Renderer(formats=FORMATS, draw=_draw)

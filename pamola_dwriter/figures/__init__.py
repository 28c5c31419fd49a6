"""Figures of any plotting library as the bytes of one file, drawn off-screen.

``_LIBRARIES`` is the table from library to renderer; a new one is one module and one line. A
figure is told by the modules of its classes, so no plotting library is imported here: whoever
holds one of its figures has imported it.
"""

from __future__ import annotations

from typing import Any

from pamola_dwriter.errors import (
    DataWriteError,
    UnknownFormatError,
    UnsupportedDataError,
    WriteFailedError,
)
from pamola_dwriter.figures import matplotlib
from pamola_dwriter.figures.altair import ALTAIR
from pamola_dwriter.figures.bokeh import BOKEH
from pamola_dwriter.figures.generic import GENERIC
from pamola_dwriter.figures.matplotlib import MATPLOTLIB
from pamola_dwriter.figures.pillow import PILLOW
from pamola_dwriter.figures.plotly import PLOTLY
from pamola_dwriter.figures.renderer import FORMATS, Renderer, kind

__all__ = ["FORMATS", "check_format", "close", "render"]

_LIBRARIES: dict[str, Renderer] = {
    "PIL": PILLOW,
    "altair": ALTAIR,
    "bokeh": BOKEH,
    "matplotlib": MATPLOTLIB,
    "plotly": PLOTLY,
}

_ALIASES = {"jpeg": "jpg"}


def check_format(name: str) -> str:
    """Return the name of a format, in lower case (``jpeg`` is ``jpg``); it is the extension too.

    Raises
    ------
    UnknownFormatError
        There is no such format.
    """
    lower = str(name).lower()
    canonical = _ALIASES.get(lower, lower)
    if canonical not in FORMATS:
        raise UnknownFormatError(
            f"unknown figure format {name!r}; choose one of {', '.join(FORMATS)}"
        )
    return canonical


def render(figure: Any, format: str) -> bytes:  # noqa: A002 - the specified name
    """Draw a figure and return the bytes of its file.

    No window opens, no display is needed, and the figure stays as it was, with pyplot's current
    figure and its settings. The same figure of Matplotlib, Pillow or Plotly (as html) gives the
    same bytes; with Matplotlib's tight layout, which moves the axes at each drawing, it may not.

    Parameters
    ----------
    figure : object
        - of Matplotlib a figure, axes or other artist that stands in a figure; also whatever
          has one as ``figure``, as the grids of seaborn do;
        - of Bokeh a plot, layout, widget or document; of Plotly a figure; of Altair a chart; of
          Pillow an image;
        - any other object with ``savefig`` or ``save``, or for html ``to_html`` or
          ``write_html``.
    format : str
        One of `FORMATS`. Whatever the library, html needs no network to be looked at.

    Raises
    ------
    UnknownFormatError
        There is no such format.
    UnsupportedDataError
        It is no figure, or its library does not have this format; says what is accepted.
    InvalidWriteError
        The library needs another package or a browser for this format; says which.
    WriteFailedError
        The library failed to draw it; the cause is chained.

    Notes
    -----
    Bokeh (all but html) and an object whose ``save`` takes only a path draw by way of a file,
    which is removed afterwards. It is not encrypted, whatever becomes of the bytes.
    """
    name = check_format(format)
    try:
        return _draw(figure, name)
    except DataWriteError:
        raise
    except Exception as error:
        raise WriteFailedError(
            f"drawing a {kind(figure)} as {name} failed with {type(error).__name__}"
        ) from error


def close(figure: Any) -> None:
    """Let pyplot go of a figure that has been written, so that a loop does not collect them.

    It is not part of :func:`render`, since a write that fails afterwards must be repeatable. The
    figure itself stays whole and can be written again; but ``plt.gcf()`` no longer gives it, and
    its window, if it has one, closes. Figures that pyplot does not know are left alone.
    """
    renderer, drawn = _choose(figure)
    if renderer is MATPLOTLIB:
        matplotlib.close(drawn)


def _draw(figure: Any, format_name: str) -> bytes:
    renderer, drawn = _choose(figure)
    if format_name not in renderer.formats:
        raise UnsupportedDataError(
            f"a {kind(figure)} cannot be written as {format_name}; "
            f"choose one of {', '.join(renderer.formats)}"
        )
    return renderer.draw(drawn, format_name)


def _choose(figure: Any) -> tuple[Renderer, Any]:
    """Return who draws it, and what of it: the figure inside a grid of seaborn."""
    for drawn in (figure, getattr(figure, "figure", None)):
        for base in type(drawn).__mro__:
            renderer = _LIBRARIES.get(base.__module__.partition(".")[0])
            if renderer is not None:
                return renderer, drawn
    return GENERIC, figure

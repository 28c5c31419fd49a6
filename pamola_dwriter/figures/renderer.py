"""What one library's module offers, and the errors that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pamola_dwriter.errors import InvalidWriteError, UnsupportedDataError

FORMATS = ("png", "svg", "pdf", "html", "jpg")


@dataclass(frozen=True, slots=True)
class Renderer:
    """One plotting library.

    Attributes
    ----------
    formats : tuple of str
        Those of `FORMATS` that it has.
    draw : callable
        Returns the bytes of a file, given a figure and one of `formats`; it changes neither the
        figure nor any global state, and may be called from several threads at once.
    """

    formats: tuple[str, ...]
    draw: Callable[[Any, str], bytes]


def kind(figure: object) -> str:
    """Return the full name of a figure's type, for messages."""
    return f"{type(figure).__module__}.{type(figure).__qualname__}"


def unsupported(figure: object) -> UnsupportedDataError:
    """Return the error for what is no figure."""
    return UnsupportedDataError(
        f"a {kind(figure)} cannot be written as a figure; pass a figure or axes of Matplotlib, a "
        "plot, layout or document of Bokeh, a figure of Plotly, a chart of Altair, an image of "
        "Pillow, or an object with savefig or save"
    )


def check_installed(package: str, module: str, what: str) -> None:
    """Raise InvalidWriteError unless a package is there that `what` needs."""
    if find_spec(module) is None:
        raise InvalidWriteError(
            f"{what} needs the package {package}; install it, or choose another format"
        )

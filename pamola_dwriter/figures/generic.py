"""Any other object that can save itself."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from pamola_dwriter.errors import WriteFailedError
from pamola_dwriter.figures.renderer import FORMATS, Renderer, unsupported

Save = Callable[..., object]


def saved(save: Save, format_name: str) -> bytes:
    """Return what a method like ``savefig`` or ``save`` writes.

    One that takes a ``format`` gets a buffer. Any other gets the path of a file with that
    extension, in a folder that only this user can open and that is removed afterwards.

    Raises
    ------
    WriteFailedError
        It wrote nothing.
    """
    data = _to_buffer(save, format_name) if _takes_format(save) else _to_file(save, format_name)
    if not data:
        raise WriteFailedError(f"the figure's own method wrote no {format_name}")
    return data


class _Sink(io.BytesIO):
    """Takes text too, as UTF-8, and outlives a method that closes what it wrote to."""

    def write(self, data: Any) -> int:
        return super().write(data.encode() if isinstance(data, str) else data)

    def close(self) -> None:
        pass


def _to_buffer(save: Save, format_name: str) -> bytes:
    sink = _Sink()
    save(sink, format=format_name)
    return sink.getvalue()


def _to_file(save: Save, format_name: str) -> bytes:
    with TemporaryDirectory(prefix="pamola_dwriter-") as folder:
        file = Path(folder, f"figure.{format_name}")
        save(str(file))
        return file.read_bytes() if file.exists() else b""


def _takes_format(save: Save) -> bool:
    try:
        parameters = inspect.signature(save).parameters
    except ValueError:  # a builtin that does not tell
        return True
    return "format" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _draw(figure: Any, format_name: str) -> bytes:
    # A class has its methods unbound, and a module such as pyplot would draw whatever is current.
    methods = {} if isinstance(figure, type | ModuleType) else _methods(figure)
    if format_name == "html":
        if "to_html" in methods:
            return _text(methods["to_html"]())
        if "write_html" in methods:
            return _written(methods["write_html"])
    for name in ("savefig", "save"):
        if name in methods:
            return saved(methods[name], format_name)
    raise unsupported(figure)


def _methods(figure: Any) -> dict[str, Save]:
    names = ("savefig", "save", "to_html", "write_html")
    found = {name: getattr(figure, name, None) for name in names}
    return {name: method for name, method in found.items() if callable(method)}


def _text(page: Any) -> bytes:
    if not isinstance(page, str):
        raise WriteFailedError(f"the figure's to_html gave no text but {type(page).__name__}")
    return page.encode()


def _written(write_html: Save) -> bytes:
    sink = _Sink()
    write_html(sink)
    return sink.getvalue()


GENERIC = Renderer(formats=FORMATS, draw=_draw)

"""Plots, layouts and documents of Bokeh.

Its html holds BokehJS, so it works without a network. An image is a picture that a browser takes
of that page: it needs selenium, and Chromium with chromedriver or Firefox with geckodriver.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pamola_dwriter.errors import InvalidWriteError, UnsupportedDataError
from pamola_dwriter.figures.pillow import encode
from pamola_dwriter.figures.renderer import Renderer, unsupported

if TYPE_CHECKING:
    from bokeh.document import Document


def _draw(figure: Any, format_name: str) -> bytes:
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    document = _copy(figure)
    if format_name == "html":
        return file_html(document, INLINE).encode()
    return _by_browser(document, format_name)


def _copy(figure: Any) -> Document:
    """Return a document of our own that holds copies of the models, by Bokeh's serialization.

    Rendering the models themselves would put them into a document, from which a failure, or
    another thread that renders them too, would not let them go again.
    """
    from bokeh.core.serialization import Deserializer, Serializer
    from bokeh.document import Document
    from bokeh.io import curdoc
    from bokeh.models.ui import UIElement

    if isinstance(figure, Document):
        document = Document.from_json(figure.to_json())
        document.theme = figure.theme
        return document
    if not isinstance(figure, UIElement):
        raise unsupported(figure)
    document = Document(theme=(figure.document or curdoc()).theme)
    document.add_root(Deserializer().deserialize(Serializer().serialize(figure)))
    return document


def _by_browser(document: Document, format_name: str) -> bytes:
    from bokeh.io.export import get_screenshot_as_png, get_svg
    from bokeh.io.state import State

    state = State()
    state.document = document  # for its theme
    with _browser(format_name) as driver:
        if format_name != "svg":
            return encode(get_screenshot_as_png(document, driver=driver, state=state), format_name)
        drawings = get_svg(document, driver=driver, state=state)
    if len(drawings) != 1:
        raise UnsupportedDataError(
            f"this Bokeh document has {len(drawings)} roots and an svg holds one; put them into "
            "one layout, or choose html or png"
        )
    return drawings[0].encode()


@contextmanager
def _browser(format_name: str) -> Iterator[Any]:
    """Run a browser of our own for one figure: the one Bokeh keeps is for one thread, and stays."""
    try:
        from bokeh.io.webdriver import webdriver_control

        driver = webdriver_control.create()
    except (ImportError, RuntimeError) as error:
        raise InvalidWriteError(
            f"a Bokeh figure is drawn as {format_name} by a browser: install the package selenium, "
            "and chromium with chromedriver or firefox with geckodriver (for root, chromium needs "
            "BOKEH_IN_DOCKER=1 in the environment); or choose html"
        ) from error
    try:
        yield driver
    finally:
        webdriver_control.terminate(driver)


BOKEH = Renderer(formats=("png", "svg", "html", "jpg"), draw=_draw)

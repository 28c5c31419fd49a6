"""Figures of real plotting libraries, drawn, and opened again by other programs."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import altair
import bokeh.layouts
import bokeh.models
import bokeh.plotting
import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import plotly.graph_objects as go
import pytest
import seaborn
from bokeh.document import Document
from bokeh.themes import built_in_themes
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

from pamola_dwriter import figures
from pamola_dwriter.errors import (
    InvalidWriteError,
    UnknownFormatError,
    UnsupportedDataError,
    WriteFailedError,
)
from pamola_dwriter.figures.page import picture_page

RASTER = {"png": "PNG", "jpg": "JPEG"}
HOSTILE = "</title><script>alert(1)</script> \"a\" & 'b'"


@pytest.fixture(autouse=True)
def pyplot() -> Iterator[None]:
    """Pyplot without a window and without figures of other tests."""
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def chart(figure: Figure | None = None, title: str = "Sales") -> Figure:
    """A figure with everything that has ids in an SVG: clips, markers, hatches, a legend."""
    figure = figure or Figure(figsize=(4, 3), dpi=50)
    axes = figure.subplots()
    axes.plot([1, 2, 3], [3, 1, 2], marker="o", label="line")
    axes.bar([1, 2, 3], [1, 2, 3], hatch="//")
    axes.set_title(title)
    axes.legend()
    return figure


def plot(**options: Any) -> bokeh.plotting.figure:
    drawn = bokeh.plotting.figure(width=300, height=200, **options)
    drawn.line([1, 2], [3, 4])
    return drawn


class Page(HTMLParser):
    """A page as a browser takes it: its title, its elements, and what it would fetch."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.title, self.elements, self._inside = "", [], ""
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    @property
    def fetched(self) -> list[str]:
        links = [v for _, attrs in self.elements for k, v in attrs.items() if k in ("src", "href")]
        return [link for link in links if link and not link.startswith(("data:", "#"))]

    @property
    def picture(self) -> tuple[str, bytes]:
        [source] = [attrs["src"] for tag, attrs in self.elements if tag == "img"]
        head, _, data = str(source).partition(",")
        return head, base64.b64decode(data, validate=True)


def image(data: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened


def check(data: bytes, format: str, size: tuple[int, int] | None = None) -> None:
    """Open a file as its format says, and hold its size in pixels."""
    if format in RASTER:
        opened = image(data)
        assert opened.format == RASTER[format]
        assert size in (None, opened.size)
    elif format == "svg":
        assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314
    elif format == "pdf":
        assert data.startswith(b"%PDF-1.")
        assert data.rstrip().endswith(b"%%EOF")
    else:
        assert data[:15].lower().startswith((b"<!doctype html>", b"<html>"))
        assert Page(data).fetched == []


def run(code: str, **environment: str) -> str:
    """Run code in a process of its own, without a display."""
    variables = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_plotting_library_is_imported() -> None:
    """Whoever writes no figure does not wait for a plotting library."""
    code = (
        "import sys, pamola_dwriter.figures\n"
        "pamola_dwriter.figures.check_format('png')\n"
        "libraries = {'matplotlib', 'bokeh', 'plotly', 'PIL', 'altair', 'selenium'}\n"
        "print(sorted(libraries & set(sys.modules)))"
    )
    assert run(code) == "[]"


@pytest.mark.parametrize("name", [*figures.FORMATS, "jpeg", "PNG", "Jpeg"])
def test_formats_are_known_by_name(name: str) -> None:
    """A format is one of the list, whatever its case; jpeg is jpg."""
    assert figures.check_format(name) == name.lower().replace("jpeg", "jpg")


@pytest.mark.parametrize("name", ["tiff", "", ".png", "png ", "gif", None, 3, ("png",)])
def test_an_unknown_format_names_the_known_ones(name: Any) -> None:
    """No other name is a format, and the error tells which are."""
    for attempt in (figures.check_format, lambda name: figures.render(chart(), name)):
        with pytest.raises(UnknownFormatError, match="png, svg, pdf, html, jpg"):
            attempt(name)


@pytest.mark.parametrize("format", figures.FORMATS)
def test_matplotlib_in_every_format(format: str) -> None:
    """Every format opens, a raster one at the size of the figure, and twice gives equal bytes."""
    figure = chart()
    data = figures.render(figure, format)
    check(data, format, (200, 150))
    assert figures.render(figure, format) == data


def test_what_stands_in_a_figure_draws_the_figure() -> None:
    """Axes, a nested subfigure, a line and an object with a figure give what the figure gives."""
    figure = Figure(figsize=(4, 3))
    left, right = figure.subfigures(1, 2)
    inner = right.subfigures(2, 1)[0]
    [line] = inner.subplots().plot([1, 2])
    left.subplots().bar([1], [2])

    class Grid:
        def __init__(self) -> None:
            self.figure = figure

    expected = figures.render(figure, "png")
    for part in (left, inner, left.axes[0], line, Grid()):
        assert figures.render(part, "png") == expected


def test_seaborn_grids() -> None:
    """A grid of seaborn is drawn, and closed, as the figure in it."""
    grid = seaborn.FacetGrid(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), col="b")
    assert figures.render(grid, "png") == figures.render(grid.figure, "png")
    figures.close(grid)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("format", figures.FORMATS)
def test_drawing_leaves_everything_as_it_was(format: str) -> None:
    """Neither the figure, nor pyplot's figures, nor any setting is changed by drawing."""
    figure = chart(plt.figure("mine"))
    current = plt.figure("current")
    settings = dict(mpl.rcParams)
    before = (figure.canvas, figure.dpi, figure.get_facecolor(), tuple(figure.get_size_inches()))
    figures.render(figure, format)
    after = (figure.canvas, figure.dpi, figure.get_facecolor(), tuple(figure.get_size_inches()))
    assert after == before
    assert dict(mpl.rcParams) == settings
    assert plt.gcf() is current
    assert plt.get_figlabels() == ["mine", "current"]


@pytest.mark.parametrize("format", figures.FORMATS)
def test_a_window_is_never_drawn_on(format: str) -> None:
    """The canvas of the figure, which may be a window, takes no part in the drawing."""

    class Window(FigureCanvasAgg):
        def draw(self) -> None:
            raise AssertionError("drawn on the window")

        print_png = print_jpg = draw

    figure = chart()
    window = Window(figure)
    check(figures.render(figure, format), format)
    assert figure.canvas is window


@pytest.mark.parametrize("backend", ["TkAgg", "module://no.such.module"])
def test_no_display_and_no_backend_is_needed(backend: str) -> None:
    """Whatever backend is set, a process without a display draws, and pyplot is not imported."""
    code = (
        "import sys\n"
        "from matplotlib.figure import Figure\n"
        "from pamola_dwriter import figures\n"
        "figure = Figure(); figure.subplots().plot([1, 2])\n"
        "print(*[len(figures.render(figure, name)) > 999 for name in figures.FORMATS])\n"
        "figures.close(figure)\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    assert run(code, MPLBACKEND=backend) == "True True True True True"


def test_a_closed_figure_can_be_written_again() -> None:
    """Closing makes pyplot forget just that figure, which still draws in every format."""
    other = plt.figure("other")
    mine = chart(plt.figure("mine"))
    expected = {name: figures.render(mine, name) for name in figures.FORMATS}
    figures.close(mine.axes[0])
    assert plt.get_figlabels() == ["other"]
    assert plt.gcf() is other
    for name, data in expected.items():
        assert figures.render(mine, name) == data
    figures.close(mine)
    assert plt.get_figlabels() == ["other"]


def test_a_loop_collects_no_figures() -> None:
    """Fifty figures of pyplot, each closed after it is drawn, never are more than one."""
    for _ in range(50):  # pyplot warns, and so this would fail, at twenty open ones
        figure = plt.figure(figsize=(1, 1))
        figures.render(figure, "png")
        assert len(plt.get_fignums()) == 1
        figures.close(figure)
    assert plt.get_fignums() == []


def test_closing_what_pyplot_does_not_know_changes_nothing() -> None:
    """A bare figure, an image, a Bokeh plot and any object are left alone."""
    plt.figure("other")
    drawn = Image.new("L", (2, 2))
    for figure in (chart(), drawn, plot(), go.Figure(), object()):
        figures.close(figure)
    assert plt.get_figlabels() == ["other"]
    assert drawn.getpixel((0, 0)) == 0


@pytest.mark.parametrize("format", figures.FORMATS)
def test_a_figure_that_fails_to_draw(format: str) -> None:
    """The cause is chained, no value is told, and the figure draws once it is mended."""
    figure = chart()
    text = figure.text(0.1, 0.1, r"$\frac{secret$")  # mathtext that does not parse
    canvas, settings = figure.canvas, dict(mpl.rcParams)
    with pytest.raises(WriteFailedError, match=f"Figure as {format} failed") as caught:
        figures.render(figure, format)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "secret" not in str(caught.value)
    assert figure.canvas is canvas
    assert dict(mpl.rcParams) == settings
    text.remove()
    check(figures.render(figure, format), format)


@pytest.mark.parametrize("format", ["png", "svg", "pdf"])
def test_threads_draw_at_once(format: str) -> None:
    """Many threads, some with the same figure, get the bytes that one thread gets."""
    titles = [rf"$\frac{{{n}}}{{x^{n}}}$" for n in range(4)]
    expected = [figures.render(chart(title=title), format) for title in titles]
    drawn = [chart(title=title) for title in titles]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: figures.render(drawn[n % 4], format), range(8)))
    assert results == expected * 2


def test_a_salt_of_the_caller_is_kept() -> None:
    """Ids in an SVG are salted as the caller's settings say, if they do."""
    figure = chart()
    ours = figures.render(figure, "svg")
    with mpl.rc_context({"svg.hashsalt": "theirs"}):
        assert figures.render(figure, "svg") != ours
        assert mpl.rcParams["svg.hashsalt"] == "theirs"
    assert mpl.rcParams["svg.hashsalt"] is None


def test_the_page_of_a_figure_shows_its_drawing_under_its_title() -> None:
    """The page holds the very SVG, and a hostile title is shown and not obeyed."""
    figure = chart(title=HOSTILE)
    page = Page(figures.render(figure, "html"))
    assert page.title == HOSTILE
    assert page.tags == {"html", "head", "meta", "title", "body", "img"}
    assert page.picture == ("data:image/svg+xml;base64", figures.render(figure, "svg"))
    figure.suptitle("Above all")
    assert Page(figures.render(figure, "html")).title == "Above all"
    assert Page(figures.render(Figure(), "html")).title == "Figure"


@given(title=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_any_title_is_only_text(title: str) -> None:
    """Whatever stands in a title, the page has that title and no further element."""
    page = Page(picture_page(title, "image/png", b"data"))
    assert page.title == title
    assert dict(page.elements)["img"]["alt"] == title
    assert len(page.elements) == 6


def test_jpg_of_a_transparent_figure_is_on_white() -> None:
    """What JPEG cannot show through is white, not black."""
    figure = Figure(figsize=(1, 1), dpi=20, facecolor="none")
    assert image(figures.render(figure, "png")).getchannel("A").getextrema() == (0, 0)
    assert image(figures.render(figure, "jpg")).getpixel((3, 3)) == (255, 255, 255)


NO_FIGURES: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "object": object,
    "text": lambda: "figure.png",
    "pyplot": lambda: plt,
    "class": lambda: Figure,
    "class that saves": lambda: Saver,
    "bars": lambda: chart().axes[0].containers[0],
    "line without axes": lambda: mpl.lines.Line2D([0], [1]),
    "bokeh source": bokeh.models.ColumnDataSource,
    "plotly trace": go.Scatter,
    "plotly dict": lambda: go.Figure().to_dict(),
    "image filter": ImageFilter.BLUR,
}


class Saver:
    """An object with the method that most plotting libraries have."""

    def __init__(self, data: bytes | str = b"drawn") -> None:
        self.data = data

    def savefig(self, target: Any, format: str, dpi: int = 100) -> None:
        target.write(self.data if format != "svg" else "<svg/>")
        target.close()


@pytest.mark.parametrize("format", ["png", "html"])
@pytest.mark.parametrize("case", NO_FIGURES)
def test_what_is_no_figure_is_named(case: str, format: str) -> None:
    """The error names the type that came and the kinds that are accepted."""
    thing = NO_FIGURES[case]()
    with pytest.raises(UnsupportedDataError, match=r"Matplotlib.*Bokeh.*savefig") as caught:
        figures.render(thing, format)
    assert type(thing).__qualname__ in str(caught.value)


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
THROUGH = {"La": "LA", "PA": "P", "RGBa": "RGBA", "YCbCr": "RGB", "HSV": "RGB", "CMYK": "RGB"}


@pytest.mark.parametrize("mode", MODES)
def test_pillow_images_of_every_mode(mode: str) -> None:
    """A png has the colours of the image, a jpg nearly, and the image stays as it was."""
    through = Image.new("RGBA", (20, 10), (250, 10, 40)).convert(THROUGH.get(mode, mode))
    original = through.convert(mode)
    before = (original.mode, original.size, original.tobytes(), dict(original.info))
    files = {name: figures.render(original, name) for name in ("png", "jpg", "pdf", "html")}
    for name, data in files.items():
        check(data, name, (20, 10))
        assert figures.render(original, name) == data
    assert (original.mode, original.size, original.tobytes(), dict(original.info)) == before
    expected = through.convert("RGBA").getpixel((5, 5))
    assert near(image(files["png"]).convert("RGBA").getpixel((5, 5)), expected, 6)
    assert near(image(files["jpg"]).convert("RGBA").getpixel((5, 5)), expected, 8)
    assert Page(files["html"]).picture == ("data:image/png;base64", files["png"])


def near(colour: Any, expected: Any, tolerance: int) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(colour, expected, strict=True))


def test_transparent_images_are_laid_on_white() -> None:
    """Of RGBA, of a palette and of a colour key, what is transparent is white in a jpg."""
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    keyed = Image.new("RGB", (8, 8), (200, 0, 0))
    keyed.info["transparency"] = (200, 0, 0)
    palette = Image.new("P", (8, 8), 7)
    palette.putpalette([200, 0, 0] * 256)
    palette.info["transparency"] = 7
    for transparent in (clear, keyed, palette):
        flat, kept = (image(figures.render(transparent, name)) for name in ("jpg", "png"))
        assert flat.getpixel((4, 4)) == (255, 255, 255)
        assert kept.convert("RGBA").getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize(("mode", "format"), [("F", "png"), ("F", "jpg"), ("I;16", "pdf")])
def test_images_of_bare_numbers_are_refused(mode: str, format: str) -> None:
    """Numbers of an unknown range are not clipped into a black or white picture."""
    with pytest.raises(UnsupportedDataError, match=f"mode {mode} .*convert it to mode L"):
        figures.render(Image.new(mode, (4, 4)), format)


def test_sixteen_bits_survive_in_png() -> None:
    """A png holds what a 16-bit image holds."""
    assert (
        image(figures.render(Image.new("I;16", (4, 4), 40_000), "png")).getpixel((0, 0)) == 40_000
    )


@pytest.mark.parametrize(
    ("figure", "format", "possible"),
    [
        (Image.new("L", (2, 2)), "svg", "png, pdf, html, jpg"),
        (plot(), "pdf", "png, svg, html, jpg"),
    ],
)
def test_a_format_that_the_library_lacks(figure: Any, format: str, possible: str) -> None:
    """The error tells the formats that this figure does have."""
    with pytest.raises(UnsupportedDataError, match=f"as {format}; choose one of {possible}"):
        figures.render(figure, format)


def test_bokeh_models_become_pages_that_need_no_network() -> None:
    """Plots, layouts and widgets bring BokehJS along, and belong to no document afterwards."""
    left, right = plot(title=HOSTILE), plot()
    for model in (left, bokeh.layouts.row(left, right), bokeh.models.Button(label="go")):
        data = figures.render(model, "html")
        check(data, "html")
        assert b"Bokeh.embed" in data or b"embed_items" in data
        assert len(data) > 500_000
        assert b"<script>alert(1)" not in data
        assert {found.document for found in model.references()} == {None}
    Document().add_root(left)


def test_bokeh_models_of_a_document_stay_in_it() -> None:
    """A root, a part and the whole of a caller's document are drawn with its theme and kept."""
    document = Document(theme=built_in_themes["dark_minimal"], title="Report & more")
    left, right = plot(), plot()
    both = bokeh.layouts.row(left, right)
    document.add_root(both)
    document.add_root(other := plot())
    for drawn in (document, both, left, other):
        page = figures.render(drawn, "html")
        assert b"#20262B" in page  # the background of that theme
        assert document.roots == [both, other]
        assert {left.document, right.document, other.document} == {document}
    assert Page(figures.render(document, "html")).title == "Report & more"
    # A layout of plots that stand in two documents cannot be in a document itself.
    Document().add_root(foreign := plot())
    check(figures.render(bokeh.layouts.row(other, foreign), "html"), "html")


def test_threads_draw_one_bokeh_plot() -> None:
    """Threads that draw the same plot do not take it from each other."""
    drawn = plot()
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(lambda _: figures.render(drawn, "html"), range(8)):
            check(data, "html")
    assert drawn.document is None


def test_an_empty_bokeh_document() -> None:
    """Bokeh's own word on a document without roots is chained."""
    with pytest.raises(WriteFailedError) as caught:
        figures.render(Document(), "html")
    assert "root" in str(caught.value.__cause__)


def test_bokeh_images_need_selenium(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without selenium the error says what to install, or to choose html."""
    for module in [name for name in sys.modules if name.startswith("selenium")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "selenium", None)
    monkeypatch.delitem(sys.modules, "bokeh.io.webdriver", raising=False)
    with pytest.raises(InvalidWriteError, match=r"as png by a browser.*selenium.*or choose html"):
        figures.render(plot(), "png")


@pytest.mark.browser
def test_bokeh_images_need_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """With selenium alone the error says that a browser is missing."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidWriteError, match=r"chromedriver.*or choose html"):
        figures.render(plot(), "svg")


@pytest.mark.browser
@pytest.mark.parametrize("format", ["png", "svg", "jpg"])
def test_bokeh_images_by_a_real_browser(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout is drawn at its size, and no browser is left running."""
    monkeypatch.setenv("BOKEH_IN_DOCKER", "1")  # Chromium has no sandbox for root
    from bokeh.io.webdriver import webdriver_control  # noqa: PLC0415 - needs selenium

    drawn = bokeh.layouts.row(plot(), plot())
    check(figures.render(drawn, format), format, (600, 200))
    assert drawn.document is None
    assert webdriver_control.current is None
    assert webdriver_control._drivers == set()


@pytest.mark.browser
def test_an_svg_has_one_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of two roots is no single drawing; the error says what to do."""
    monkeypatch.setenv("BOKEH_IN_DOCKER", "1")
    document = Document()
    document.add_root(plot())
    document.add_root(plot())
    with pytest.raises(UnsupportedDataError, match=r"2 roots.*one layout"):
        figures.render(document, "svg")


def test_plotly_figures_become_pages_that_need_no_network() -> None:
    """A figure brings plotly.js along, and twice gives the same bytes."""
    figure = go.Figure(go.Scatter(y=[1, 3, 2]), layout={"title": {"text": HOSTILE}})
    data = figures.render(figure, "html")
    check(data, "html")
    assert b"Plotly.newPlot" in data
    assert len(data) > 2_000_000
    assert b"<script>alert(1)" not in data
    assert figures.render(figure, "html") == data


@pytest.mark.parametrize("format", ["png", "svg", "pdf", "jpg"])
def test_plotly_images_need_kaleido(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without kaleido the error says to install it."""
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(InvalidWriteError, match=f"Plotly figure as {format} needs .*kaleido"):
        figures.render(go.Figure(), format)


@pytest.mark.browser
def test_plotly_images_need_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """With kaleido but no browser the error says to install one."""
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    with pytest.raises(InvalidWriteError, match="Chromium; or choose html"):
        figures.render(go.Figure(), "png")


@pytest.mark.browser
def test_plotly_images_by_a_real_browser() -> None:
    """A figure is drawn at its size."""
    figure = go.Figure(go.Scatter(y=[1, 3, 2]), layout={"width": 320, "height": 240})
    check(figures.render(figure, "png"), "png", (320, 240))


@pytest.mark.parametrize("format", figures.FORMATS)
def test_altair_charts(format: str) -> None:
    """A chart is drawn in every format without a browser, and its page needs no network."""
    values = altair.Data(values=[{"a": 1, "b": 2}, {"a": 2, "b": 1}])
    chart = altair.Chart(values, title="<b>").mark_bar().encode(x="a:Q", y="b:Q")
    check(figures.render(chart, format), format)


@pytest.mark.parametrize("format", figures.FORMATS)
def test_any_object_with_savefig(format: str) -> None:
    """Bytes or text that it writes are taken, also when it closes what it wrote to."""
    expected = b"<svg/>" if format == "svg" else b"drawn"
    assert figures.render(Saver(), format) == expected


class PathSaver:
    """Saves to a path only, and tells the format by its extension."""

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong
        self.modes: list[int] = []

    def save(self, path: str) -> None:
        self.modes.append(Path(path).parent.stat().st_mode & 0o777)
        Path(path).write_bytes(Path(path).suffix.encode())
        if self.wrong:
            raise OSError("no space")


@pytest.mark.parametrize("wrong", [False, True])
def test_an_object_that_saves_to_a_path(
    wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets a path in a folder that only this user opens, and nothing is left of that."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    saver = PathSaver(wrong)
    if wrong:
        with pytest.raises(WriteFailedError) as caught:
            figures.render(saver, "jpg")
        assert isinstance(caught.value.__cause__, OSError)
    else:
        assert figures.render(saver, "jpg") == b".jpg"
    assert saver.modes == [0o700]
    assert list(tmp_path.iterdir()) == []


def test_an_object_with_its_own_page() -> None:
    """For html an object is asked for its page before it is asked to save."""

    class Table(Saver):
        def to_html(self) -> str:
            return "<p>ä</p>"

    class Written:
        def write_html(self, file: Any) -> None:
            file.write("<p>ö</p>")

    assert figures.render(Table(), "html").decode() == "<p>ä</p>"
    assert figures.render(Table(), "png") == b"drawn"
    assert figures.render(Written(), "html").decode() == "<p>ö</p>"
    with pytest.raises(UnsupportedDataError, match="Written"):
        figures.render(Written(), "png")


def test_an_object_that_writes_nothing() -> None:
    """An empty file is a failure, as is a page that is no text."""

    class NoPage:
        def to_html(self) -> None: ...

    with pytest.raises(WriteFailedError, match="wrote no png"):
        figures.render(Saver(b""), "png")
    with pytest.raises(WriteFailedError, match="NoneType"):
        figures.render(NoPage(), "html")


def test_an_object_that_fails() -> None:
    """Whatever an object raises, even on being looked at, is chained."""

    class Bad:
        @property
        def figure(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(WriteFailedError, match="Bad as png failed with ZeroDivisionError"):
        figures.render(Bad(), "png")

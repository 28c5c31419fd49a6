"""One session of the page: a Bokeh document that updates itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bokeh.document import Document
from jinja2 import Template

from pamola_dwriter.dashboard.page import WritesPage
from pamola_dwriter.dashboard.style import DARK, LIGHT
from pamola_dwriter.progress import Fold
from pamola_dwriter.spec import WriteId

_INTERVAL = 500
"""Milliseconds between two looks."""

# A theme is chosen by the server, which draws the plots, and known to the browser alone: so the
# page is asked for again, once, with `?theme=dark`.
_TEMPLATE = Template("""{% extends base %}
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{{ style }}</style>
<script>
if (!new URLSearchParams(location.search).has("theme")
    && matchMedia("(prefers-color-scheme: dark)").matches) {
  location.replace(location.pathname + "?theme=dark");
}
</script>
{% endblock %}
{% block contents %}
<nav><h1>Writes</h1><a href="status">Status</a><a href="workers">Workers</a>
<a href="tasks">Tasks</a><a class="last" href="?theme={{ other }}">{{ other }}</a></nav>
{{ super() }}
{% endblock %}
""")


def writes_document(folds: Callable[[], Mapping[WriteId, Fold]], document: Document) -> None:
    """Fill a new document with the page of the folds that `folds` returns.

    The address may ask for ``?theme=dark``, and with ``?write=ID`` for the details of one write;
    else those of the newest are shown.
    """
    asked = _arguments(document)
    look = DARK if asked.get("theme") == DARK.scheme else LIGHT
    page = WritesPage(look, asked.get("write"))
    page.update(folds())
    document.title = "PAMOLA: Writes"
    document.template = _TEMPLATE
    other = LIGHT.scheme if look is DARK else DARK.scheme
    document.template_variables.update(style=look.page, other=other)
    document.add_root(page.root)
    document.add_periodic_callback(lambda: page.update(folds()), _INTERVAL)


def _arguments(document: Document) -> dict[str, str]:
    context = document.session_context
    request = getattr(context, "request", None)
    given = request.arguments if request else {}
    return {name: values[0].decode("utf-8", "replace") for name, values in given.items()}

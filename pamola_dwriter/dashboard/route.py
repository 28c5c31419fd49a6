"""Put the page on a scheduler's dashboard, also on one that has been running for long."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from distributed import Scheduler

from pamola_dwriter.progress import Fold
from pamola_dwriter.spec import WriteId

logger = logging.getLogger(__name__)

ROUTE = "/individual-pamola-writes"
"""Pages that are named so are listed for the JupyterLab extension of Dask."""

_LINK = {"url": ROUTE.strip("/"), "name": "PAMOLA Writes"}


def add_page(scheduler: Scheduler, plugin: str) -> None:
    """Add the page of the plugin of that name to the scheduler's dashboard, if it has one.

    A second call does nothing: a route cannot be taken away again, so the page looks the plugin
    up each time.
    """
    boards = _boards(scheduler)
    if not boards or ROUTE in boards[0].app_paths:
        return
    try:
        _add(scheduler, boards[0], plugin)
    except Exception:
        # Parts of Dask and Bokeh that may change; a write must not fail for want of a page.
        logger.exception("the dashboard has no page of writes")


def has_page(dask_scheduler: Scheduler) -> bool:
    """Return whether the scheduler shows the page; it has an HTTP server also without one."""
    return any(ROUTE in board.app_paths for board in _boards(dask_scheduler))


def _boards(scheduler: Scheduler) -> list[Any]:
    return [
        board
        for board in getattr(scheduler.http_application, "applications", ())
        if hasattr(board, "app_paths")
    ]


def _add(scheduler: Scheduler, board: Any, plugin: str) -> None:
    # Only where there is a dashboard is Bokeh known to be installed.
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    from pamola_dwriter.dashboard.document import writes_document

    shared = template_variables(scheduler)
    document = partial(writes_document, partial(_folds, scheduler, plugin))
    application = BokehApplication(
        {ROUTE: lambda server, extra, doc: document(doc)},
        scheduler,
        prefix=board.prefix,
        template_variables=shared,
    )
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()
    # What lists pages looks at the first application alone, and at this list of links.
    board._applications.setdefault(ROUTE, application._applications[ROUTE])
    if _LINK not in shared["plots"]:
        shared["plots"].append(_LINK)
        shared["plots"].sort(key=lambda plot: plot["name"])


def _folds(scheduler: Scheduler, plugin: str) -> Mapping[WriteId, Fold]:
    found: Mapping[WriteId, Fold] = getattr(scheduler.plugins.get(plugin), "writes", {})
    return found

"""The page of writes on the scheduler's own dashboard; it reads the plugin's folds and no more."""

from __future__ import annotations

from pamola_dwriter.dashboard.route import ROUTE, add_page, has_page

__all__ = ["ROUTE", "add_page", "has_page"]

"""Builds the site. Its reference pages are made from the code, so that they cannot differ from it.

The modules named in ``PAGES`` have a function that answers one page as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]

from . import command_line, configuration, http_api, metrics, plug_ins, python_api, rpc, sql_views  # noqa: E402 - they need ROOT

PAGES: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration.page,
    "reference/library-options.md": configuration.libraries,
    "reference/command-line.md": command_line.page,
    "reference/python.md": python_api.page,
    "reference/http-api.md": http_api.page,
    "reference/problems.md": http_api.problems_page,
    "reference/rpc.md": rpc.page,
    "reference/sql-views.md": sql_views.page,
    "reference/metrics.md": metrics.page,
    "reference/plug-ins.md": plug_ins.page,
}
"""The pages by their place below ``docs/``."""

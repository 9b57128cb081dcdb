"""The pages of docs/reference that are made from the code, and how each is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from documentation import chart, commands, driftservices, options, routes, series

PAGES: dict[str, Callable[[], str]] = {
    "driftservice.md": driftservices.render,
    "commands.md": commands.render,
    "http.md": routes.render,
    "metrics.md": series.render,
    "options.md": options.render,
    "chart.md": chart.render,
}


def write(folder: Path) -> None:
    """All pages, into `docs/reference`."""
    for name, render in PAGES.items():
        (folder / name).write_text(render())

"""Markdown that reads well as it is: tables, code spans, and the line that says where a page comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One table; cells may have any text."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def code(text: object) -> str:
    """A code span, empty for an empty text."""
    spelled = str(text)
    return f"`{spelled}`" if spelled else ""


def page(title: str, made_from: str, *parts: str) -> str:
    """A whole page of `parts`, each ending with a line break. `made_from` ends the sentence that says what it is
    made from."""
    made = f"Made from {made_from} by `python -m documentation`; do not edit."
    return "\n".join([f"# {title}\n", f"<!-- {made} -->\n", *parts])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

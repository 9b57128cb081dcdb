"""docs/reference/chart.md: the Helm chart's values with their defaults and what `values.yaml` says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from documentation.tables import code, page, table

VALUES = Path(__file__).parents[1] / "charts" / "drift" / "values.yaml"

INTRODUCTION = """\
`helm install drift charts/drift --set NAME=VALUE`, or in a file for `--values`. A value that is not here, or can't be
meant, is refused before anything is installed. [Install](../install.md) says which of them are often set.
"""


def render() -> str:
    return page(
        "The Helm chart's values",
        "`charts/drift/values.yaml`",
        INTRODUCTION,
        table(("value", "default", "meaning"), rows(VALUES.read_text())),
    )


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Of every value that is no group, and of every group that something is said of."""
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, MappingNode)
    yield from _rows(root, "", text.splitlines())


def _rows(group: MappingNode, path: str, lines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in group.value:
        assert isinstance(key, ScalarNode)
        meaning = _comment(key.start_mark.line, key.start_mark.column, lines)
        grouped = isinstance(value, MappingNode) and bool(value.value)
        if meaning or not grouped:
            yield code(f"{path}{key.value}"), "" if grouped else code(_spelled(value)), meaning
        if isinstance(value, MappingNode):
            yield from _rows(value, f"{path}{key.value}.", lines)


def _comment(line: int, column: int, lines: Sequence[str]) -> str:
    """The lines of comment right above a key, as far in as it is."""
    mark = " " * column + "#"
    found: list[str] = []
    while line > 0 and lines[line - 1].startswith(mark):
        line -= 1
        found.insert(0, lines[line][len(mark) :].strip())
    return " ".join(found)


def _spelled(value: Node) -> str:
    """As it stands in the file, which is on one line."""
    mark, end = value.start_mark, value.end_mark
    assert mark.buffer is not None
    return str(mark.buffer[mark.pointer : end.pointer])

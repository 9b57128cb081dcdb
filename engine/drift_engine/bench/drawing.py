"""Draws a picture with matplotlib. The same picture gives the same bytes: nothing comes from the user's settings, the
clock or chance. Only `drift plot` imports this module, for matplotlib takes time to load and is an extra.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from drift_engine.bench.panels import RATE_LABEL, BarPanel, Bound, CurvePanel, LinePanel, Panel
from drift_engine.bench.pictures import Picture

SUFFIXES = (".svg", ".png")

# Okabe and Ito's colours, told apart with every common colour blindness; their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "//", "..", "\\\\", "xx", "--")  # one fewer than colours, so that an eighth bar is new
BOUND_COLOUR = "#444444"
BACKING = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
BOUND_DASHES = ((0, (6, 2)), (0, (2, 2)), (0, (6, 2, 1, 2)))

STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and files are a quarter of the size
    "svg.hashsalt": "drift",  # ids by content instead of by chance
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "grid.color": "#dddddd",
    "legend.framealpha": 0.85,
    "legend.fontsize": 8,
    "savefig.facecolor": "white",  # also behind a page's dark theme
    "savefig.dpi": 150,
}
METADATA: Mapping[str, dict[str, Any]] = {
    ".svg": {"Date": None, "Creator": "drift plot"},
    ".png": {"Software": "drift plot"},
}

WIDTH_IN, ROW_IN = 10.0, 4.0
SINGLE_IN = 6.5
LEGEND_COLUMNS = 4


def draw(picture: Picture, suffix: str) -> bytes:
    """The file's content."""
    content = io.BytesIO()
    with matplotlib.style.context(["default", STYLE]):
        width_in = WIDTH_IN if any(len(row) > 1 for row in picture.rows) else SINGLE_IN
        figure = Figure(figsize=(width_in, ROW_IN * len(picture.rows) + 0.5), layout="constrained")
        heading = "\n".join(text for text in (picture.title, picture.subtitle) if text)
        figure.suptitle(_plain(heading), fontsize=11)
        parts = figure.subfigures(len(picture.rows), 1, squeeze=False)
        for part, row in zip(parts.flat, picture.rows, strict=True):
            _row(part, row)
        figure.savefig(content, format=suffix[1:], metadata=METADATA[suffix])
    return content.getvalue()


def _row(part: SubFigure, row: tuple[Panel, ...]) -> None:
    drawn = part.subplots(1, len(row), squeeze=False).flat
    for axes, panel in zip(drawn, row, strict=True):
        _panel(axes, panel)
    if isinstance(row[0], BarPanel):  # the same runs in every panel
        part.legend(handles=drawn[0].containers, loc="outside lower center", ncols=LEGEND_COLUMNS)


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title)
    axes.set_ylabel(panel.y_label)
    match panel:
        case LinePanel():
            _lines(axes, panel)
        case BarPanel():
            _bars(axes, panel)
        case CurvePanel():
            _curves(axes, panel)


def _lines(axes: Axes, panel: LinePanel) -> None:
    axes.set_xlabel(RATE_LABEL)
    _bounds(axes, panel.targets, upright=False)
    highest = max(point.x for line in panel.lines for point in line.points)
    if panel.ideal:
        axes.plot((0, highest), (0, highest), color="#999999", linewidth=1, label=panel.ideal)
    for index, line in enumerate(panel.lines):
        look, marker = _look(index), MARKERS[index % len(MARKERS)]
        told = f" ({panel.crossings[index].told})" if panel.crossings else ""
        axes.plot(*zip(*line.path, strict=True), **look)
        axes.plot([], [], **look, marker=marker, label=_plain(line.label + told))
        for attained, face in ((True, look["color"]), (False, "white")):
            _marks(
                axes,
                [(point.x, point.y) for point in line.points if point.attained is attained],
                color=look["color"],
                marker=marker,
                markerfacecolor=face,
            )
    for index, crossing in enumerate(panel.crossings):
        if crossing.rate_rps is not None:
            colour = _look(index)["color"]
            place = [(crossing.rate_rps, crossing.target)]
            _marks(axes, place, color=colour, marker="x", markersize=9, markeredgewidth=2)
            axes.vlines(crossing.rate_rps, 0, crossing.target, color=colour, linewidth=0.8, linestyle=":")
    if not all(point.attained for line in panel.lines for point in line.points):
        _marks(axes, [], color=BOUND_COLOUR, marker="o", markerfacecolor="white", label="target missed")
    axes.set_xlim(0, highest * 1.05)
    axes.set_ylim(0, axes.get_ylim()[1])
    axes.legend(loc="best")


def _marks(axes: Axes, places: Sequence[tuple[float, float]], **look: Any) -> None:
    (drawn,) = axes.plot([x for x, _ in places], [y for _, y in places], linestyle="", zorder=3, **look)
    drawn.set_clip_on(False)  # whole at the edge of the axes
    drawn.set_in_layout(False)  # unclipped, it would count with an extent that is endless where it is empty


def _bars(axes: Axes, panel: BarPanel) -> None:
    width = 0.8 / len(panel.bars)
    crowded = len(panel.bars) > 2
    for index, bar in enumerate(panel.bars):
        offset = (index - (len(panel.bars) - 1) / 2) * width
        drawn = axes.bar(
            [group + offset for group in range(len(panel.groups))],
            [value or 0.0 for value in bar.values],
            width,
            color=COLOURS[index % len(COLOURS)],
            hatch=HATCHES[index % len(HATCHES)],
            edgecolor="white",
            label=_plain(bar.label),
        )
        told = ["-" if value is None else _number(value) for value in bar.values]
        axes.bar_label(drawn, told, padding=2, fontsize=7, rotation=90 if crowded else 0, bbox=BACKING)
    axes.set_xticks(range(len(panel.groups)), panel.groups)
    axes.grid(visible=False, axis="x")
    bounds = _bounds(axes, panel.bounds, upright=False)
    axes.margins(y=0.25)  # for the numbers and the bounds' legend
    if bounds:
        axes.legend(handles=bounds, loc="upper left")


def _curves(axes: Axes, panel: CurvePanel) -> None:
    axes.set_xlabel(panel.x_label + (", logarithmic" if panel.log_x else ""))
    for index, curve in enumerate(panel.curves):
        axes.plot(
            [value for value, _ in curve.points],
            [share * 100 for _, share in curve.points],
            **_look(index),
            drawstyle="steps-post",
            label=_plain(curve.label),
        )
    _bounds(axes, panel.bounds, upright=True)
    if panel.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(0, 102)
    axes.legend(loc="lower right")


def _bounds(axes: Axes, bounds: tuple[Bound, ...], *, upright: bool) -> list[Line2D]:
    line = axes.axvline if upright else axes.axhline
    return [
        line(bound.value, color=BOUND_COLOUR, linewidth=1.2, linestyle=dashes, label=bound.label)
        for bound, dashes in zip(bounds, itertools.cycle(BOUND_DASHES), strict=False)
    ]


def _look(index: int) -> dict[str, Any]:
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.6,
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _plain(text: str) -> str:
    """A dollar sign opens a formula, and a leading underscore hides a series from its legend."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text

"""A plan as a page of its own: no scripts, nothing from elsewhere, light and dark. Pure: a plan in, HTML out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from drift_cli import capacity
from drift_cli.capacity import Choice, Outlook, Plan
from drift_engine.bench.records import RequestRecord

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #6a6a75; --line: #d8d8de; --paper: #fff;
  --one: #0072b2; --two: #d55e00; --good: #00785a; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ee; --soft: #a0a0ac; --line: #3a3a42; --paper: #17171b;
  --one: #56b4e9; --two: #f0a050; --good: #3fc79a; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.answer { font-size: 1.15rem; border-left: 4px solid var(--one); padding: .4rem .8rem; }
.soft, figcaption { color: var(--soft); } figure { margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .soft { fill: var(--soft); } svg .axis { stroke: var(--line); }
.one { fill: var(--one); } .two { fill: var(--two); } .bound { stroke: var(--bad); stroke-dasharray: 5 4; }
.path { fill: none; stroke-width: 2; } .path.one { stroke: var(--one); fill: none; }
.path.two { stroke: var(--two); fill: none; }
"""

WIDTH, ROW, LABEL = 720, 26, 210
PLOT_HEIGHT = 220
BINS = 48
"""Of the run's time in the picture of what was kept when."""


class Course(NamedTuple):
    """What became of requests over a run's time."""

    name: str
    arrived_s: Sequence[float]
    kept: Sequence[bool]


def course(name: str, records: Sequence[RequestRecord], kept: Sequence[bool]) -> Course:
    return Course(name, [record.due_s for record in records], kept)


def page(plan: Plan, courses: Sequence[Course] = ()) -> str:
    """`courses` are of the best choice: without and with a node that dies."""
    parts = [
        f"<h1>{_text(plan.model)} on {_text(plan.hardware)}: how many nodes</h1>",
        f'<p class="answer">{_text(capacity.sentence(plan))}</p>',
        f'<p class="soft">{_text(_question(plan))}</p>',
        f'<p class="soft">{_text(caution)}</p>' if (caution := capacity.caution(plan)) is not None else "",
        "<h2>Nodes needed</h2>",
        _figure(_bars(plan), "By mode and routing policy; the lower bar is with one node that dies."),
        _table(plan),
        "<h2>Requests that keep the promise, by the number of nodes</h2>",
        _figure(
            _attainments(plan.best),
            "Of the best way. A run that could not keep the promise any more was given up: its point is the most "
            "that it could have reached.",
        ),
    ]
    if courses:
        parts += [
            "<h2>When it was kept</h2>",
            _figure(_courses(plan, courses), "Share of the requests that arrived at a time."),
        ]
    parts.append(
        f'<p class="soft">Simulated by Drift {_text(plan.drift_version)} on {_text(plan.date)}: '
        f"<code>{_text(plan.command)}</code></p>"
    )
    title = f"Plan for {_text(plan.model)}"
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _question(plan: Plan) -> str:
    slo = plan.slo
    bounds = [f"{name} {bound:g} ms" for name, bound in (("TTFT", slo.ttft_ms), ("TBT", slo.tbt_ms)) if bound]
    rate = "" if plan.rate_rps is None else f" at {plan.rate_rps:.3g} per second"
    asked = f"{plan.requests} requests of {plan.workload.trace or 'synthetic load'}{rate}"
    lost = "" if plan.loss_at_s is None else f"; a node dies after {plan.loss_at_s:.0f} s and stays away"
    return (
        f"{asked}; {', '.join(bounds)} for {slo.attainment_target:.1%} of them; levers {plan.levers}{lost}."
    )


def _table(plan: Plan) -> str:
    heads = ("", "nodes", "kept", "TTFT P99", "worst gap P99", "cached", "GPU-s per good one")
    rows = []
    for choice in plan.choices:
        for title, looked in (("", choice.whole), ("one dies", choice.bereft)):
            if looked is not None:
                name = f"{choice.name}{', ' * bool(title)}{title}"
                cells = "".join(f"<td>{_text(cell)}</td>" for cell in (name, *cells_of(looked)))
                rows.append(f"<tr>{cells}</tr>")
    head = "".join(f"<th>{_text(one)}</th>" for one in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def cells_of(looked: Outlook) -> tuple[str, ...]:
    """A row behind its name: nodes, kept, TTFT P99, worst gap P99, cached, GPU-seconds per good request."""
    if looked.nodes is None:
        most = max((tried.nodes for tried in looked.tried), default=0)
        return f"over {most}", "-", "-", "-", "-", "-"
    ttft = looked.ttft_ms.p99 if looked.ttft_ms is not None else None
    return (
        str(looked.nodes),
        "-" if looked.attainment is None else f"{looked.attainment:.1%}",
        _ms(ttft),
        _ms(looked.worst_gap_p99_ms),
        "-" if looked.cached_share is None else f"{looked.cached_share:.1%}",
        "-" if looked.gpu_s_per_good is None else f"{looked.gpu_s_per_good:.3g}",
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _bars(plan: Plan) -> str:
    most = max((nodes for choice in plan.choices for nodes in _needs(choice)), default=1)
    room, drawn, y = WIDTH - LABEL - 90, [], 0
    for choice in plan.choices:
        drawn.append(f'<text x="0" y="{y + 17}">{_text(choice.name)}</text>')
        for colour, looked in (("one", choice.whole), ("two", choice.bereft)):
            if looked is None:
                continue
            known = looked.nodes is not None
            width = room * (looked.nodes or most) / most
            label = str(looked.nodes) if known else f"over {plan.max_nodes}"
            drawn.append(
                f'<rect class="{colour}" x="{LABEL}" y="{y + 5}" width="{width:.1f}" height="{ROW - 10}" '
                f'opacity="{1 if known else 0.25}"/><text x="{LABEL + width + 6:.1f}" y="{y + 17}">{label}</text>'
            )
            y += ROW
        y += 8
    return _svg(y, "".join(drawn))


def _needs(choice: Choice) -> Sequence[int]:
    found = (choice.whole.nodes, choice.bereft.nodes if choice.bereft is not None else None)
    return [nodes for nodes in found if nodes is not None]


def _attainments(best: Choice | None) -> str:
    if best is None:
        return ""
    lines = [("one", "no node lost", best.whole.tried)]
    if best.bereft is not None:
        lines.append(("two", "one dies", best.bereft.tried))
    most = max(tried.nodes for _, _, points in lines for tried in points)
    drawn = [_axes([(nodes / most, str(nodes)) for nodes in sorted({1, (1 + most) // 2, most})])]
    for number, (colour, name, points) in enumerate(lines):
        places = [(tried.nodes / most, tried.attainment, tried.kept) for tried in points]
        drawn.append(_path(colour, [(x, y) for x, y, _ in places]))
        drawn += [_dot(colour, x, y, filled=kept) for x, y, kept in places]
        drawn.append(_legend(colour, name, number))
    return _svg(PLOT_HEIGHT + 60, "".join(drawn))


def _courses(plan: Plan, courses: Sequence[Course]) -> str:
    end_s = max((max(one.arrived_s, default=0.0) for one in courses), default=0.0) or 1.0
    drawn = [_axes([(share, f"{share * end_s:.0f} s") for share in (0.0, 0.25, 0.5, 0.75, 1.0)])]
    for number, (colour, one) in enumerate(zip(("one", "two"), courses, strict=False)):
        kept, all_of = [0] * BINS, [0] * BINS
        for at_s, good in zip(one.arrived_s, one.kept, strict=True):
            place = min(BINS - 1, int(BINS * at_s / end_s))
            kept[place] += good
            all_of[place] += 1
        shares = [
            ((place + 0.5) / BINS, good / whole)
            for place, (good, whole) in enumerate(zip(kept, all_of, strict=True))
            if whole
        ]
        drawn += [_path(colour, shares), _legend(colour, one.name, number)]
    if plan.loss_at_s is not None and len(courses) > 1:
        x = _x(plan.loss_at_s / end_s)
        drawn.append(f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{PLOT_HEIGHT}"/>')
    return _svg(PLOT_HEIGHT + 60, "".join(drawn))


def _x(share: float) -> float:
    return 50 + (WIDTH - 70) * share


def _y(share: float) -> float:
    return PLOT_HEIGHT - (PLOT_HEIGHT - 10) * share


def _axes(ticks: Sequence[tuple[float, str]]) -> str:
    drawn = []
    for share in (0.0, 0.5, 1.0):
        y = _y(share)
        drawn.append(
            f'<line class="axis" x1="50" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="44" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    for share, label in ticks:
        drawn.append(
            f'<text class="soft" x="{_x(share):.1f}" y="{PLOT_HEIGHT + 18}" text-anchor="middle">{label}</text>'
        )
    return "".join(drawn)


def _path(colour: str, points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    steps = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points)
    return f'<polyline class="path {colour}" points="{steps}"/>'


def _dot(colour: str, x: float, y: float, *, filled: bool) -> str:
    opacity = 1 if filled else 0.35
    return f'<circle class="{colour}" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="4" opacity="{opacity}"/>'


def _legend(colour: str, name: str, number: int) -> str:
    x, y = 50 + 200 * number, PLOT_HEIGHT + 42
    return (
        f'<rect class="{colour}" x="{x}" y="{y - 10}" width="12" height="12"/>'
        f'<text x="{x + 18}" y="{y}">{_text(name)}</text>'
    )


def _svg(height: float, drawn: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">{drawn}</svg>'
    )


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{_text(caption)}</figcaption></figure>" if picture else ""


def _text(value: str) -> str:
    return html.escape(value)

"""A soak for readers: a table of faults in Markdown, and a picture of the hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from benchmarks.soak.looks import Injected, Line, Look, Memory, Request
from benchmarks.soak.summary import Episode, Summary
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MINUTE_S = 60.0


def write(found: Summary, lines: Sequence[Line], table: Path, picture: Path) -> None:
    table.write_text(markdown(found))
    # Text as text, and the same file for the same log.
    with mpl.rc_context({"svg.hashsalt": "soak", "svg.fonttype": "none", "font.size": 8}):
        draw(lines, found.seconds).savefig(picture, metadata={"Date": None})


def markdown(found: Summary) -> str:
    head = (
        f"{found.requests} requests in {found.seconds / MINUTE_S:.0f} min: {found.lost} lost, {found.wrong} "
        f"wrong, {found.troubled} that had to be asked again. TTFT P50 {found.ttft_p50_s:.2f} s, "
        f"P99 {found.ttft_p99_s:.2f} s; the longest answer took {found.longest_s:.0f} s. The status said what "
        f"was no longer so for {found.untrue_s:.0f} s on end at most.\n"
    )
    faults = _table(
        (
            "at",
            "fault",
            "told after, s",
            "untrue, s",
            "unreadable, s",
            "well after, s",
            "requests",
            "asked again",
            "lost",
            "wrong",
            "CPU pressure",
        ),
        map(_row, found.episodes),
    )
    memory = _table(
        ("memory of", "containers", "judged, min", "then, MiB", "most, MiB", "MiB an hour"),
        (
            (
                each.component,
                str(each.containers),
                f"{each.judged} for {each.judged_s / MINUTE_S:.0f}",
                f"{each.first_mib:.0f}",
                f"{each.most_mib:.0f}",
                _shown(each.mib_per_hour) + (f" ± {error:.1f}" if (error := each.error_mib_per_hour) else ""),
            )
            for each in found.memory
        ),
    )
    return "\n".join([head, faults, memory])


def _row(each: Episode) -> tuple[str, ...]:
    minutes, seconds = divmod(int(each.at_s), 60)
    return (
        f"{minutes}:{seconds:02}",
        f"`{each.fault}`" + (f" (not done: {each.failed})" if each.failed else ""),
        _shown(each.told_s),
        _shown(each.untrue_s),
        _shown(each.unread_s),
        "not before the next" if each.well_s is None else _shown(each.well_s),
        str(each.requests),
        str(each.troubled),
        str(each.lost),
        str(each.wrong),
        "-" if each.cpu_pressure is None else f"{each.cpu_pressure:.0%}",
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def draw(lines: Sequence[Line], seconds: float) -> Figure:
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    serving, waiting, memory = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    _faults([line for line in lines if isinstance(line, Injected)], (serving, waiting, memory))
    _serving(serving, [line for line in lines if isinstance(line, Look)], seconds)
    _waiting(waiting, [line for line in lines if isinstance(line, Request)])
    _memory(memory, [line for line in lines if isinstance(line, Memory)])
    memory.set_xlabel("minutes")
    memory.set_xlim(0, seconds / MINUTE_S)
    return figure


def _faults(faults: Sequence[Injected], axes: Sequence[Axes]) -> None:
    for fault in faults:
        for each in axes:
            each.axvspan(
                fault.at_s / MINUTE_S, fault.until_s / MINUTE_S + 0.02, color="tab:red", alpha=0.3, lw=0
            )
        axes[0].text(
            fault.at_s / MINUTE_S, 1.02, fault.name, rotation=60, transform=axes[0].get_xaxis_transform()
        )


def _serving(axes: Axes, looks: Sequence[Look], seconds: float) -> None:
    """What was so, and as a broken line what the status said."""
    at = [look.at_s / MINUTE_S for look in looks] + [seconds / MINUTE_S]
    for name, color, shift in (("nodes", "tab:blue", 0.0), ("routers", "tab:green", 0.06)):
        real = [getattr(look, name) + shift for look in looks]
        said = [getattr(look.claim, name) + shift if look.claim else np.nan for look in looks]
        axes.step(at, [*real, *real[-1:]], where="post", color=color, lw=1, label=name)
        axes.step(
            at,
            [*said, *said[-1:]],
            where="post",
            color=color,
            lw=2,
            alpha=0.4,
            ls="--",
            label=f"{name}, told",
        )
    axes.set_ylabel("serve")
    axes.set_ylim(-0.9, None)  # room for the legend
    axes.legend(loc="lower right", ncols=4)


def _waiting(axes: Axes, requests: Sequence[Request]) -> None:
    minutes: dict[int, list[float]] = {}
    for request in requests:
        if request.ttft_s is not None:
            minutes.setdefault(int(request.at_s // MINUTE_S), []).append(request.ttft_s)
    at = sorted(minutes)
    for share in (0.5, 0.9, 1.0):
        label = "longest" if share == 1.0 else f"P{100 * share:.0f}"
        axes.plot(
            [minute + 0.5 for minute in at],
            [np.quantile(minutes[minute], share) for minute in at],
            lw=1,
            label=f"TTFT, {label}",
        )
    again = [request.at_s / MINUTE_S for request in requests if request.troubles]
    axes.plot(again, [0.02] * len(again), "x", color="tab:red", ms=4, label="asked again")
    axes.set_yscale("log")
    axes.set_ylabel("seconds")
    axes.legend(loc="upper right", ncols=4)


def _memory(axes: Axes, samples: Sequence[Memory]) -> None:
    colors = {"node": "tab:blue", "router": "tab:green", "operator": "tab:purple"}
    lives: dict[tuple[str, str], list[Memory]] = {}
    for sample in samples:
        lives.setdefault((sample.component, sample.container), []).append(sample)
    named: set[str] = set()
    for (component, _), life in lives.items():
        axes.plot(
            [sample.at_s / MINUTE_S for sample in life],
            [sample.rss_bytes / 2**20 for sample in life],
            color=colors[component],
            lw=1,
            label=None if component in named else component,
        )
        named.add(component)
    axes.set_ylabel("resident, MiB")
    axes.set_ylim(0, None)
    axes.legend(loc="center right")

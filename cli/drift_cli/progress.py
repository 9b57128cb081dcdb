"""What a person sees of processes that start: a bar each on a terminal, lines elsewhere, their logs in between."""

from __future__ import annotations

import contextlib
import json
import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from drift_operator.local.children import Loading


def readable(line: str) -> str:
    """A log line, one JSON object, as a person reads it; anything else as it is."""
    try:
        fields = json.loads(line)
        time, level, event = fields.pop("time"), fields.pop("level"), fields.pop("event")
    except (ValueError, TypeError, AttributeError, KeyError):
        return line
    fields.pop("logger", None)
    exception = fields.pop("exception", None)
    details = "".join(f" {name}={value}" for name, value in fields.items())
    return f"{time} {level:<7} {event}{details}" + (f"\n{exception}" if exception else "")


class StartUp:
    """The command line as a `children.Audience`. Results go to stdout, everything else to stderr. Who no longer
    listens, as a terminal that was closed, misses what is said and stops nothing.
    """

    def __init__(self, name: str, welcome: str, count: int = 1) -> None:
        self._name = name
        self._count = count
        self._welcome = welcome
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stages: dict[str, str] = {}

    def __enter__(self) -> StartUp:
        nodes = f": {self._count} nodes" if self._count > 1 else ""
        self._console.print(f"starting {self._name}{nodes}")
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
            )
            self._bars = Progress(*columns, console=self._console, transient=True)
            self._bars.start()
            if self._count == 1:  # several come with their labels
                self._show("", Loading())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bars()

    def log(self, label: str, line: str) -> None:
        line = _labelled(label, readable(line))
        if self._bars is not None:
            with contextlib.suppress(OSError):
                self._console.print(line)
        else:
            _say(line)

    def loading(self, label: str, progress: Loading) -> None:
        if self._bars is not None:
            with contextlib.suppress(OSError):
                self._show(label, progress)
        elif progress.stage and progress.stage != self._stages.get(label):
            _say(_labelled(label, progress.stage))
        self._stages[label] = progress.stage

    def ready(self) -> None:
        self._end_bars()
        _say(self._welcome, sys.stdout)

    def stopping(self) -> None:
        self._end_bars()
        _say("stopping: requests may finish; once more stops at once")

    def stopped(self) -> None:
        _say("stopped")

    def _show(self, label: str, progress: Loading) -> None:
        assert self._bars is not None
        description = _labelled(label, progress.stage or "starting")
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(description, total=None)
        self._bars.update(
            self._tasks[label],
            description=description,
            completed=progress.done,
            total=progress.total or None,
        )

    def _end_bars(self) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            with contextlib.suppress(OSError):
                bars.stop()


def _say(text: str, file: TextIO | None = None) -> None:
    """A line, to stderr if not told otherwise."""
    with contextlib.suppress(OSError):
        print(text, file=file or sys.stderr, flush=True)


def _labelled(label: str, text: str) -> str:
    return f"{label}: {text}" if label else text

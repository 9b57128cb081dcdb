"""What a person sees of a node: a bar on a terminal, plain lines elsewhere, the node's own log in between."""

from __future__ import annotations

import json
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from drift_operator.supervising import Loading


def readable(line: str) -> str:
    """A node's log line, one JSON object, as a person reads it; anything else as it is."""
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
    """The command line as a `supervising.Audience`. Results go to stdout, everything else to stderr."""

    def __init__(self, name: str, welcome: str) -> None:
        self._name = name
        self._welcome = welcome
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage: str | None = None

    def __enter__(self) -> StartUp:
        self._console.print(f"starting {self._name}")
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("starting the node", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()

    def log(self, line: str) -> None:
        line = readable(line)
        if self._bar is not None:
            self._console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def loading(self, progress: Loading) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=progress.stage or "starting the node",
                completed=progress.done,
                total=progress.total or None,
            )
        elif progress.stage != self._stage:
            print(progress.stage, file=sys.stderr, flush=True)
        self._stage = progress.stage

    def ready(self) -> None:
        self._end_bar()
        print(self._welcome, flush=True)

    def stopping(self) -> None:
        self._end_bar()
        print("stopping: requests may finish; once more stops at once", file=sys.stderr, flush=True)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

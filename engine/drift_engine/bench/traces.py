"""Recorded workloads as arrivals: what `shaping` scales and `preparing` turns into requests.

Every format becomes a list of `Arrival`, sorted by time. An arrival either carries a recorded text or says how long
its prompt is and which blocks it is made of: equal block ids at equal places are equal text, whatever the request.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import itertools
import math
import statistics
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TextIO, TypeVar

import msgspec

from drift_engine import wire
from drift_engine.errors import EngineError

Format = Literal["mooncake", "azure", "agent-sessions"]

MOONCAKE_BLOCK_TOKENS = 512
"""Fixed by the trace's authors: one hash id per 512 tokens of prompt."""
MOST = 1 << 53
"""Of any number in a trace: microseconds since 1970, and whatever else a float holds exactly."""
MIN_GRID_MS = 1000
GRID_JITTER_MS = 5
"""Time stamps that all lie on multiples of at least 1 s, but for rounding, were recorded in bins. Mooncake's
conversation trace: 401 distinct stamps, all within 1 ms of a multiple of 3 s.
"""


class TraceError(EngineError):
    """A trace can't be read: names the file, the line and what is wrong with it."""


class Arrival(msgspec.Struct, frozen=True):
    """One request of a workload."""

    index: int
    at_s: float
    """Seconds since the first arrival of the trace."""
    prompt_tokens: int = 0
    """Asked length; 0 where only `text` tells (the server's tokenizer decides)."""
    output_tokens: int = 0
    block_ids: tuple[int, ...] = ()
    block_tokens: int = 0
    """Length of every block but the last, which is cut to `prompt_tokens`."""
    text: str | None = None
    output_text: str | None = None
    """The recorded answer: its length is how much is asked for."""
    session: str | None = None
    """Turns of one session are sent one after the other."""


class Trace(msgspec.Struct, frozen=True):
    name: str
    format: str
    arrivals: tuple[Arrival, ...]
    bin_s: float = 0.0
    """Width of the grid that the time stamps were rounded to; 0 where there is none."""


class _MooncakeLine(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=MOST)]  # ms
    input_length: Annotated[int, msgspec.Meta(ge=1, le=MOST)]
    output_length: Annotated[int, msgspec.Meta(ge=0, le=MOST)]
    hash_ids: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class _SessionLine(msgspec.Struct):
    timestamp: Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]  # us
    input: Annotated[str, msgspec.Meta(min_length=1)]
    output: str
    session_id: str


_Line = TypeVar("_Line", _MooncakeLine, _SessionLine)


def read(path: Path, trace_format: Format | None = None) -> Trace:
    """The trace in `path`, gzipped or not; `None` finds the format from the first line. Raises TraceError."""
    try:
        with _open(path) as file:
            first = file.readline()
            name = trace_format or _recognise(path, first)
            arrivals, bin_s = _READERS[name](path, _rest(first, file))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise TraceError(f"{path}: can't be read: {error}") from error
    if not arrivals:
        raise TraceError(f"{path}: holds no requests")
    return Trace(name=path.name, format=name, arrivals=tuple(arrivals), bin_s=bin_s)


def _open(path: Path) -> TextIO:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8") if gzipped else path.open(encoding="utf-8")


def _rest(first: str, file: TextIO) -> Iterator[str]:
    yield first
    yield from file


def _recognise(path: Path, first: str) -> Format:
    if first.startswith("{") and '"hash_ids"' in first:
        return "mooncake"
    if first.startswith("{") and '"session_id"' in first:
        return "agent-sessions"
    if first.startswith("TIMESTAMP,ContextTokens,GeneratedTokens"):
        return "azure"
    raise TraceError(
        f"{path}: format not recognised from the first line; name it: mooncake, azure or agent-sessions"
    )


def _decode(path: Path, lines: Iterable[str], kind: type[_Line]) -> Iterator[tuple[int, _Line]]:
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, decoder.decode(line)
            except wire.UNREADABLE as error:
                raise TraceError(f"{path}:{number}: {error}") from error


def _mooncake(path: Path, lines: Iterable[str]) -> tuple[list[Arrival], float]:
    records: list[_MooncakeLine] = []
    for number, record in _decode(path, lines, _MooncakeLine):
        blocks = math.ceil(record.input_length / MOONCAKE_BLOCK_TOKENS)
        if len(record.hash_ids) != blocks:
            raise TraceError(
                f"{path}:{number}: hash_ids has {len(record.hash_ids)} ids, "
                f"input_length {record.input_length} needs {blocks}"
            )
        records.append(record)
    records.sort(key=lambda record: record.timestamp)
    start = records[0].timestamp if records else 0.0
    arrivals = [
        Arrival(
            index=index,
            at_s=(record.timestamp - start) / 1e3,
            prompt_tokens=record.input_length,
            output_tokens=max(1, record.output_length),
            block_ids=record.hash_ids,
            block_tokens=MOONCAKE_BLOCK_TOKENS,
        )
        for index, record in enumerate(records)
    ]
    return arrivals, grid_s([record.timestamp - start for record in records])


def grid_s(stamps_ms: Sequence[float]) -> float:
    """Width of the bins that ascending time stamps were rounded to; 0 if they were not."""
    distinct = sorted(set(stamps_ms))
    if len(distinct) < 3:
        return 0.0
    width = statistics.median(after - before for before, after in itertools.pairwise(distinct))
    if width < MIN_GRID_MS:
        return 0.0
    off = max(abs(stamp - round(stamp / width) * width) for stamp in distinct)
    return width / 1e3 if off <= GRID_JITTER_MS else 0.0


def _azure(path: Path, lines: Iterable[str]) -> tuple[list[Arrival], float]:
    rows: list[tuple[datetime.datetime, int, int]] = []
    reader = csv.DictReader(lines)
    for number, row in enumerate(reader, 2):
        try:
            rows.append(
                (_time(row["TIMESTAMP"]), _count(row["ContextTokens"]), _count(row["GeneratedTokens"]))
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise TraceError(
                f"{path}:{number}: needs TIMESTAMP,ContextTokens,GeneratedTokens: {error}"
            ) from error
    rows.sort(key=lambda row: row[0])
    arrivals = [
        Arrival(
            index=index,
            at_s=(at - rows[0][0]).total_seconds(),
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            block_ids=(index,),  # nothing is known to be shared: one block of its own each
            block_tokens=prompt_tokens,
        )
        for index, (at, prompt_tokens, output_tokens) in enumerate(rows)
    ]
    return arrivals, 0.0


def _time(text: str) -> datetime.datetime:
    """Without a time zone: UTC."""
    found = datetime.datetime.fromisoformat(text)
    return found if found.tzinfo is None else found.astimezone(datetime.UTC).replace(tzinfo=None)


def _count(text: str) -> int:
    found = max(1, int(text))
    if found > MOST:
        raise ValueError(f"{text} is above {MOST}")
    return found


def _sessions(path: Path, lines: Iterable[str]) -> tuple[list[Arrival], float]:
    records = [record for _, record in _decode(path, lines, _SessionLine)]
    records.sort(key=lambda record: record.timestamp)  # stable: turns of equal time keep the file's order
    return [
        Arrival(
            index=index,
            at_s=(record.timestamp - records[0].timestamp) / 1e6,
            text=record.input,
            output_text=record.output,
            session=record.session_id,
        )
        for index, record in enumerate(records)
    ], 0.0


_READERS: dict[Format, Callable[[Path, Iterable[str]], tuple[list[Arrival], float]]] = {
    "mooncake": _mooncake,
    "azure": _azure,
    "agent-sessions": _sessions,
}

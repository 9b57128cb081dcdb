"""The token-time log of a run: what happened to every request, before any judgement. See docs/bench.md.

JSON lines: a `Header`, then one `RequestRecord` per request in the order in which they ended. `replaying` (or the
simulator) writes it, `metrics` reads it; nothing that `metrics` prints comes from anywhere else.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from drift_engine import wire
from drift_engine.errors import EngineError

LOG_SCHEMA = "drift.token-times/1"


class LogError(EngineError):
    """A token-time log can't be read or written."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """First line of a log."""

    schema: str = LOG_SCHEMA


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `scheduled_s` and `due_s` count from the run's start, all other times from `due_s`."""

    index: int
    scheduled_s: float
    """Arrival by the workload."""
    due_s: float
    """When it had to be sent: `scheduled_s`, or the end of the session's previous turn if that came later."""
    lag_s: float = 0.0
    """How late the load generator itself was: no server is to blame for it, but the latencies contain it."""
    sent_s: float | None = None
    """After waiting for a place under the concurrency limit."""
    first_byte_s: float | None = None
    """Response headers."""
    token_times_s: tuple[float, ...] = ()
    """Arrivals of tokens; tokens that were read at one instant are one arrival."""
    token_counts: tuple[int, ...] = ()
    """Tokens of each arrival."""
    end_s: float
    """End of the answer or of the attempt."""
    status: Literal["ok", "failed"]
    reason: str = ""
    """Why it failed."""
    finish_reason: str | None = None
    asked_prompt_tokens: int | None = None
    asked_output_tokens: int | None = None
    prompt_tokens: int | None = None
    """As the server counts them in `usage`; None where it did not say."""
    cached_tokens: int | None = None
    output_tokens: int | None = None
    exact_counts: bool = False
    """The server said how many tokens each chunk holds; otherwise a chunk with text counts as one."""
    forced_length: bool = False
    """The request asked for exactly `asked_output_tokens`."""
    clipped_prompt: bool = False
    clipped_output: bool = False
    session: str | None = None


class LogWriter:
    """Appends to a log file, one whole line at a time, so that a run that is cut off leaves a readable log."""

    def __init__(self, path: Path) -> None:
        """Raises LogError."""
        self._path = path
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise LogError(f"{path}: can't be written: {error.strerror}") from error
        self._write(Header())

    def append(self, record: RequestRecord) -> None:
        """Raises LogError, for example when the disk is full."""
        self._write(record)

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Header | RequestRecord) -> None:
        try:
            self._file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            raise LogError(f"{self._path}: can't be written: {error.strerror}") from error


def read(path: Path) -> tuple[RequestRecord, ...]:
    """Gzipped or not. Raises LogError that names the line."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise LogError(f"{path}: can't be unpacked: {error}") from error
    except OSError as error:
        raise LogError(f"{path}: can't be read: {error.strerror}") from error
    lines: Iterable[bytes] = content.splitlines()
    header: Header | None = None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            if header is None:
                header = msgspec.json.decode(line, type=Header)
            else:
                records.append(msgspec.json.decode(line, type=RequestRecord))
        except wire.UNREADABLE as error:
            if header is None:
                break
            raise LogError(f"{path}:{number}: {error}") from error
    if header is None or header.schema != LOG_SCHEMA:
        raise LogError(f"{path}: is not a log of schema {LOG_SCHEMA}")
    return tuple(records)

"""Which `drift up` runs on this machine, for `drift top` and `drift status`: one private file a run, with its
URLs and token.

The run holds a lock on its file for as long as it lives. A file whose lock nobody holds is a killed run's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

MAX_BYTES = 1 << 20
"""Of a file; the largest DriftService that the API server takes has 1.5 MiB, and people write some KiB."""


class Run(msgspec.Struct, frozen=True):
    """One `drift up`."""

    name: str
    admin_url: str
    """Of its router, or the control port of its only node."""
    door_url: str
    """Of the run itself, which keeps its promise as an operator does and tells the same."""
    token: str
    service: dict[str, Any]
    """The DriftService that it serves, as a document."""


def folder(environ: Mapping[str, str]) -> Path | None:
    """In the user's runtime folder, else the cache folder (XDG base directories); None where there is neither."""
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "drift"
    cache = environ.get("XDG_CACHE_HOME") or (environ.get("HOME") and f"{environ['HOME']}/.cache")
    return Path(cache) / "drift" / "runs" if cache else None


@contextlib.contextmanager
def published(run: Run, environ: Mapping[str, str]) -> Iterator[None]:
    """Known on this machine meanwhile. A folder that can't be written costs `drift top` its default and no more."""
    at = folder(environ)
    with contextlib.ExitStack() as held:
        if at is not None:
            with contextlib.suppress(OSError):
                at.mkdir(parents=True, exist_ok=True, mode=0o700)
                held.enter_context(_file(at / f"{os.getpid()}.json", msgspec.json.encode(run)))
        yield


def newest(environ: Mapping[str, str], name: str | None = None) -> Run | None:
    """The one that was started last and lives, among those of a name; what killed ones left is removed."""
    at = folder(environ)
    if at is None or not at.is_dir():
        return None
    found: list[tuple[float, Run]] = []
    for path in at.glob("*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError), path.open("rb") as stream:
            if _abandoned(stream.fileno()):
                path.unlink()
            else:
                made_s = os.fstat(stream.fileno()).st_mtime
                one = msgspec.json.decode(stream.read(MAX_BYTES), type=Run)
                if name in (None, one.name):
                    found.append((made_s, one))
    return max(found, key=lambda one: one[0])[1] if found else None


@contextlib.contextmanager
def _file(path: Path, content: bytes) -> Iterator[None]:
    path.unlink(missing_ok=True)  # of a process that had our number
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stream.write(content)
        stream.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _abandoned(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""The latency model on disk: one JSON document that says on what it was learned.

A model of another device, checkpoint or version predicts other passes, so it is refused, like a damaged file: with a
reason for the log, after which the node starts from its prior.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from drift_engine import wire
from drift_engine.latency.snapshots import Snapshot

SCHEMA = 1
"""Raised with every change of what a snapshot's numbers mean."""


class Identity(msgspec.Struct, frozen=True):
    """What a latency model holds for."""

    hardware: str  # as the device names itself
    model: str
    dtype: str
    engine_version: str


class Refused(msgspec.Struct, frozen=True):
    """Why a saved model can't be used, in one line."""

    reason: str


class _Header(msgspec.Struct):
    schema: int
    identity: Identity


class _Document(msgspec.Struct):
    schema: int
    identity: Identity
    snapshot: Snapshot


def save(path: Path, identity: Identity, snapshot: Snapshot) -> None:
    """Writes the whole document or nothing. Raises OSError."""
    document = msgspec.json.format(msgspec.json.encode(_Document(SCHEMA, identity, snapshot)), indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())  # before the rename: a power cut must not leave a name without content
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path, identity: Identity) -> Snapshot | Refused:
    """Reads what `save` wrote for the same identity."""
    try:
        document = path.read_bytes()
    except FileNotFoundError:
        return Refused(f"{path}: no latency model was saved")
    except OSError as error:
        return Refused(f"{path} can't be read: {error.strerror}")
    try:
        # The header alone first: of another schema nothing else need decode.
        header = msgspec.json.decode(document, type=_Header)
        if header.schema != SCHEMA:
            return Refused(f"{path} has schema {header.schema}, this version reads {SCHEMA}")
        for field in identity.__struct_fields__:
            theirs, ours = getattr(header.identity, field), getattr(identity, field)
            if theirs != ours:
                return Refused(f"{path} was learned with {field} {theirs!r}, this node has {ours!r}")
        return msgspec.json.decode(document, type=_Document).snapshot
    except wire.UNREADABLE as error:
        return Refused(f"{path} is damaged: {error}")

"""Spans as data: what took how long within what. Times are `time.monotonic()` seconds, as on the wire."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import msgspec

Attributes = Mapping[str, str | bool | int | float | Sequence[str]]

OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}
"""The paths that generate, and what each does in the words of OpenTelemetry's conventions for generative AI."""


class Outcome(enum.StrEnum):
    """What became of a span."""

    EXPORTED = "exported"
    DROPPED = "dropped"  # as many as may waited for the collector
    FAILED = "failed"  # the collector did not take it


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something that happened within a span."""

    name: str
    at_s: float
    attributes: Attributes = {}


class Span(msgspec.Struct, frozen=True):
    """Something that took its time and is over."""

    name: str
    start_s: float
    end_s: float
    attributes: Attributes = {}
    events: Sequence[Event] = ()
    children: Sequence[Span] = ()

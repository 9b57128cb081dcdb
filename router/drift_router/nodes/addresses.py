"""Where nodes are, as an operator writes it down, and what makes a list of them usable."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from drift_router import documents
from drift_router.documents import DocumentError, shown

MAX_NODES = 4096
"""In one list. A mask of the prefix index has one bit a node, 512 bytes at this many; twice the largest deployments
known of one model."""

MAX_PORT = 65535

_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?)"
_URL = re.compile(rf"https?://{_HOST}(:(?P<port>\d{{1,6}}))?/?")
_EVENTS_URL = re.compile(rf"tcp://{_HOST}:(?P<port>\d{{1,6}})")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:/-]{0,251}[A-Za-z0-9])?")


def _told(pattern: re.Pattern[str], **more: int) -> msgspec.Meta:
    """For the admin port's document. `Address` checks it itself, as its words name the value and the limit, too."""
    return msgspec.Meta(extra_json_schema={"pattern": f"^{pattern.pattern.replace('?P<port>', '')}$", **more})


_ApiUrl = Annotated[str, _told(_URL)]
_EventsUrl = Annotated[str, _told(_EVENTS_URL)]


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node. It is the same node as long as its name and all of its URLs are."""

    name: Annotated[str, _told(_NAME, minLength=1, maxLength=253)]
    """Shown in logs, metrics and explanations."""
    url: _ApiUrl
    """http://HOST:PORT of its OpenAI API."""
    control_url: _ApiUrl | None = None
    """Of its control port; None: it is no node of ours, and only what it answers is known of it."""
    events_url: _EventsUrl | None = None
    """tcp://HOST:PORT where a vLLM node publishes its KV events; None: it is no such node."""
    replay_url: _EventsUrl | None = None
    """tcp://HOST:PORT where it tells those that were missed: with `events_url`, and only with it."""
    weight: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1})] = 1.0
    """Of new requests, beside others' that would do as well; 0: none."""
    draining: bool = False
    """Finishes what it has and gets nothing new."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name: {shown(self.name)} is not 1 to 253 letters, digits and '._:/-', ending in a letter or digit"
            )
        _check_url("url", self.url)
        if self.control_url is not None:
            _check_url("control_url", self.control_url)
        self._check_events()
        if not (math.isfinite(self.weight) and 0 <= self.weight <= 1):
            raise ValueError(f"weight: {self.weight} is not between 0 and 1")

    def _check_events(self) -> None:
        urls = {"events_url": self.events_url, "replay_url": self.replay_url}
        for field, url in urls.items():
            if url is not None:
                _check_url(field, url, _EVENTS_URL, "tcp://HOST:PORT")
        if missing := [field for field, url in urls.items() if url is None]:
            if len(missing) < len(urls):
                raise ValueError(
                    f"{missing[0]}: is missing: a node publishes at one address and replays at another"
                )
        elif self.control_url is not None:
            raise ValueError(f"events_url: {shown(str(self.events_url))}: not beside control_url")


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nodes: list[Address]


def load(file: Path) -> tuple[Address, ...]:
    """A YAML or JSON file `nodes: [...]`. Raises DocumentError."""
    return documents.load(file, _Document, made=lambda document: checked(document.nodes))


def checked(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Raises DocumentError where two entries could be confused, or where there are too many."""
    if len(addresses) > MAX_NODES:
        raise DocumentError(f"nodes: {len(addresses)} entries are more than the maximum {MAX_NODES}")
    for field in ("name", "url"):
        first: dict[str, int] = {}
        for index, address in enumerate(addresses):
            value = getattr(address, field)
            if value in first:
                raise DocumentError(
                    f"nodes[{index}].{field}: {shown(value)} is also that of nodes[{first[value]}]"
                )
            first[value] = index
    return tuple(addresses)


def _check_url(field: str, url: str, wanted: re.Pattern[str] = _URL, form: str = "http://HOST:PORT") -> None:
    found = wanted.fullmatch(url)
    if found is None:
        raise ValueError(f"{field}: {shown(url)} is not of the form {form}")
    if found["port"] is not None and not 1 <= int(found["port"]) <= MAX_PORT:
        raise ValueError(f"{field}: {shown(url)}: the port is not between 1 and {MAX_PORT}")

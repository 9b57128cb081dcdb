"""More of what is done with bytes that nobody vouches for: documents of nodes, operators and files."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pydantic

from drift_engine import wire
from drift_engine.api import errors
from drift_engine.api.setpoints import SetPoint, SetPoints
from drift_engine.bench import traces
from drift_engine.bench.answers import Answer, AnswerError
from drift_engine.bench.sse import SseParser
from drift_operator.doors import label_selectors
from drift_operator.levers import observations
from drift_operator.levers.observations import Node, Observation
from drift_router import promises
from drift_router.discovery import pushed
from drift_router.documents import DocumentError
from drift_router.index import engine_events
from drift_router.index.aliases import Aliases
from drift_router.index.engine_events import Removed, Stored
from drift_router.index.events import Malformed
from drift_router.index.prefixes import PrefixIndex
from drift_router.nodes.addresses import Address
from drift_router.nodes.registry import Registry

INDEX_BYTES = 1 << 20
SPLITS = (wire.Split(1, 3), wire.Split(2, 2))
NOW_S = 100.0

_reports = msgspec.json.Decoder(wire.Report)


def engine_batches(data: bytes) -> None:
    """Batches of a vLLM node are refused, or can be kept and forgotten, one behind the other."""
    index, aliases = PrefixIndex(INDEX_BYTES), Aliases()
    with contextlib.suppress(Malformed):
        for event, pages in aliases.apply(engine_events.parse(data)):
            match event:
                case Stored():
                    index.stored(0, pages)
                case Removed():
                    index.removed(0, pages)
    index.restore(0, aliases.names)
    assert index.held_bytes <= INDEX_BYTES


def reports(data: bytes) -> None:
    """A node's report is refused, or both router and operator can compute with it."""
    try:
        found = _reports.decode(data)
    except wire.UNREADABLE:
        return
    node = Node("a", found, age_s=0.0, ready=True)
    observed, problems = observations.sane(Observation((node,), routed=False))
    assert (observed.nodes[0].report is None) == bool(problems)
    registry = Registry(PrefixIndex(INDEX_BYTES), lambda _: None, seed=1)
    registry.set_nodes([Address("a", "http://a:8000", "http://a:8001")], 0.0)
    for now_s in (NOW_S, NOW_S + 1):
        (slot,) = registry.addresses()
        registry.reported(slot, found, now_s)
        for seen in registry.snapshot(now_s):
            figures = [value for value in msgspec.structs.astuple(seen) if isinstance(value, int | float)]
            assert all(map(math.isfinite, figures))


def told(data: bytes) -> None:
    """What an operator tells a router is refused, or can be told on."""
    with contextlib.suppress(DocumentError):
        msgspec.json.encode(pushed.parse(data))
    with contextlib.suppress(DocumentError):
        assert math.isfinite(promises.parse(data).promise.ttft_ms)


def set_points(data: bytes) -> None:
    """What an operator tells a node is refused, or the core can be told."""
    points = SetPoints()
    with contextlib.suppress(pydantic.ValidationError, errors.ApiError):
        wire.encode(points.take(SetPoint.model_validate_json(data), SPLITS, NOW_S))
        assert points.present(NOW_S) is not None


def answers(data: bytes) -> None:
    """A foreign server's stream is the same events however it is cut, and each is refused or counted."""
    found = [_events(data, size) for size in (len(data) or 1, 3)]
    assert found[0] == found[1]
    answer = Answer()
    with contextlib.suppress(AnswerError):
        for number, event in enumerate(found[0]):
            answer.feed(event, float(number))
        answer.close()
        assert all(count > 0 for count in answer.token_counts)


def _events(data: bytes, size: int) -> list[bytes]:
    parser, found = SseParser(), []
    for at in range(0, len(data), size):
        found += parser.feed(data[at : at + size])
    return found


def traced(data: bytes) -> None:
    """A recorded workload is refused with its line, or can be replayed."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        try:
            found = traces.read(Path(file.name))
        except traces.TraceError:
            return
    assert [arrival.at_s for arrival in found.arrivals] == sorted(arrival.at_s for arrival in found.arrivals)
    assert all(math.isfinite(arrival.at_s) and arrival.at_s >= 0 for arrival in found.arrivals)


def selectors(data: bytes) -> None:
    """A label selector is refused, or can be asked."""
    with contextlib.suppress(label_selectors.SelectorError):
        label_selectors.parse(data.decode(errors="replace")).matches({"a": "b"})


TARGETS: dict[str, Callable[[bytes], None]] = {
    "engine-batches": engine_batches,
    "reports": reports,
    "told": told,
    "set-points": set_points,
    "server-answers": answers,
    "traces": traced,
    "selectors": selectors,
}

"""Pictures of requests, memory and lanes, and latency models that say what a test wants: for tests of decisions."""

from __future__ import annotations

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling.views import Cut, Flight, Lanes, Limits, Memory, Running, State, Table, Waiting

PAGE_TOKENS = 4
LAYERS = 10
SPLITS = tuple(wire.Split(sms, 8 - sms) for sms in range(1, 8))


class Speeds:
    """On one SM a decode step takes `decode_s` and `row_s` per row, a prefill `token_s` per token; s SMs take 1/s of
    the prefill's time, and of the decode step's until `saturated` SMs. Nothing is slower beside a neighbour."""

    def __init__(
        self,
        decode_s: float,
        token_s: float,
        *,
        row_s: float = 0.0,
        saturated: int = 1,
        fused_factor: float = 1.0,
    ) -> None:
        self._decode_s, self._row_s, self._token_s, self._saturated = decode_s, row_s, token_s, saturated
        self.fused_factor = fused_factor

    def pass_s(self, load: Load, sms: int) -> float | None:
        decode_s = self._decode_s + self._row_s * load.decode_rows if load.decode_rows else 0.0
        return decode_s / min(sms, self._saturated) + load.new_tokens * self._token_s / sms

    def beside_s(self, load: Load, sms: int, neighbour: Load) -> float | None:
        return self.pass_s(load, sms)


class Unknown:
    fused_factor = 1.0

    def pass_s(self, load: Load, sms: int) -> float | None:
        return None

    def beside_s(self, load: Load, sms: int, neighbour: Load) -> float | None:
        return None


def state(
    *,
    waiting: tuple[Waiting, ...] = (),
    running: tuple[Running, ...] = (),
    free: int = 100,
    evictable: int = 0,
    max_running: int = 8,
    chunk_tokens: int | None = None,
    max_step_tokens: int = 512,
    lanes: Lanes | None = None,
    in_flight: int = 0,
    computing: tuple[tuple[int, ...], ...] = (),
    pressed: bool = False,
    table: Table = (),
    min_dwell_s: float = 0.0,
) -> State:
    total = free + evictable + sum(-(-r.computed_tokens // PAGE_TOKENS) for r in running)
    return State(
        waiting,
        running,
        Memory(PAGE_TOKENS, total, free, evictable),
        Limits(max_running, chunk_tokens, max_step_tokens, LAYERS, min_dwell_s=min_dwell_s),
        lanes or Lanes(1),
        in_flight,
        computing,
        pressed,
        table,
    )


def lanes(
    *,
    flight: Flight | None = None,
    cut: Cut | None = None,
    split: wire.Split | None = None,
    since_s: float = 0.0,
    mode: wire.Mode | None = None,
) -> Lanes:
    return Lanes(8, SPLITS, flight, (cut,) if cut is not None else (), split, since_s, mode)


def new(
    name: str,
    tokens: int,
    *,
    cached: int = 0,
    idle: int | None = None,
    arrival_s: float = 0.0,
    deadline_s: float = 0.4,
    priority: int = 0,
    marks: tuple[int, ...] = (),
) -> Waiting:
    """`idle` None: nobody else holds the cached pages."""
    idle_pages = cached // PAGE_TOKENS if idle is None else idle
    return Waiting(name, tokens, cached, idle_pages, arrival_s, deadline_s, priority, marks)


def decoding(
    name: str, context: int, *, arrival_s: float = 0.0, priority: int = 0, due_s: float = 0.08
) -> Running:
    return Running(name, context, 1, arrival_s, 0.08, due_s, priority)

"""A core on a simulated device behind a virtual clock: a workload goes in, tokens and their times come out.

What passes take is made by hand, in numbers that floats hold exactly. Free of torch.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drift_engine import wire
from drift_engine.cache import KvCache
from drift_engine.clock import VirtualClock
from drift_engine.core.limits import CoreLimits
from drift_engine.core.loop import Core
from drift_engine.devices.base import Draw, Drawn, Row
from drift_engine.devices.sim import SimDevice, Timing
from drift_engine.devices.sim_tokens import PagedTokens
from drift_engine.latency.accuracy import Errors
from drift_engine.latency.loads import Load
from drift_engine.scheduling.predictions import Learned
from drift_engine.simulation.nodes import NodeSpec

SMS = 8
SPLITS = tuple(wire.Split(count, SMS - count) for count in (2, 4, 6))
LAYERS = 4
WORDS = range(1000, 2000)


class HandMade:
    """Linear in everything. Weights and rows take as long on any lane, prefill tokens longer on part of the SMs, and
    everything beside a neighbour by a constant factor."""

    def __init__(
        self,
        *,
        pass_s: float = 2**-7,
        row_s: float = 2**-12,
        context_s: float = 2**-20,
        token_s: float = 2**-12,
        decode_slowdown: float = 1.25,
        prefill_slowdown: float = 1.125,
    ) -> None:
        self._costs = (pass_s, row_s, context_s, token_s)
        self._slowdowns = (decode_slowdown, prefill_slowdown)

    def pass_s(self, load: Load, sms: int) -> float:
        pass_s, row_s, context_s, token_s = self._costs
        decode_s = row_s * load.decode_rows + context_s * load.decode_context_tokens
        return pass_s + decode_s + token_s * load.new_tokens * SMS / sms

    def slowdown(self, load: Load, sms: int, neighbour: Load, neighbour_sms: int) -> float:
        return self._slowdowns[load.prefill_rows > 0]


class Knowing:
    """A latency model that knows the device's timing and learns nothing."""

    fused_factor = 1.0

    def __init__(self, timing: Timing, sms: int = SMS) -> None:
        self._timing = timing
        self._sms = sms

    def pass_s(self, load: Load, sms: int) -> float:
        return self._timing.pass_s(load, sms)

    def beside_s(self, load: Load, sms: int, neighbour: Load) -> float:
        return self.pass_s(load, sms) * self._timing.slowdown(load, sms, neighbour, self._sms - sms)

    def observe(self, load: Load, sms: int, seconds: float, neighbour: Load | None, now_s: float) -> None:
        assert seconds > 0

    def prefill_tokens_per_s(self, sms: int, chunk_tokens: int = 512) -> float:
        return chunk_tokens / self.pass_s(Load.prefill([(chunk_tokens, 0)]), sms)

    def split_cost(self, decode_sms: int, prefill_sms: int) -> wire.SplitCost | None:
        return None

    def errors(self) -> Errors:
        return Errors(0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0)


@dataclass
class Asked:
    request_id: str
    token_ids: list[int]
    output_tokens: int
    at_s: float = 0.0
    cancelled_s: float | None = None
    drawn_token_ids: Sequence[int] = ()


@dataclass
class Answer:
    token_ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    cached_tokens: int = 0
    finish: wire.FinishReason | None = None


class Arriving:
    """A channel on which messages arrive at their time; the clock never passes one that has not arrived."""

    def __init__(self, clock: VirtualClock, requests: Sequence[Asked]) -> None:
        self._clock = clock
        self._line: list[tuple[float, int, wire.ToCore]] = []
        for index, asked in enumerate(requests):
            submit = wire.Submit(
                asked.request_id,
                asked.token_ids,
                greedy(asked.output_tokens),
                asked.at_s,
                drawn_token_ids=list(asked.drawn_token_ids),
            )
            self._line.append((asked.at_s, index, submit))
            if asked.cancelled_s is not None:
                self._line.append((asked.cancelled_s, len(requests) + index, wire.Cancel(asked.request_id)))
        heapq.heapify(self._line)
        self.sent: list[wire.FromCore] = []

    @property
    def empty(self) -> bool:
        """Everything arrived."""
        return not self._line

    def send(self, message: wire.FromCore) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        """Nothing waits."""

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        if timeout_s and self._line:  # the core has nothing to do
            self._clock.horizon_s = self._line[0][0]
            self._clock.sleep_until(self._line[0][0], timeout_s)
        taken: list[wire.ToCore] = []
        while self._line and self._line[0][0] <= self._clock.now_s():
            taken.append(heapq.heappop(self._line)[2])
        self._clock.horizon_s = self._line[0][0] if self._line else float("inf")
        return taken


class SimCore:
    """`run` may be called once."""

    def __init__(
        self,
        requests: Sequence[Asked],
        *,
        mode: wire.Mode = wire.Mode.FUSED,
        timing: Timing | None = None,
        latency: Learned | None = None,
        lookahead_steps: int = 1,
        sms: int = SMS,
        splits: Sequence[wire.Split] = SPLITS,
        pages: int = 1024,
        page_tokens: int = 4,
        max_running: int = 8,
        max_step_tokens: int = 256,
        chunk_tokens: int | None = None,
        targets: wire.Targets = wire.Targets(400.0, 0.0, 25.0),  # noqa: B008 - frozen
    ) -> None:
        timing = timing or HandMade()
        clock = VirtualClock()
        self.cache = KvCache(pages, page_tokens)
        self.device = SimDevice(
            clock,
            timing,
            PagedTokens(page_tokens, WORDS, ()),
            sms=sms,
            splits=splits,
            layers=LAYERS,
            lookahead_steps=lookahead_steps,
            heard=self._heard,
        )
        self.answers = {asked.request_id: Answer() for asked in requests}
        self._cancelled = {asked.request_id for asked in requests if asked.cancelled_s is not None}
        self.stats: wire.Stats | None = None
        self.costs: list[tuple[float, wire.Costs]] = []  # as told, and when
        self._channel = Arriving(clock, requests)
        self.core = Core(
            self.device,
            self.cache,
            self._channel,
            None,
            mode,
            CoreLimits(
                max_running=max_running,
                max_model_len_tokens=pages * page_tokens,
                max_step_tokens=max_step_tokens,
                chunk_tokens=chunk_tokens,
                eos_token_ids=frozenset(),
                layers=LAYERS,
                kept_spans=10_000,
            ),
            targets,
            latency or Knowing(timing, sms),
        )

    def run(self, *, max_steps: int = 20_000) -> dict[str, Answer]:
        """Steps until every answer has ended; fails the test when that takes too many."""
        for _ in range(max_steps):
            if self._channel.empty and not self.core.requests and self._over():
                self.core.step()  # an idle core checks its books
                return self.answers
            self.core.step()
            self.take()
        raise AssertionError(f"requests did not finish within {max_steps} steps: {self.answers}")

    def _over(self) -> bool:
        """A cancelled request has no end."""
        return all(self.answers[name].finish is not None for name in self.answers.keys() - self._cancelled)

    def take(self) -> None:
        """What the core said since the last time."""
        for message in self._channel.sent:
            if isinstance(message, wire.Costs):
                self.costs.append((self.device.clock.now_s(), message))
            if isinstance(message, wire.Step):
                self.stats = message.stats
                for output in message.outputs:
                    answer = self.answers[output.request_id]
                    assert answer.finish is None, f"{output.request_id} got tokens after its end"
                    answer.token_ids.extend(output.token_ids)
                    answer.cached_tokens = max(answer.cached_tokens, output.cached_tokens)
                    answer.finish = output.finish
        self._channel.sent.clear()

    def _heard(self, row: Row, times_s: Sequence[float]) -> None:
        self.answers[row.request_id].times_s.extend(times_s)


def greedy(max_tokens: int) -> wire.Sampling:
    return wire.Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)


def row(
    token_ids: Sequence[int],
    pages: Sequence[int],
    *,
    start: int = 0,
    last: bool = True,
    name: str = "r",
    ignore_eos: bool = True,
    logprobs: int | None = None,
    banned: tuple[int, ...] = (),
    bitmask: NDArray[np.int32] | None = None,
) -> Row:
    """Tokens at `start`; the last of them draws where the prompt ends with them."""
    sampling = wire.Sampling(max_tokens=1, temperature=0.0, ignore_eos=ignore_eos, logprobs=logprobs)
    draw = Draw(sampling, token_ids, len(token_ids), banned, bitmask)
    return Row(name, token_ids, start, pages, draw if last else None)


def alone(token_ids: Sequence[int], steps: int, page_tokens: int = 4) -> list[int]:
    """What follows a prompt, all at once."""
    tokens = PagedTokens(page_tokens, WORDS, ())
    whole = row(token_ids, range(-(-(len(token_ids) + steps) // page_tokens)))
    tokens.write(whole)
    return [drawn.token_id for drawn in tokens.draw(whole, steps)]


def ids(drawn: Sequence[Drawn]) -> list[int]:
    return [one.token_id for one in drawn]


TIMING = HandMade()
SPEC = NodeSpec(
    timing=TIMING,
    sms=SMS,
    splits=SPLITS,
    layers=LAYERS,
    pairs_share=0.0,
    kv_tokens=32_768,
    max_model_len_tokens=2048,
    mode=wire.Mode.FUSED,
    targets=wire.Targets(1000.0, 0.0, 20.0),
    max_running=32,
    overhead_s=0.0,
)
"""A small simulated node."""

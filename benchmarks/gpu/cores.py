"""The engine's core over any device, in this process: its loop with a mailbox in place of the socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine.local_core import Mailbox

from drift_engine import wire
from drift_engine.cache import KvCache
from drift_engine.core.grammars import Grammars
from drift_engine.core.limits import CoreLimits
from drift_engine.core.loop import Core
from drift_engine.devices.base import Device
from drift_engine.devices.runner import Runner
from drift_engine.latency.model import LatencyModel

RUN_TIMEOUT_S = 100.0
"""Many times what a batch of requests needs; a core that does not finish is a failed step."""


TARGETS = wire.Targets(400.0, 0.0, 50.0)


@dataclass(frozen=True)
class Turn:
    """One step of the core in which a pass ended."""

    wall_s: float
    forward_s: float
    tokens: int
    running: int


class LocalCore:
    """`run` answers requests; `turns` goes through them step by step."""

    def __init__(
        self,
        runner: Runner,
        device: Device,
        *,
        max_running: int,
        chunk_tokens: int | None = None,
        mode: wire.Mode = wire.Mode.FUSED,
        latency: LatencyModel | None = None,
        targets: wire.Targets = TARGETS,
    ) -> None:
        config, kv = runner.model.config, runner.kv
        self.mailbox = Mailbox()
        self.answers: dict[str, list[int]] = {}
        self._open: set[str] = set()
        self._core = Core(
            device,
            KvCache(kv.pages, kv.page_tokens),
            self.mailbox,
            Grammars(Path(), config.vocab_size, config.eos_token_ids),  # no request asks for one
            mode,
            CoreLimits(
                max_running=max_running,
                max_model_len_tokens=min(runner.model.max_context_tokens, kv.pages * kv.page_tokens),
                max_step_tokens=2048,
                chunk_tokens=chunk_tokens,
                eos_token_ids=frozenset(config.eos_token_ids),
                layers=config.num_layers,
            ),
            targets,
            latency or LatencyModel(),
        )

    def submit(self, request_id: str, token_ids: list[int], sampling: wire.Sampling) -> None:
        self._open.add(request_id)
        self.mailbox.inbox.append(wire.Submit(request_id, token_ids, sampling, time.monotonic()))

    def step(self) -> list[wire.Output]:
        """One turn of the core's loop and what it said."""
        self._core.step()
        outputs, self.mailbox.outputs = self.mailbox.outputs, []
        self._open -= {output.request_id for output in outputs if output.finish is not None}
        return outputs

    def give_up(self) -> None:
        """Cancels what still runs and lets the device finish what was launched."""
        deadline_s = time.monotonic() + RUN_TIMEOUT_S
        self.mailbox.inbox += [wire.Cancel(request_id) for request_id in self._open]
        self._open.clear()
        while True:
            self.step()
            stats = self.mailbox.stats
            if stats is None or stats.running + stats.waiting == 0:
                return
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"cancelled requests did not end within {RUN_TIMEOUT_S:.0f} s")

    def turns(
        self, requests: dict[str, tuple[list[int], wire.Sampling]], steps_between: int = 0
    ) -> Iterator[Turn]:
        """All requests at once, or so many of the loop's steps after each other, until the last token."""
        unsent = list(requests.items())
        open_requests, looped = len(requests), 0
        deadline_s = time.monotonic() + RUN_TIMEOUT_S
        forward_s = self.mailbox.stats.forward_s_total if self.mailbox.stats is not None else 0.0
        steps = self.mailbox.stats.steps_total if self.mailbox.stats is not None else 0
        start_s = time.perf_counter()
        while open_requests:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{open_requests} requests did not end within {RUN_TIMEOUT_S:.0f} s")
            while unsent and looped >= (len(requests) - len(unsent)) * steps_between:
                request_id, (token_ids, sampling) = unsent.pop(0)
                self.answers[request_id] = []
                self.submit(request_id, token_ids, sampling)
            outputs = self.step()
            looped += 1
            for output in outputs:
                assert output.error is None, output.error
                self.answers[output.request_id].extend(output.token_ids)
                open_requests -= output.finish is not None
            stats = self.mailbox.stats
            if stats is not None and stats.steps_total > steps:
                now_s = time.perf_counter()
                yield Turn(now_s - start_s, stats.forward_s_total - forward_s, len(outputs), stats.running)
                start_s, forward_s, steps = time.perf_counter(), stats.forward_s_total, stats.steps_total

    def run(
        self, requests: dict[str, tuple[list[int], wire.Sampling]], steps_between: int = 0
    ) -> dict[str, list[int]]:
        for _ in self.turns(requests, steps_between):
            pass
        return {request_id: self.answers.pop(request_id) for request_id in requests}

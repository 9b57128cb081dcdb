"""A core without processes or sockets: a tiny random model, a list for a channel, steps taken by the test."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import torch

import random_checkpoints
from drift_engine import models, wire
from drift_engine.cache import KvCache
from drift_engine.clock import MonotonicClock
from drift_engine.core.grammars import Grammars
from drift_engine.core.limits import CoreLimits
from drift_engine.core.loop import Core
from drift_engine.devices.base import Clock, Device
from drift_engine.devices.cpu import CpuDevice
from drift_engine.devices.runner import Runner
from drift_engine.latency.model import LatencyModel
from drift_engine.models.kv_store import KvStore
from drift_engine.models.transformer import Transformer
from drift_engine.scheduling.predictions import Learned


class Mailbox:
    """A channel that keeps what the core says and hands over what the test puts in."""

    def __init__(self) -> None:
        self.inbox: list[wire.ToCore] = []
        self.sent: list[wire.FromCore] = []

    def send(self, message: wire.FromCore) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        pass

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        taken, self.inbox = self.inbox, []
        return taken


@dataclasses.dataclass
class Answer:
    token_ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[wire.TokenLogprobs] = dataclasses.field(default_factory=list)
    finish: wire.FinishReason | None = None
    stop_token: int | None = None
    cached_tokens: int = 0
    error: str | None = None


def _cpu_device(runner: Runner, clock: Clock) -> Device:
    """Two lanes of one thread each, on whatever cores there are."""
    first = min(os.sched_getaffinity(0))
    return CpuDevice(runner, clock, threads=2, cores=[first, max(os.sched_getaffinity(0))])


class Harness:
    """One core over `model`; closes its lane's thread with `close`."""

    def __init__(
        self,
        model: Transformer,
        folder: Path,
        *,
        mode: wire.Mode = wire.Mode.FUSED,
        pages: int = 64,
        page_tokens: int = 4,
        max_running: int = 8,
        chunk_tokens: int | None = None,
        max_step_tokens: int = 256,
        prefix: bool = True,
        make_device: Callable[[Runner, Clock], Device] = _cpu_device,
        clock: Clock | None = None,
        latency: Learned | None = None,
        slack: wire.Slack = wire.Slack.STRICT,
        min_dwell_s: float = 0.0,
    ) -> None:
        config = model.config
        clock = clock or MonotonicClock()
        kv = KvStore.allocate(config, pages, page_tokens, model.device, model.dtype)
        self.cache = KvCache(pages, page_tokens, prefix=prefix)
        self.mailbox = Mailbox()
        self.device = make_device(Runner(model, kv, clock, max_requests=2), clock)
        self.core = Core(
            self.device,
            self.cache,
            self.mailbox,
            Grammars(folder, config.vocab_size, config.eos_token_ids),
            mode,
            CoreLimits(
                max_running=max_running,
                max_model_len_tokens=min(model.max_context_tokens, pages * page_tokens),
                max_step_tokens=max_step_tokens,
                chunk_tokens=chunk_tokens,
                eos_token_ids=frozenset(config.eos_token_ids),
                layers=config.num_layers,
                kept_spans=10_000,
                slack=slack,
                min_dwell_s=min_dwell_s,
            ),
            wire.Targets(400.0, 0.0, 80.0),
            latency or LatencyModel(),
        )
        self.answers: dict[str, Answer] = {}
        self.stats: wire.Stats | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.device.close()

    def submit(
        self,
        request_id: str,
        token_ids: list[int],
        sampling: wire.Sampling,
        *,
        arrival_s: float = 0.0,
        priority: int = 0,
        salt: str = "",
        drawn: list[int] | None = None,
    ) -> None:
        """`drawn` are tokens of its answer that it has already."""
        self.answers[request_id] = Answer()
        self.mailbox.inbox.append(
            wire.Submit(
                request_id,
                token_ids,
                sampling,
                arrival_s,
                priority=priority,
                salt=salt,
                drawn_token_ids=drawn or [],
            )
        )

    def cancel(self, request_id: str) -> None:
        self.mailbox.inbox.append(wire.Cancel(request_id))

    def step(self) -> None:
        self.core.step()
        for message in self.mailbox.sent:
            if isinstance(message, wire.Step):
                self.stats = message.stats
                for output in message.outputs:
                    self._take(output)
        self.mailbox.sent = [m for m in self.mailbox.sent if not isinstance(m, wire.Step)]

    def run(self, *, max_steps: int = 5000) -> None:
        """Steps until every answer has ended; fails the test when that takes too many."""
        for _ in range(max_steps):
            if not self.mailbox.inbox and all(a.finish is not None for a in self.answers.values()):
                return
            self.step()
        raise AssertionError(f"requests did not finish within {max_steps} steps: {self.answers}")

    def _take(self, output: wire.Output) -> None:
        answer = self.answers[output.request_id]
        assert answer.finish is None, f"{output.request_id} got tokens after its end"
        answer.token_ids.extend(output.token_ids)
        answer.logprobs.extend(output.logprobs or [])
        answer.finish = output.finish
        answer.stop_token = output.stop_token
        answer.cached_tokens = answer.cached_tokens or output.cached_tokens
        answer.error = output.error


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Transformer, Path]]:
    """`tiny_model` on one thread. A test module that wants it says `model = core_harness.model`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_model(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def tiny_model(folder: Path, family: str = "qwen3", **overrides: Any) -> tuple[Transformer, Path]:
    """A random checkpoint, written and loaded in float32."""
    path = random_checkpoints.write(folder / family, family, **overrides)
    return models.load(path, torch.device("cpu"), torch.float32), path


def greedy(max_tokens: int, **fields: Any) -> wire.Sampling:
    return wire.Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True, **fields)


def alone(
    model: Transformer, folder: Path, requests: Iterable[tuple[str, list[int], wire.Sampling]]
) -> dict[str, list[int]]:
    """Each request's tokens when it runs by itself, unchunked and without reuse."""
    tokens = {}
    for request_id, token_ids, sampling in requests:
        with Harness(model, folder, pages=256, prefix=False) as harness:
            harness.submit(request_id, token_ids, sampling)
            harness.run()
            tokens[request_id] = harness.answers[request_id].token_ids
    return tokens

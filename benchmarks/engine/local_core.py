"""A core in the benchmark's own process, started as the core process starts it, without the socket."""

from __future__ import annotations

import time
from pathlib import Path

from drift_engine import wire
from drift_engine.core import process
from drift_engine.options import NodeOptions


class Mailbox:
    """A channel that keeps what the core says and hands over what the benchmark puts in."""

    def __init__(self) -> None:
        self.inbox: list[wire.ToCore] = []
        self.outputs: list[wire.Output] = []
        self.stats: wire.Stats | None = None

    def send(self, message: wire.FromCore) -> None:
        if isinstance(message, wire.Step):
            self.outputs.extend(message.outputs)
            self.stats = message.stats

    def flush(self) -> None:
        pass

    def receive(self, timeout_s: float) -> list[wire.ToCore]:
        taken, self.inbox = self.inbox, []
        return taken


class LocalCore:
    """`run` answers a batch of requests; `first_token_s` and `last_token_s` are times of the outputs."""

    def __init__(self, options: NodeOptions, model_path: Path) -> None:
        self.mailbox = Mailbox()
        started = process.start(options, model_path, self.mailbox)
        self.core, self.device, self.ready = started.core, started.device, started.ready
        self.latency = started.latency
        self._submitted = 0

    def close(self) -> None:
        self.device.close()

    def submit(self, token_ids: list[int], max_tokens: int, arrival_s: float | None = None) -> str:
        """`arrival_s` by the monotonic clock; None: now."""
        request_id = f"request-{self._submitted}"
        self._submitted += 1
        sampling = wire.Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        if arrival_s is None:
            arrival_s = time.monotonic()
        self.mailbox.inbox.append(wire.Submit(request_id, token_ids, sampling, arrival_s))
        return request_id

    def step(self) -> list[wire.Output]:
        """One step; returns its outputs."""
        self.core.step()
        outputs, self.mailbox.outputs = self.mailbox.outputs, []
        return outputs

    def run(self, prompts: list[list[int]], max_tokens: int) -> dict[str, list[int]]:
        """All prompts at once; returns every answer's tokens."""
        tokens: dict[str, list[int]] = {self.submit(prompt, max_tokens): [] for prompt in prompts}
        open_requests = len(tokens)
        while open_requests:
            for output in self.step():
                tokens[output.request_id].extend(output.token_ids)
                open_requests -= output.finish is not None
        return tokens

"""A core without a model: speaks `drift_engine.wire` over the node's socket and answers from scripts.

In a test's own event loop (`FakeCore`), or as the child process of a node:

    python fake_core.py --socket ADDRESS --options JSON --model-path FOLDER --parent-pid N

where `FAKE_CORE` in the environment is serve (default), fault, die, loading (never ready), or mute (never
answers a request).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.asyncio
from tokenizers import Tokenizer

import waiting
from drift_engine import wire

EOS = 2
PAGE_TOKENS = 16
CONTEXT_TOKENS = 2048

AHEAD = (wire.Ahead(512, 7), wire.Ahead(1024, 70))
"""What it says goes before a new prompt."""

ANSWER = "Hello from Drift! 你好 🙂 the lazy dog."


@dataclass
class Script:
    """How one request is answered: these tokens, then its end-of-sequence token."""

    token_ids: list[int]
    per_step: int = 1
    error_after: int | None = None
    """Gives the request up after so many tokens."""
    cached_tokens: int = 0


@dataclass
class Running:
    submit: wire.Submit
    script: Script
    sent: int = 0


Reply = Callable[[wire.Submit], Script]


def ready(vocab_size: int, context_tokens: int = CONTEXT_TOKENS) -> wire.Ready:
    return wire.Ready(
        architecture="FakeForCausalLM",
        parameters=0,
        vocab_size=vocab_size,
        max_model_len_tokens=context_tokens,
        eos_token_ids=(EOS,),
        device="cpu",
        hardware="none",
        dtype="float32",
        threads=1,
        page_tokens=PAGE_TOKENS,
        kv_pages=1024,
        kv_bytes=1 << 20,
        mode=wire.Mode.FUSED,
        load_s=0.01,
        splits=(wire.Split(1, 3), wire.Split(2, 2)),
    )


@dataclass
class Counts:
    steps: int = 0
    prompt: int = 0
    cached: int = 0
    generated: int = 0


@dataclass
class FakeCore:
    """`reply` scripts each request; while `flowing` is cleared nothing is answered."""

    address: str
    tokenizer: Tokenizer
    reply: Reply | None = None
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    submitted: list[wire.Submit] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    flushes: int = 0
    bounds: list[wire.SetBounds] = field(default_factory=list)
    targets: wire.Targets | None = None
    stopped: bool = False
    running: dict[str, Running] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.flowing.set()
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.connect(self.address)
        self._messages = asyncio.Event()

    def text(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    async def send(self, message: wire.FromCore) -> None:
        await self._socket.send(wire.encode(message))

    async def until(self, condition: Callable[[], bool], timeout_s: float = waiting.DEADLINE_S) -> None:
        """Waits until something that a message or a step changes has come true."""
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(condition)

    async def run(self) -> None:
        """Announces itself and serves until told to stop."""
        await self.send(wire.Loading("weights", 1, 2))
        await self.send(ready(self.tokenizer.get_vocab_size()))
        receiving = asyncio.create_task(self._receive())
        try:
            while True:
                await self.flowing.wait()
                if self.stopped:
                    break
                if self.running:
                    await self.step()
                    await asyncio.sleep(0)
                else:
                    self._messages.clear()
                    await self._messages.wait()
        finally:
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await receiving
            self.close()

    async def load_forever(self) -> None:
        """Never becomes ready, and ends when it is told to."""
        await self.send(wire.Loading("weights", 1, 2))
        while not isinstance(wire.decode_to_core(await self._socket.recv()), wire.Shutdown):
            pass
        self.close()

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    async def _receive(self) -> None:
        while True:
            message = wire.decode_to_core(await self._socket.recv())
            async with self.changed:
                match message:
                    case wire.Submit():
                        self._submit(message)
                    case wire.Cancel(request_id):
                        self.cancelled.add(request_id)
                        self.running.pop(request_id, None)
                    case wire.FlushCache():
                        self.flushes += 1
                    case wire.SetBounds():
                        self.bounds.append(message)
                    case wire.SetTargets(targets):
                        self.targets = targets
                    case wire.Shutdown():
                        self.stopped = True
                        self.flowing.set()
                self.changed.notify_all()
            self._messages.set()

    def _submit(self, message: wire.Submit) -> None:
        self.submitted.append(message)
        script = self.reply(message) if self.reply is not None else Script(self.text(ANSWER))
        self.running[message.request_id] = Running(message, script, len(message.drawn_token_ids))
        self.counts.prompt += len(message.token_ids)
        self.counts.cached += script.cached_tokens

    async def step(self) -> None:
        """One, whether or not it is flowing."""
        self.counts.steps += 1
        outputs = [self._advance(running) for running in list(self.running.values())]
        for output in outputs:
            self.counts.generated += len(output.token_ids)
            if output.finish is not None:
                del self.running[output.request_id]
        await self.send(wire.Step(outputs, self.stats()))
        async with self.changed:
            self.changed.notify_all()

    def _advance(self, running: Running) -> wire.Output:
        script, sampling = running.script, running.submit.sampling
        whole = [*script.token_ids, EOS]
        new = whole[running.sent : running.sent + script.per_step]
        new = new[: sampling.max_tokens - running.sent]
        first = running.sent == len(running.submit.drawn_token_ids)
        running.sent += len(new)
        finish = error = stop_token = None
        if script.error_after is not None and running.sent >= script.error_after:
            finish, error, new = wire.FinishReason.ABORTED, "the page store is damaged", []
        elif running.sent >= len(whole) or any(i in sampling.stop_token_ids for i in new):
            finish, stop_token = wire.FinishReason.STOP, new[-1] if new else None
        elif running.sent >= sampling.max_tokens:
            finish = wire.FinishReason.LENGTH
        logprobs = None
        if (top := sampling.logprobs) is not None:
            others = tuple(range(top))
            logprobs = [
                wire.TokenLogprobs(-0.5, (i, *others)[:top], (-0.5, *(-1.0 - k for k in others))[:top])
                for i in new
            ]
        return wire.Output(
            request_id=running.submit.request_id,
            token_ids=new,
            logprobs=logprobs,
            finish=finish,
            stop_token=stop_token,
            cached_tokens=script.cached_tokens if first else 0,
            error=error,
        )

    def stats(self) -> wire.Stats:
        counts = self.counts
        return wire.Stats(
            time_s=time.monotonic(),
            running=len(self.running),
            waiting=0,
            queued_tokens=0,
            kv_pages_used=8,
            kv_pages_held=4,
            kv_pages_total=1024,
            bounds_epoch=self.bounds[-1].epoch if self.bounds else 0,
            steps_total=counts.steps,
            prompt_tokens_total=counts.prompt,
            cached_tokens_total=counts.cached,
            computed_prompt_tokens_total=counts.prompt - counts.cached,
            generation_tokens_total=counts.generated,
            forward_s_total=0.001 * counts.steps,
            overhead_s_total=0.0001 * counts.steps,
            ahead=AHEAD,
        )


async def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--socket", "--options", "--model-path", "--parent-pid"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    behaviour = os.environ.get("FAKE_CORE", "serve")
    core = FakeCore(arguments.socket, Tokenizer.from_file(str(Path(arguments.model_path) / "tokenizer.json")))
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "fault":
        await core.send(wire.Fault("the file model.safetensors is truncated: 10 of 20 bytes"))
        core.close()
        raise SystemExit(1)
    if behaviour == "loading":
        await core.load_forever()
        return
    if behaviour == "mute":
        core.flowing.clear()
    await core.run()


if __name__ == "__main__":
    asyncio.run(main())

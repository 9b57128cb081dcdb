"""The api side of a node in a thread of the test's process, with a fake core, on a real port of 127.0.0.1.

Tests talk HTTP to `url` and reach the fake core through `call`, which runs in the node's own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import fake_core
import small_tokenizers
import waiting
from drift_engine import wire
from drift_engine.api import control
from drift_engine.api.admission import Admission
from drift_engine.api.app import create_app
from drift_engine.api.context import Context, Model, Text
from drift_engine.api.kv_events import KvLog
from drift_engine.api.metrics import Metrics
from drift_engine.node import serving
from drift_engine.node.health import Health
from drift_engine.node.link import CoreLink
from drift_engine.options import NodeOptions

MODEL = "small"
CONTROL_TOKEN = "control-secret"


class ApiNode:
    """Also the link's observer, as `drift_engine.node.process.Node` is."""

    def __init__(self, options: NodeOptions, template: str | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="drift-test-")
        folder = Path(self._folder.name)
        small_tokenizers.write(folder / "model", *([template] if template is not None else []))
        self._text = Text.load(folder / "model")
        self._address = f"ipc://{folder / 'core'}"
        self._options = options
        self._started = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self.context: Context
        self.core: fake_core.FakeCore
        self.failure: BaseException | None = None
        self.url = ""
        self.control_url = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="api-node")

    def __enter__(self) -> ApiNode:
        self._thread.start()
        assert self._started.wait(20), "the node did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the node did not stop"
        if self.failure is not None:
            raise self.failure
        self._folder.cleanup()

    def call(self, function: Callable[[], Any], timeout_s: float = 2 * waiting.DEADLINE_S) -> Any:
        """Runs it in the node's loop and returns its result."""

        async def run() -> Any:
            result = function()
            return await result if isinstance(result, Awaitable) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout_s)

    def until(self, condition: Callable[[], bool]) -> None:
        self.call(lambda: self.core.until(condition))

    def reply(self, reply: fake_core.Reply | None) -> None:
        def change() -> None:
            self.core.reply = reply

        self.call(change)

    def answer(self, text: str, **options: Any) -> None:
        """Every request from now on is answered with this text."""
        self.reply(lambda _: fake_core.Script(self.core.text(text), **options))

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        self.call(lambda: self.core.flowing.clear())
        try:
            yield
        finally:
            self.call(lambda: self.core.flowing.set())

    @property
    def last(self) -> wire.Submit:
        return self.core.submitted[-1]

    def loading(self, message: wire.Loading) -> None:
        self.context.health.loading(message.stage, message.done, message.total)

    def ready(self, message: wire.Ready) -> None:
        self.context.model = Model(self._text, message)
        self.context.metrics.ready = message
        self.context.health.serve(message)
        self._started.set()

    def step(self, message: wire.Step, at_s: float) -> None:
        self.context.metrics.step(message.stats)

    def costs(self, message: wire.Costs) -> None:
        self.context.metrics.costs = message

    def kv_events(self, message: wire.KvEvents) -> None:
        self.context.kv_log.add(message)

    def fault(self, message: wire.Fault) -> None:
        self.context.health.fail(message.message)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        options = self._options
        self.context = Context(
            options=options,
            name=MODEL,
            control_token=CONTROL_TOKEN,
            link=CoreLink(self._address, self),
            health=Health(),
            admission=Admission(options.max_running + options.max_waiting),
            metrics=Metrics(MODEL, options.slo),
            kv_log=KvLog(limit=64),
            started_s=time.monotonic(),
        )
        self.core = fake_core.FakeCore(self._address, small_tokenizers.byte_level())
        public, private = serving.bind("127.0.0.1", 0, "port"), serving.bind("127.0.0.1", 0, "control_port")
        self.url, self.control_url = serving.url(public), serving.url(private)
        servers = [
            serving.HttpServer(create_app(self.context), public),
            serving.HttpServer(control.create_control_app(self.context), private),
        ]
        for server in servers:
            server.start()
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self.context.link.run()),
            asyncio.create_task(self.core.run()),
        ]
        stop: asyncio.Task[Any] = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        self.context.closing.set()
        self.context.link.abort("the test is over")
        for server in servers:
            await server.stop()
        if self.context.model is not None:
            await self.context.model.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.context.link.close()
        for task in done - {stop}:
            self.failure = task.exception()


def node(template: str | None = None, **options: Any) -> ApiNode:
    return ApiNode(NodeOptions(model="file:///small", **options), template)

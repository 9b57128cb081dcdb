"""One node from start to end: ports, core, readiness, and a shutdown that reads like a list.

The ports open first and answer 503 until the core is ready. The node ends when it is told to (status 0),
when the core dies or faults (1), or when its options can't be used (2); a second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from drift_engine import logs, sources, wire
from drift_engine.api import control
from drift_engine.api.admission import Admission
from drift_engine.api.app import create_app
from drift_engine.api.context import Context, Model, Text
from drift_engine.api.kv_events import KvLog
from drift_engine.api.metrics import Metrics
from drift_engine.errors import CoreDied, EngineError, OptionsError
from drift_engine.node import serving
from drift_engine.node.child import CoreChild, CoreCommand, core_command, how_it_ended
from drift_engine.node.health import Health
from drift_engine.node.link import CoreLink
from drift_engine.options import NodeOptions
from drift_engine.tracing import starting

log = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[int, int], None]
Resolve = Callable[[str, str | None, Progress], Path]

_FAULT_S = 0.5
"""A core sends its fault just before it ends; the message may be read just after."""

SILENCE_S = 60.0
"""A core says something every second (`core.loop.HEARTBEAT_S`), on an idle machine and on a busy one. After this long
it hangs: the node ends, and whoever runs it starts another."""

_WATCHES = 4

_ABORT_S = 2.0
"""For the error of an aborted request to reach its client."""


def model_name(options: NodeOptions) -> str:
    """What clients call the model, unless the options say: the last words of where it comes from."""
    if options.served_model_name is not None:
        return options.served_model_name
    scheme, separator, rest = options.model.partition("://")
    path = rest if separator else scheme
    return path.strip("/") if scheme == "hf" else Path(path).name


class Node:
    """Also the link's observer: what the core says of itself ends up in health, metrics and the log of KV events."""

    def __init__(
        self,
        options: NodeOptions,
        *,
        command: CoreCommand = core_command,
        resolve: Resolve = sources.resolve,
        silence_s: float = SILENCE_S,
    ) -> None:
        name = model_name(options)
        metrics = Metrics(name, options.slo)
        recorder = starting.start(options.tracing, "drift-node", options.node, metrics.spans)
        self._options = options
        self._silence_s = silence_s
        self._heard = 0  # messages that show the core alive
        self._command = command
        self._resolve = resolve
        self._folder = Path(tempfile.mkdtemp(prefix="drift-"))  # mode 0700: the socket is nobody else's
        self._address = f"ipc://{self._folder / 'core'}"
        self._text: Text | None = None
        self._child: CoreChild | None = None
        self._stop = asyncio.Event()
        self._fault = asyncio.Event()
        self.context = Context(
            options=options,
            name=name,
            control_token=options.control_token or secrets.token_urlsafe(32),
            link=CoreLink(self._address, self),
            health=Health(),
            admission=Admission(options.max_running + options.max_waiting),
            metrics=metrics,
            kv_log=KvLog(),
            started_s=time.monotonic(),
            recorder=recorder,
        )

    def loading(self, message: wire.Loading) -> None:
        self.context.health.loading(message.stage, message.done, message.total)

    def ready(self, message: wire.Ready) -> None:
        self._heard += 1
        assert self._text is not None, "the core starts after the text side is loaded"
        self.context.model = Model(self._text, message)
        self.context.metrics.ready = message
        self.context.health.serve(message)
        log.info("ready", extra=wire.to_builtins(message))
        logs.say({"event": "ready", "model": self.context.name, "load_s": round(message.load_s, 2)})

    def step(self, message: wire.Step, at_s: float) -> None:
        self._heard += 1
        self.context.metrics.step(message.stats)

    def costs(self, message: wire.Costs) -> None:
        self.context.metrics.costs = message

    def kv_events(self, message: wire.KvEvents) -> None:
        self.context.kv_log.add(message)

    def fault(self, message: wire.Fault) -> None:
        self.context.health.fail(message.message)
        self._fault.set()

    async def run(self) -> int:
        """Serves until told to stop. Raises EngineError when the node can't start or its core dies."""
        try:
            public = serving.bind(self._options.host, self._options.port, "port")
            private = serving.bind(self._options.control_host, self._options.control_port, "control_port")
        except OptionsError:
            self.context.link.close()
            self._clean()
            raise
        servers = [
            serving.HttpServer(create_app(self.context), public),
            serving.HttpServer(control.create_control_app(self.context), private),
        ]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        for server in servers:
            server.start()
        logs.say(
            {
                "event": "listening",
                "url": serving.url(public),
                "control_url": serving.url(private),
                "pid": os.getpid(),
            }
        )
        core = asyncio.create_task(self._core())
        link = asyncio.create_task(self.context.link.run())
        stop = asyncio.create_task(self._drained())
        watch = asyncio.create_task(self._watch())
        tasks = (stop, core, link, watch)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            next(task for task in tasks if task.done()).result()  # raises what ended it
            return 0
        except Exception as error:
            self.context.health.fail(str(error))
            self.context.link.fail(str(error))
            await self.context.admission.idle(_ABORT_S)
            raise
        finally:
            self.context.closing.set()
            await asyncio.gather(*(server.stop() for server in servers))
            if self.context.model is not None:
                await self.context.model.close()
            core.cancel()
            await self._stop_core()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.context.link.close()
            if self.context.recorder is not None:
                await self.context.recorder.stop()
            self._clean()

    async def _core(self) -> None:
        """Loads and starts the core, and returns never: raises EngineError when it can't or when the core ends."""
        health = self.context.health

        def progress(done: int, total: int) -> None:
            health.loading("fetching the model", done, total)

        health.loading("fetching the model")
        folder = await _apart(lambda: self._resolve(self._options.model, self._options.revision, progress))
        health.loading("reading the tokenizer")
        self._text = await _apart(lambda: Text.load(folder))
        health.loading("starting the core")
        self._child = await CoreChild.start(self._command(self._address, self._options, folder))
        status = await self._child.wait()
        try:
            async with asyncio.timeout(_FAULT_S):
                await self._fault.wait()
        except TimeoutError:
            raise CoreDied(how_it_ended(status)) from None
        raise CoreDied(health.reason)

    async def _watch(self) -> None:
        """Raises CoreDied when a core that was ready has been silent for too long.

        Counts turns of this process, not seconds: one that was itself suspended must not blame its core.
        """
        silent = 0
        while silent < _WATCHES:
            heard = self._heard
            await asyncio.sleep(self._silence_s / _WATCHES)
            silent = 0 if self._heard > heard or self.context.health.ready is None else silent + 1
        raise CoreDied(f"the core process has said nothing for {self._silence_s:g} s: it hangs")

    async def _drained(self) -> None:
        """Returns when the node was told to stop and its requests have ended."""
        await self._stop.wait()
        health, admission = self.context.health, self.context.admission
        health.drain()
        timeout_s = self._options.drain_timeout_s
        log.info("draining", extra={"in_flight": admission.answering, "timeout_s": timeout_s})
        if not await admission.idle(timeout_s):
            log.warning("drain time is up", extra={"in_flight": admission.answering})
            self.context.link.abort(f"the node is shutting down; its drain time of {timeout_s:g} s is up")
            await admission.idle(_ABORT_S)

    async def _stop_core(self) -> None:
        if self._child is not None:
            # a core that loads reads no messages and has nothing to finish
            if self.context.health.ready is None:
                self._child.kill()
            self.context.link.shutdown()
            await self._child.stop()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            if self._child is not None:
                self._child.kill()
            self._clean()
            os._exit(128 + number)
        log.info("stopping", extra={"signal": number.name})
        self._stop.set()

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def serve(
    options: NodeOptions,
    *,
    command: CoreCommand = core_command,
    resolve: Resolve = sources.resolve,
    silence_s: float = SILENCE_S,
) -> int:
    """Runs a node in this process; returns the exit status."""
    _raise_file_limit()
    handler = logs.install(options.log_level)
    try:
        return asyncio.run(_serve(options, command, resolve, silence_s))
    except OptionsError:
        raise
    except EngineError as error:
        logs.complain(str(error))
        return 1
    except Exception as error:
        log.exception("the node failed")
        logs.complain(f"the node failed: {error!r}")
        return 1
    finally:
        handler.close()


async def _serve(options: NodeOptions, command: CoreCommand, resolve: Resolve, silence_s: float) -> int:
    return await Node(options, command=command, resolve=resolve, silence_s=silence_s).run()


async def _apart(function: Callable[[], T]) -> T:
    """Runs it in a thread that does not keep the process alive: a download must not hold up a shutdown."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await done


def _raise_file_limit() -> None:
    """A thousand connections and the model's files need more than the usual 1,024 descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""A worker process: serves, and does what its parent says, until the parent says so or is gone."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
from pathlib import Path

from drift_engine import logs
from drift_router.gossip import Outbox
from drift_router.keys import Keys
from drift_router.worker import Worker
from drift_router.workers import frames
from drift_router.workers.frames import Begin, Channel
from drift_router.workers.gossiping import Gossiping

log = logging.getLogger(__name__)

PULSE_S = 1.0
"""What a worker counted since its last pulse is lost with it."""

KNOWN_S = 2.0
"""For every node to be asked how it does, before connections are taken: until then other workers serve them. Twice
the deadline of a question."""

LOOK_S = 0.01


def work(fd: int) -> int:
    """Exit status 0 stopped, 1 failed."""
    return asyncio.run(_work(socket.socket(fileno=fd)))


async def _work(end: socket.socket) -> int:
    leaving = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # any number of times: whoever stops a whole group of processes tells the parent, too
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    channel = await frames.to_parent(end)
    try:
        begin = await channel.receive()
    except EOFError:
        return 0
    assert isinstance(begin, Begin)
    handler = logs.install(begin.options.log_level)
    try:
        return await _serve(begin, channel, leaving)
    finally:
        await channel.close()
        handler.close()


async def _serve(begin: Begin, channel: Channel[frames.ToWorker], leaving: asyncio.Event) -> int:
    outbox = Outbox(begin.place)
    worker = Worker(begin.options, outbox)
    gossiping = Gossiping(worker.routing, outbox, Path(begin.folder), begin.place, begin.options.workers)
    if begin.keys is not None:
        worker.take_keys(Keys(begin.keys))
    worker.take_promise(begin.promise.promise, begin.promise.number)
    if begin.leaving:
        worker.leave()
    await worker.start()
    worker.take_nodes(begin.nodes)
    obeying = asyncio.ensure_future(_obey(worker, channel, leaving))
    beside = [obeying]
    try:
        gossiping.start()
        for _ in range(round(KNOWN_S / LOOK_S)):
            if worker.knows_nodes or leaving.is_set():
                break
            await asyncio.sleep(LOOK_S)
        await worker.serve()
        channel.send(frames.Serving())
        beside.append(asyncio.ensure_future(_pulse(worker, channel)))
        await leaving.wait()
        await worker.drain()
        channel.send(frames.Pulse(worker.counters))
    except OSError as error:
        channel.send(frames.Failed(error.strerror or str(error)))
        return 1
    finally:
        if obeying.done():  # there is no parent any more that would clean up
            shutil.rmtree(begin.folder, ignore_errors=True)
        for task in beside:
            task.cancel()
        gossiping.close()
        await worker.stop()
    return 0


async def _obey(worker: Worker, channel: Channel[frames.ToWorker], leaving: asyncio.Event) -> None:
    try:
        while True:
            match await channel.receive():
                case frames.TakeNodes(nodes=nodes):
                    worker.take_nodes(nodes)
                case frames.TakeKeys(keys=keys):
                    worker.take_keys(Keys(keys))
                case frames.TakePromise(promise=promise, number=number):
                    worker.take_promise(promise, number)
                case frames.Show(number=number):
                    channel.send(frames.Shown(number, worker.seen()))
                case frames.Leave():
                    worker.leave()
                case frames.Drain():
                    leaving.set()
    except EOFError:
        leaving.set()
    except Exception:
        log.exception("what the parent says can't be followed")
        leaving.set()


async def _pulse(worker: Worker, channel: Channel[frames.ToWorker]) -> None:
    while True:
        channel.send(frames.Pulse(worker.counters))
        await asyncio.sleep(PULSE_S)

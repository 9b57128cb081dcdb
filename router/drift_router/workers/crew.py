"""The parent's side: starts the workers, tells them what there is to know, and starts again what ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import msgspec

from drift_router import counters, options, pictures
from drift_router.counters import Counters
from drift_router.errors import RouterError
from drift_router.keys import Key, Keys
from drift_router.nodes.addresses import Address
from drift_router.options import Promise, RouterOptions
from drift_router.pictures import Picture
from drift_router.workers import frames, ports
from drift_router.workers.backoff import Backoff
from drift_router.workers.frames import Channel

log = logging.getLogger(__name__)

SILENT_S = 30.0
"""Without a pulse for so long a worker is ended and replaced: it serves nobody, and the kernel goes on to give it
connections. A hundred times a pause of its garbage collector. Estimate."""

MAX_UNSENT_BYTES = 64 << 20
"""That a worker has not taken; then it is as good as silent."""

ENDS_S = 5.0
"""For a worker to be gone after its last word."""


SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a folder of ours is made in it
"""Can be written to in a container whose root can't."""


class Member:
    """One worker process, as long as it lives."""

    def __init__(
        self,
        place: int,
        process: asyncio.subprocess.Process,
        channel: Channel[frames.ToParent],
        fresh: Counters,
    ) -> None:
        self.place = place
        self.process = process
        self.counters = fresh
        self.serving = False
        self.problem = ""
        self._channel = channel
        self._asked: dict[int, asyncio.Future[Picture]] = {}
        self._number = 0
        self._ended = False

    def tell(self, message: frames.ToWorker) -> None:
        self._channel.send(message)
        if self._channel.unsent_bytes > MAX_UNSENT_BYTES:
            self.problem = "took nothing any more"
            self.kill()

    async def picture(self) -> Picture | None:
        """None: it ended before it could show one."""
        if self._ended:
            return None
        self._number += 1
        number = self._number
        asked: asyncio.Future[Picture] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        self.tell(frames.Show(number))
        try:
            return await asked
        except EOFError:
            return None
        finally:
            self._asked.pop(number, None)

    async def hear(self) -> None:
        """One word of it. Raises EOFError, TimeoutError when there is none."""
        async with asyncio.timeout(SILENT_S):
            message = await self._channel.receive()
        match message:
            case frames.Serving():
                self.serving = True
            case frames.Failed(problem=problem):
                self.problem = problem
            case frames.Pulse(counters=counted):
                self.counters = counted
            case frames.Shown(number=number, picture=picture):
                self.counters = picture.counters
                asked = self._asked.get(number)
                if asked is not None and not asked.done():
                    asked.set_result(picture)

    async def end(self) -> None:
        """Whatever it does: afterwards it is gone."""
        self._ended = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(EOFError())
        try:
            async with asyncio.timeout(ENDS_S):
                await self.process.wait()
        finally:
            self.kill()
            await self._channel.close()

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class Crew:
    """All workers of one router (`process.Workers`)."""

    def __init__(self, asked: RouterOptions) -> None:
        self._asked = asked
        self._promise = frames.TakePromise(asked.promise, 0)
        self._past = self._fresh()
        """What workers counted that are no more."""
        self._restarts = 0
        self._nodes: tuple[Address, ...] = ()
        self._keys: list[Key] | None = None
        self._members: dict[int, Member] = {}
        self._keeping: list[asyncio.Task[None]] = []
        self._begun = False
        self._leaving = False
        self._draining = asyncio.Event()
        self._port: list[socket.socket] = []
        self._folder: str | None = None

    async def start(self) -> None:
        self._port = ports.reserve(self._asked.host, self._asked.port)
        self._folder = private_folder()

    def take_nodes(self, listed: tuple[Address, ...]) -> None:
        self._nodes = listed
        self._past.keep_nodes({address.name for address in listed})
        for member in self._members.values():
            member.tell(frames.TakeNodes(listed))

    def take_keys(self, keys: Keys) -> None:
        self._keys = keys.listed
        for member in self._members.values():
            member.tell(frames.TakeKeys(keys.listed))

    def take_promise(self, promise: Promise, number: int) -> None:
        self._promise = frames.TakePromise(promise, number)
        self._past = msgspec.structs.replace(self._past, tally=self._fresh().tally)
        for member in self._members.values():
            member.tell(self._promise)

    async def serve(self) -> int:
        """Raises RouterError where a worker can't begin."""
        loop = asyncio.get_running_loop()
        serving = [asyncio.Event() for _ in range(self._asked.workers)]
        self._keeping = [loop.create_task(self._keep(place, event)) for place, event in enumerate(serving)]
        all_serve = loop.create_task(_all(serving))
        try:
            await asyncio.wait({all_serve, *self._keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            all_serve.cancel()
        for task in self._keeping:
            if task.done():
                await task  # says why
        self._begun = True
        return ports.port_of(self._port)

    async def picture(self) -> Picture:
        asked = [member.picture() for member in self._members.values() if member.serving]
        shown = [picture for picture in await asyncio.gather(*asked) if picture is not None]
        rest = Picture(self._past, [], 0, 0, draining=False, workers=0)
        # not the pictures' own: a worker that ended meanwhile is in the past already
        counted = counters.merged([self._past, *(member.counters for member in self._members.values())])
        return msgspec.structs.replace(
            pictures.merged([rest, *shown]),
            counters=counted,
            draining=self._leaving,
            worker_restarts=self._restarts,
        )

    def leave(self) -> None:
        self._leaving = True
        for member in self._members.values():
            member.tell(frames.Leave())

    async def drain(self) -> None:
        self._leaving = True
        self._draining.set()
        for member in self._members.values():
            member.tell(frames.Drain())
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def stop(self) -> None:
        """What still runs is killed."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        ports.release(self._port)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _keep(self, place: int, serving: asyncio.Event) -> None:
        """A worker in this place, until the router drains. Raises RouterError where the first one can't begin."""
        loop, backoff = asyncio.get_running_loop(), Backoff()
        while not self._draining.is_set():
            start_s = loop.time()
            try:
                how = await self._live(place, serving)
            except OSError as error:
                how = f"no process: {error.strerror or error}"
            except Exception:
                # our own mistake: without another attempt nobody would serve here any more
                log.exception("worker %d", place)
                how = "failed; the lines above say how"
            if self._draining.is_set():
                return
            if not self._begun:
                raise RouterError(f"worker {place}: {how}")
            self._restarts += 1
            pause_s = backoff.ended(loop.time() - start_s)
            log.warning("worker %d: %s; another starts in %g s", place, how, pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._draining.wait()

    async def _live(self, place: int, serving: asyncio.Event) -> str:
        """One worker's life, and how it ended. Raises OSError where it can't begin."""
        member = await self._started(place)
        self._members[place] = member
        if self._draining.is_set():
            member.tell(frames.Drain())
        try:
            while True:
                await member.hear()
                if member.serving:
                    serving.set()
        except EOFError:
            pass
        except TimeoutError:
            member.problem = f"said nothing for {SILENT_S:g} s"
            member.kill()
        except asyncio.CancelledError:
            member.kill()
            raise
        finally:
            # in one step: it is either here or there
            del self._members[place]
            self._past = self._past.plus(member.counters.ended())
            with contextlib.suppress(TimeoutError):
                await member.end()
        return member.problem or f"ended with status {member.process.returncode}"

    async def _started(self, place: int) -> Member:
        assert self._folder is not None
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            # its stdout joins our stderr: stdout is the router's own word to whoever started it; and what a terminal
            # tells all of its processes is for the parent to tell
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "drift_router", "--worker", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                process_group=0,
            )
            undo.pop_all()
        member = Member(place, process, await frames.to_worker(ours), self._fresh())
        member.tell(
            frames.Begin(
                options.for_worker(self._asked, ports.port_of(self._port)),
                place,
                str(Path(self._folder)),
                self._nodes,
                self._keys,
                self._promise,
                self._leaving,
            )
        )
        return member

    def _fresh(self) -> Counters:
        promise = self._promise.promise
        return Counters.fresh(promise.ttft_ms / 1e3, promise.tbt_ms / 1e3, self._promise.number)


def private_folder() -> str:
    """That only this user can open. Raises OSError."""
    prefix = "drift-router-"
    try:
        return tempfile.mkdtemp(prefix=prefix)
    except FileNotFoundError:
        return tempfile.mkdtemp(prefix=prefix, dir=SHARED_MEMORY)


async def _all(events: list[asyncio.Event]) -> None:
    for event in events:
        await event.wait()

"""Tries clients' grammars in a process of their own (`core.trials`), one at a time, and remembers how that went.

What passes, the core can make in bounded time and memory. A grammar that takes more ends that process and nothing
else; the next one starts with the next grammar that was not seen yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import signal
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from drift_engine import wire
from drift_engine.api import errors

log = logging.getLogger(__name__)

TRIAL_S = 0.25
"""Of CPU time, for a grammar and its first mask. A thousand properties take 70 ms, an enumeration of 5,000 values 30
(llguidance 1.9, 2.1 GHz). The core stands still for as long."""

START_S = 30.0
"""To load the tokenizer: a second for the largest vocabularies, on a busy machine more."""

ANSWER_S = 10.0
"""The process ends itself after TRIAL_S of CPU time; this is for one that gets no CPU."""

LEAVE_S = 2.0
"""For the process to end by itself."""

TURN_S = 5.0
"""For one's turn: of hostile grammars, some 10 in a row."""

REMEMBERED = 1024
"""Grammars by digest, with what was wrong with them: clients send the same few again and again, and need not wait."""

_SHOWN_CHARS = 200

_TOO_LONG = f"to prepare it takes longer than the limit of {TRIAL_S:g} s"
_TOO_LARGE = "to prepare it takes too much memory, or its references are nested too deeply"
_ENDS = {
    -signal.SIGPROF: _TOO_LONG,
    -signal.SIGSEGV: _TOO_LARGE,
    -signal.SIGBUS: _TOO_LARGE,
    -signal.SIGABRT: _TOO_LARGE,
}


def command(model_path: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> list[str]:
    return [
        sys.executable,
        *("-m", "drift_engine.core.trials"),
        *("--model-path", str(model_path)),
        *("--vocab-size", str(vocab_size)),
        *("--eos", msgspec.json.encode(list(eos_token_ids)).decode()),
        *("--trial-s", str(TRIAL_S)),
    ]


_NO_PROCESS = "schemas can't be tried now; the node's log has the details"


class Trials:
    """Lives in one event loop; whoever made it closes it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._turn = asyncio.Lock()
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._process: asyncio.subprocess.Process | None = None

    async def problem(self, grammar: wire.Grammar) -> str:
        """Why the core can't use it, in one line; empty: it can. Raises 503 where that can't be found out now."""
        line = msgspec.json.encode(grammar) + b"\n"
        digest = hashlib.sha256(line).digest()
        if digest in self._known:
            self._known.move_to_end(digest)
            return self._known[digest]
        async with self._my_turn():
            if digest not in self._known:  # found out while this one waited
                self._known[digest] = await self._try(line)
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return self._known[digest]

    async def close(self) -> None:
        if self._process is not None:
            await _end(self._process, LEAVE_S)
            self._process = None

    @contextlib.asynccontextmanager
    async def _my_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError:
            raise errors.unavailable("too many new schemas wait to be tried; try again shortly") from None
        try:
            yield
        finally:
            self._turn.release()

    async def _try(self, line: bytes) -> str:
        # Whatever interrupts this: half an exchange is not gone on with.
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            process = await self._started()
        try:
            assert process.stdin is not None
            process.stdin.write(line)
            found = await _said(process, ANSWER_S)
        except BaseException:
            await _end(process)
            raise
        if found is not None:
            self._process = process
            return found
        status = await _end(process, LEAVE_S)
        log.warning("a grammar was given up", extra={"status": status})
        return _ENDS.get(status, _TOO_LONG)

    async def _started(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, process_group=0
            )
        except OSError as error:
            log.error("no process to try grammars in: %s", error)
            raise errors.unavailable(_NO_PROCESS) from error
        try:
            if await _said(process, START_S) is not None:
                return process
        except BaseException:
            await _end(process)
            raise
        log.error(
            "the process that tries grammars did not start", extra={"status": await _end(process, LEAVE_S)}
        )
        raise errors.unavailable(_NO_PROCESS)


async def _said(process: asyncio.subprocess.Process, deadline_s: float) -> str | None:
    """None: it ended, or said nothing in time."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(deadline_s):
            line = await process.stdout.readline()
    except (TimeoutError, ConnectionError):
        return None
    return " ".join(msgspec.json.decode(line, type=str).split())[:_SHOWN_CHARS] if line else None


async def _end(process: asyncio.subprocess.Process, patience_s: float = 0.0) -> int:
    """Its status, which tells how it ended where that was by itself, within so many seconds."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(patience_s):
            await process.communicate()  # to the end of its pipe
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
    assert process.returncode is not None
    return process.returncode

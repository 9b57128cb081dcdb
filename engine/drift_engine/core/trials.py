"""`python -m drift_engine.core.trials`: makes clients' grammars as the core will, where it can harm nobody.

A schema of a hundred bytes can keep its compiler busy for hours, and one whose references are nested deeply enough
ends its process. This process is there for that: `api.trials` gives it a grammar a line, it answers with a line that
says what is wrong, and the kernel ends it where that takes too much time, stack or memory. What passes here, the core
makes with room to spare.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from pathlib import Path

import msgspec

from drift_engine import wire
from drift_engine.core.grammars import GrammarError, Grammars

STACK_BYTES = 2 << 20
"""A quarter of what the core's main thread has as a rule. A chain of some 200 references fits."""

MEMORY_BYTES = 128 << 20
"""For one grammar. The core holds one for each request that runs."""

_TRIED = wire.Grammar(wire.GrammarKind.JSON_OBJECT)
"""Makes what is made once."""

_decoder = msgspec.json.Decoder(wire.Grammar)


def problem(grammars: Grammars, grammar: wire.Grammar, trial_s: float) -> str:
    """Empty: the core can use it. The process ends where that is not found out within so many seconds of CPU time."""
    signal.setitimer(signal.ITIMER_PROF, trial_s)
    try:
        matcher = grammars.matcher(grammar)
        matcher.bitmask()
        return matcher.error
    except GrammarError as error:
        return str(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="drift_engine.core.trials")
    parser.add_argument("--model-path", required=True, type=Path)
    parser.add_argument("--vocab-size", required=True, type=int)
    parser.add_argument("--eos", required=True, help="token ids as JSON")
    parser.add_argument("--trial-s", required=True, type=float)
    arguments = parser.parse_args()
    # A terminal's Ctrl-C reaches the whole group: the api process decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    grammars = Grammars(
        arguments.model_path, arguments.vocab_size, msgspec.json.decode(arguments.eos, type=list[int])
    )
    grammars.matcher(_TRIED).bitmask()
    _limit()
    _say("")
    for line in sys.stdin.buffer:
        _say(problem(grammars, _decoder.decode(line), arguments.trial_s))


def _limit() -> None:
    """From here on; its core would be that of a whole process, and the kernel's log has the crash anyway."""
    held = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")
    )
    data_bytes = 1024 * int(held.split()[1]) + MEMORY_BYTES
    for kind, limit in (
        (resource.RLIMIT_STACK, STACK_BYTES),
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def _say(problem: str) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(problem[:_SAID_CHARS]) + b"\n")
    sys.stdout.buffer.flush()


_SAID_CHARS = 1000

if __name__ == "__main__":
    main()

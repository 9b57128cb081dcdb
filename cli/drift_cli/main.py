"""The `drift` command: finds the sub-command, imports its module alone, and turns errors into one line.

A sub-command is a module with `configure(parser)` and `run(args) -> exit code`. None is imported before it is asked
for, so `drift --help` costs nothing and a broken extra breaks only what needs it.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

COMMANDS = {
    "up": ("drift_cli.up", "serve a DriftService on this machine"),
    "status": ("drift_cli.status", "tell whether a service keeps its promise, and what is wrong"),
    "explain": ("drift_cli.explain", "tell why the last decisions were made"),
    "top": ("drift_cli.top", "show live how nodes and their router do"),
    "router": ("drift_cli.router", "put several servers behind one address"),
    "validate": ("drift_cli.validate", "say what is wrong with a DriftService file"),
    "bench": ("drift_cli.bench", "replay a trace against a server and measure the promise"),
    "calibrate": ("drift_cli.calibrate", "measure what passes take on this machine"),
    "plot": ("drift_cli.plot", "draw results and token-time logs"),
    "simulate": ("drift_cli.simulate", "say what a trace would do on hardware that is not here"),
    "plan": ("drift_cli.plan", "say how many nodes a trace needs under a promise"),
    "version": ("drift_cli.version", "print the version"),
}

FAILED = 1
MISUSED = 2
INTERRUPTED = 130
PIPE_CLOSED = 141


class Command(Protocol):
    """What a sub-command's module offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """Bad arguments are one line, not the usage of everything."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSED, f"{self.prog}: {message}\nTry `{self.prog} --help`.\n")


def build_parser() -> Parser:
    commands = "\n".join(f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items())
    parser = Parser(
        prog="drift",
        usage="drift COMMAND [OPTION...]",
        description="Serve large language models under latency promises.",
        epilog=f"commands:\n{commands}\n\n`drift COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def dispatch(arguments: Sequence[str]) -> int:
    """Runs one command line without the program's name."""
    parser = build_parser()
    # Options of the sub-command belong to its own parser: ours reads up to the command's name.
    at = next((i for i, word in enumerate(arguments) if not word.startswith("-")), len(arguments) - 1)
    args = parser.parse_args(arguments[: at + 1])
    name = "version" if args.version else args.command
    if name is None:
        parser.print_help()
        return MISUSED
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(COMMANDS)}"
        parser.error(f"unknown command {name!r}; {hint}")
    module, summary = COMMANDS[name]
    command = cast("Command", importlib.import_module(module))
    own = Parser(prog=f"drift {name}", description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False)
    command.configure(own)
    return command.run(own.parse_args(arguments[at + 1 :]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed, 2 misused, 130 interrupted."""
    # Ours are light: neither loads torch or an HTTP client.
    from drift_engine.errors import EngineError
    from drift_operator.errors import ManifestError, OperatorError
    from drift_router.errors import RouterError

    try:
        code = dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away. What is still buffered must not fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except ManifestError as error:
        print(error, file=sys.stderr)
        return FAILED
    except (OperatorError, RouterError, EngineError) as error:
        for line in str(error).splitlines():
            print(f"drift: {line}", file=sys.stderr)
        return FAILED

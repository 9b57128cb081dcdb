"""docs/reference/commands.md: the `drift` command line, from its parsers."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from typing import cast

from documentation.tables import code, page, table
from drift_cli import main

INTRODUCTION = """\
`drift COMMAND --help` tells the same in a terminal. After `make run` or `make setup` the command is
`.venv/bin/drift`.

Unless a command says otherwise it ends with 0 when it did what it was asked for, 1 when it failed, 2 when it
was asked for what can't be done, and 130 when it was interrupted.
"""


def render() -> str:
    parts = [part for name in main.COMMANDS for part in _command(name)]
    commands = [(f"[`drift {name}`](#drift-{name})", text) for name, (_, text) in main.COMMANDS.items()]
    return page(
        "The `drift` command",
        "the parsers in `drift_cli`",
        INTRODUCTION,
        table(("command", "what for"), commands),
        *parts,
    )


def _command(name: str) -> Iterator[str]:
    module, summary = main.COMMANDS[name]
    parser = main.Parser(
        prog=f"drift {name}", description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    cast("main.Command", importlib.import_module(module)).configure(parser)
    yield f"## `drift {name}`\n"
    yield f"{parser.description}\n"
    rows = [_row(action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    if rows:
        yield table(("option", "default", "meaning"), rows)
    if parser.epilog:
        yield f"{parser.epilog}\n"


def _row(action: argparse.Action) -> tuple[str, str, str]:
    words = [", ".join(action.option_strings) or str(action.metavar or action.dest)]
    if action.option_strings and action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
        words.append(_value(action))
    return code(" ".join(words)), _default(action), _meaning(action)


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar is None and action.choices is not None:
        return action.dest.upper()
    name = action.metavar or action.dest.upper()
    return f"{name} ..." if action.nargs in ("+", "*") else name


def _default(action: argparse.Action) -> str:
    said = action.default is not None and action.default is not False and action.default != []
    return code(action.default) if said and action.option_strings else ""


def _meaning(action: argparse.Action) -> str:
    text = re.sub(r"\s*\(default: %\(default\)\w\)", "", action.help or "").replace("%%", "%")
    return "; ".join(filter(None, (text, ", ".join(code(choice) for choice in action.choices or ()))))

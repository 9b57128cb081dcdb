"""docs/reference/options.md: what nodes, routers and operators can be told."""

from __future__ import annotations

import msgspec

from documentation import structs
from documentation.tables import code, page, table
from drift_engine.options import NodeOptions
from drift_operator import arguments
from drift_operator.options import OperatorOptions
from drift_router.options import RouterOptions

INTRODUCTION = """\
Each process gets its options as one JSON document (`--options`). Nobody has to write one: `drift up` and the
operator make those of nodes and routers from a [DriftService](driftservice.md), `drift router` those of a
router from its command line ([commands](commands.md)), and the Helm chart those of the operator from its
values. Unknown options, and values beyond their limits, are refused with the option's name. An empty default
is `null`, which texts call None.
"""

NODES = """\
## A node

`python -m drift_engine.node`. On a DriftService most have a field of their own (next table); the others go
into `engine.args` as `--OPTION=VALUE`, with `-` for `_`: `--max-running=32`.
"""

ROUTERS = """\
## A router

`python -m drift_router`.
"""

OPERATORS = """\
## The operator

`python -m drift_operator`.
"""


def render() -> str:
    return page(
        "Options of the processes",
        "the options' types in `drift_engine`, `drift_router` and `drift_operator`",
        INTRODUCTION,
        NODES,
        structs.options(NodeOptions),
        "### Who sets what on a DriftService\n",
        table(("option", "is set by"), _owners()),
        ROUTERS,
        structs.options(RouterOptions),
        OPERATORS,
        structs.options(OperatorOptions),
    )


def _owners() -> list[tuple[str, str]]:
    return [(code(field.name), _owner(field.name)) for field in msgspec.structs.fields(NodeOptions)]


def _owner(option: str) -> str:
    if option in arguments.SETTLED_BY_FIELD:
        return code(arguments.SETTLED_BY_FIELD[option])
    return "Drift itself" if option in arguments.SETTLED_BY_DRIFT else "`spec.engine.args`"

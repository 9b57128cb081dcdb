"""engine.args as options of a node: what a user may set there, and what has a field of its own."""

from __future__ import annotations

from typing import Any

import msgspec

from drift_engine.options import NodeOptions
from drift_operator import problems
from drift_operator.containers import Engine

SETTLED_BY_FIELD = {
    "model": "spec.model.uri",
    "revision": "spec.model.revision",
    "served_model_name": "spec.model.name",
    "device": "spec.engine.device",
    "mode": "spec.multiplexing.mode",
    "slack": "spec.multiplexing.slack",
    "slo": "spec.slo",
    "max_waiting": "spec.routing.overload.maxQueuePerNode",
    "drain_timeout_s": "spec.rollout.drainTimeout",
    "api_key_sha256": "spec.auth",
    "tracing": "spec.observability.tracing",
}
"""Options of a node that have a field of their own, so engine.args may not set them a second time."""

SETTLED_BY_DRIFT = frozenset(
    {"node", "role", "host", "port", "control_host", "control_port", "control_token", "share"}
)


def settings(engine: Engine) -> tuple[dict[str, Any], list[str]]:
    """engine.args as NodeOptions fields, and what is wrong with them: one line each, with its path."""
    found: dict[str, Any] = {}
    faults: list[str] = []
    for index, argument in enumerate(engine.args or ()):
        flag, _, text = argument.partition("=")
        name = flag[2:].replace("-", "_")
        fault = _fault(name, flag)
        if fault is None:
            try:
                read = msgspec.convert({"model": "", name: text}, NodeOptions, strict=False)
                found[name] = getattr(read, name)
            except msgspec.ValidationError as error:
                expected = str(error).partition(" - at ")[0].replace("`", "")
                fault = f"{argument}: {expected[:1].lower()}{expected[1:]}"
        if fault is not None:
            faults.append(f"spec.engine.args[{index}]: {fault}")
    return found, faults


def _fault(name: str, flag: str) -> str | None:
    if name in SETTLED_BY_FIELD:
        return f"{flag} is what {SETTLED_BY_FIELD[name]} says"
    if name in SETTLED_BY_DRIFT:
        return f"{flag} is set by Drift itself"
    free = set(NodeOptions.__struct_fields__) - set(SETTLED_BY_FIELD) - SETTLED_BY_DRIFT
    if name in free:
        return None
    known = sorted("--" + field.replace("_", "-") for field in free)
    meant = problems.nearest(flag, known)
    return f"unknown option {flag}; " + (f"did you mean {meant}?" if meant else f"known: {', '.join(known)}")

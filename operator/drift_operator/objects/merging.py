"""Laying a user's pod template over ours, by the rules of Kubernetes' strategic merge.

Objects are merged field by field and null takes a field away. Lists of things that have a name are merged thing by
thing, in our order and then in the user's; all other lists are replaced. A volume is replaced whole, because its
source is its only content.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from drift_operator import problems
from drift_operator.problems import Location

KEYS: Mapping[str, Mapping[str, Any]] = {
    "containers": {"name": None},
    "initContainers": {"name": None},
    "env": {"name": None},
    "volumes": {"name": None},
    "imagePullSecrets": {"name": None},
    "volumeMounts": {"mountPath": None},
    "volumeDevices": {"devicePath": None},
    "ports": {"containerPort": None, "protocol": "TCP"},
    "hostAliases": {"ip": None},
    "topologySpreadConstraints": {"topologyKey": None, "whenUnsatisfiable": "DoNotSchedule"},
}
"""List -> the fields that tell its items apart, with what stands for one that is left out (None: it is required)."""

REPLACED_WHOLE = frozenset({"volumes"})


class MergeError(ValueError):
    """What is laid over has the wrong form at a place."""

    def __init__(self, location: Location, phrase: str) -> None:
        super().__init__(f"{problems.path(location)}: {phrase}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any], at: Location = ()) -> dict[str, Any]:
    """A new object; `at` is where `over` stands in its document. Raises MergeError."""
    merged = copy.deepcopy(dict(base))
    for name, value in over.items():
        here = (*at, name)
        if name.startswith("$"):
            raise MergeError(here, "directives of a patch are not taken here; null takes a field away")
        if value is None:
            merged.pop(name, None)
            continue
        present = merged.get(name)
        if name in KEYS and (isinstance(present, list) or (present is None and isinstance(value, list))):
            merged[name] = _merge_lists(name, present or [], value, here)
        elif isinstance(present, dict):
            if not isinstance(value, dict):
                raise MergeError(here, f"{problems.shown(value)} is not an object")
            merged[name] = merge(present, value, here)
        elif isinstance(present, list) and not isinstance(value, list):
            raise MergeError(here, f"{problems.shown(value)} is not a list")
        else:
            merged[name] = merge({}, value, here) if isinstance(value, dict) else copy.deepcopy(value)
    return merged


def _merge_lists(name: str, base: list[Any], over: object, at: Location) -> list[Any]:
    if not isinstance(over, list):
        raise MergeError(at, f"{problems.shown(over)} is not a list")
    merged = {_key(name, item, (*at, place)): item for place, item in enumerate(base)}
    for place, item in enumerate(over):
        here = (*at, place)
        key = _key(name, item, here)
        merged[key] = merge({} if name in REPLACED_WHOLE else merged.get(key, {}), item, here)
    return list(merged.values())


def _key(name: str, item: object, at: Location) -> tuple[Any, ...]:
    if not isinstance(item, dict):
        raise MergeError(at, f"{problems.shown(item)} is not an object")
    key = []
    for field, default in KEYS[name].items():
        value = item.get(field, default)
        if value is None:
            raise MergeError((*at, field), "is required")
        if not isinstance(value, str | int):
            raise MergeError((*at, field), f"{problems.shown(value)} is neither a string nor an integer")
        key.append(value)
    return tuple(key)

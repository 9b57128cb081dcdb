"""Server-side apply, as far as the operator uses it: who owns which field, and what an apply makes of an object.

Objects are looked at as leaves: a path of keys, and the value at its end. Lists whose items have a key are looked
into, as the API server does by its schemas; all other lists are one value.
"""

from __future__ import annotations

import copy
from typing import Any

Object = dict[str, Any]
Path = tuple[Any, ...]
Owners = dict[str, set[Path]]
"""Field manager -> what it owns."""

KEYS = {
    "containers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "nodes": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "imagePullSecrets": ("name",),
    "ports": ("containerPort", "port", "protocol"),
}


def applied(live: Object, wanted: Object, owners: Owners, manager: str) -> tuple[Object, Owners]:
    """By force. What the manager owned and wants no more goes, unless another owns it, too."""
    leaves, asked = _leaves(live), _leaves(wanted)
    others = set().union(*(paths for name, paths in owners.items() if name != manager))
    for path in owners.get(manager, set()) - asked.keys() - others:
        leaves.pop(path, None)
    _lay(leaves, asked)
    left = {name: paths - _changed(live, asked) for name, paths in owners.items() if name != manager}
    return _object(leaves), {**left, manager: set(asked)}


def merged(live: Object, patch: Object, owners: Owners, manager: str) -> tuple[Object, Owners]:
    """A JSON merge patch: what it changes belongs to the manager afterwards."""
    made = _patched(live, patch)
    before, after = _leaves(live), _leaves(made)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    gone = before.keys() - after.keys()
    left = {name: paths - changed - gone for name, paths in owners.items()}
    return made, {**left, manager: left.get(manager, set()) | changed}


def differences(first: Object, second: Object) -> dict[str, tuple[Any, Any]]:
    """What each of them has where they differ."""
    one, other = _leaves(first), _leaves(second)
    return {
        str(path): (one.get(path), other.get(path))
        for path in one.keys() | other.keys()
        if one.get(path) != other.get(path)
    }


def _changed(live: Object, asked: dict[Path, Any]) -> set[Path]:
    before = _leaves(live)
    return {path for path, value in asked.items() if before.get(path, ...) != value}


def _patched(live: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _patched(made.get(key), value)
    return made


def _leaves(value: Object) -> dict[Path, Any]:
    found: dict[Path, Any] = {}

    def look(part: Any, path: Path) -> None:
        if isinstance(part, dict) and part:
            for key, inner in part.items():
                look(inner, (*path, key))
        elif isinstance(part, list) and part and _keyed(path, part):
            for item in part:
                look(item, (*path, _key(path[-1], item)))
        else:
            found[path] = part

    if value:
        look(value, ())
    return found


def _lay(leaves: dict[Path, Any], asked: dict[Path, Any]) -> None:
    for path, value in asked.items():
        for length in range(1, len(path)):  # what was empty, or one value, has parts now
            leaves.pop(path[:length], None)
        if value in ({}, []) and any(there[: len(path)] == path for there in leaves):
            continue
        leaves[path] = value


def _object(leaves: dict[Path, Any]) -> Object:
    made: Object = {}
    for path, value in leaves.items():
        place: Any = made
        for step, following in zip(path, (*path[1:], None), strict=True):
            inner: Any = copy.deepcopy(value) if following is None else [] if _is_key(following) else {}
            if not _is_key(step):
                place = place.setdefault(step, inner)
                continue
            item = next((item for item in place if _key_of(step, item)), None)
            if item is None:
                place.append(item := dict(step))
            place = item
    return made


def _keyed(path: Path, items: list[Any]) -> bool:
    return path[-1] in KEYS and all(isinstance(item, dict) for item in items)


def _key(field: str, item: Object) -> frozenset[tuple[str, Any]]:
    return frozenset((key, item[key]) for key in KEYS[field] if key in item)


def _is_key(step: Any) -> bool:
    return isinstance(step, frozenset)


def _key_of(step: frozenset[tuple[str, Any]], item: Object) -> bool:
    return all(item.get(key) == value for key, value in step)

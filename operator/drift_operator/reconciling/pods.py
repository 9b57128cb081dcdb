"""A pod as far as decisions need it, read from the API's object."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from drift_operator.objects import names

Object = dict[str, Any]

Kind = Literal["image", "crash", "setup"]

STUCK: Mapping[str, Kind] = {
    "ErrImagePull": "image",
    "ImagePullBackOff": "image",
    "InvalidImageName": "image",
    "ErrImageNeverPull": "image",
    "RegistryUnavailable": "image",
    "CrashLoopBackOff": "crash",
    "CreateContainerConfigError": "setup",
    "CreateContainerError": "setup",
    "RunContainerError": "setup",
}
"""Reasons of a waiting container that mend themselves seldom: a person should look."""

LAST_WORDS_CHARACTERS = 300
"""Of what a container said before it ended: an exception's line."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Since when a pod leaves, and until when it may finish its requests. Unix time."""

    since_s: float
    until_s: float

    @property
    def text(self) -> str:
        return f"{self.since_s:.0f}/{self.until_s:.0f}"


@dataclass(frozen=True, slots=True)
class Stuck:
    """A container that does not come up, in the kubelet's words."""

    kind: Kind
    words: str


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    uid: str
    url: str | None
    """Where it is asked and told: a node's control port, a router's admin port. None: it has no address yet."""
    created_s: float
    """Unix time."""
    ready: bool
    terminating: bool
    drain: Drain | None
    unschedulable: str | None
    """The scheduler's words, where it found no place."""
    stuck: Stuck | None
    started: bool
    """Its containers are up, whether they serve or not: weights are loaded."""
    restarts: int
    waits_since_s: float | None = None
    """Unix time. It has a host, and still no volumes or no network: its containers can't even be made."""
    host: str = ""
    ends_s: float | None = None
    """Unix time. It is told to go and is gone by then, if its host lives."""
    last_words: str = ""
    """Of the container that ended last: its exit code, and the last line that it said. Empty: none has."""
    log: str = ""
    """Where a person finds what it said. Empty: where kubectl does."""

    @property
    def leaving(self) -> bool:
        return self.terminating or self.drain is not None


def read(item: Object) -> Pod:
    meta, status = item["metadata"], item.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return Pod(
        name=str(meta["name"]),
        uid=str(meta["uid"]),
        url=_url(status.get("podIP") or None, (meta.get("labels") or {}).get(names.COMPONENT)),
        created_s=unix_s(str(meta["creationTimestamp"])),
        ready=conditions.get("Ready", {}).get("status") == "True" and status.get("phase") == "Running",
        terminating=meta.get("deletionTimestamp") is not None,
        drain=_drain(meta.get("annotations") or {}),
        unschedulable=str(scheduled.get("message") or "no place") if unschedulable else None,
        stuck=next(filter(None, map(_stuck, containers)), None),
        host=str((item.get("spec") or {}).get("nodeName") or ""),
        ends_s=unix_s(str(meta["deletionTimestamp"])) if meta.get("deletionTimestamp") else None,
        waits_since_s=_waits_since_s(conditions),
        started=bool(containers) and all(each.get("started") for each in containers),
        restarts=sum(int(each.get("restartCount", 0)) for each in containers),
        last_words=next(filter(None, map(_last_words, containers)), ""),
    )


def unix_s(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _url(ip: str | None, component: str | None) -> str | None:
    if ip is None:
        return None
    port = names.ADMIN_PORT if component == names.ROUTER else names.CONTROL_PORT
    return f"http://{f'[{ip}]' if ':' in ip else ip}:{port}"


def _drain(annotations: dict[str, str]) -> Drain | None:
    """What we wrote; what somebody else wrote there counts as a drain that is over."""
    text = annotations.get(names.DRAINING)
    if text is None:
        return None
    since, _, until = text.partition("/")
    try:
        return Drain(float(since), float(until))
    except ValueError:
        return Drain(0.0, 0.0)


def _stuck(container: Object) -> Stuck | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    kind = STUCK.get(reason := str(waiting.get("reason")))
    if kind is None:
        return None
    return Stuck(kind, f"{reason}: {waiting['message']}" if waiting.get("message") else reason)


def _waits_since_s(conditions: Mapping[str, Object]) -> float | None:
    """Kubernetes 1.29 and later tell it."""
    found = conditions.get("PodReadyToStartContainers", {})
    if found.get("status") != "False" or conditions.get("PodScheduled", {}).get("status") != "True":
        return None
    return unix_s(str(found["lastTransitionTime"]))


def _last_words(container: Object) -> str:
    states = (container.get("state") or {}, container.get("lastState") or {})
    ended = next((state["terminated"] for state in states if state.get("terminated")), None)
    if ended is None:
        return ""
    said = str(ended.get("message") or "").strip().rpartition("\n")[2]
    why = f"{ended['reason']}, " if ended.get("reason") not in (None, "Error", "Completed") else ""
    code = f"{why}exit code {ended.get('exitCode', 0)}"
    return f"{code}: {said[:LAST_WORDS_CHARACTERS]}" if said else code

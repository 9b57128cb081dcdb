"""kubectl, as a test speaks to a cluster by it: arguments and plain data in, text and plain data out."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Object = dict[str, Any]
Objects = list[Object]
Found = TypeVar("Found")

CALL_S = 60.0
DEADLINE_S = 60.0
"""For what a cluster does: a pod starts in 1 s, and in many where both cores are busy."""
LOOK_S = 0.2


class KubectlError(Exception):
    """What kubectl said."""


class Kubectl:
    """The namespace and the options, such as a user, stand for every call."""

    def __init__(self, program: Path, kubeconfig: Path, *options: str, namespace: str = "default") -> None:
        self.namespace = namespace
        self._program = program
        self._kubeconfig = kubeconfig
        self._options = options

    def within(self, namespace: str) -> Kubectl:
        return Kubectl(self._program, self._kubeconfig, *self._options, namespace=namespace)

    def acting_as(self, user: str, *groups: str) -> Kubectl:
        """With that user's rights; a ServiceAccount's name is system:serviceaccount:NAMESPACE:NAME."""
        asked = [f"--as={user}", *(f"--as-group={group}" for group in groups)]
        return Kubectl(self._program, self._kubeconfig, *self._options, *asked, namespace=self.namespace)

    def __call__(self, *arguments: str, text: str | None = None, timeout_s: float = CALL_S) -> str:
        """What it prints. Raises KubectlError, and TimeoutExpired after the deadline."""
        done = subprocess.run(
            [str(self._program), f"--namespace={self.namespace}", *self._options, *arguments],
            env={**os.environ, "KUBECONFIG": str(self._kubeconfig), "KUBECACHEDIR": str(self._cache)},
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    @property
    def _cache(self) -> Path:
        """It goes with the cluster: the next one may have other kinds under the same address."""
        return self._kubeconfig.parent / "kubectl"

    def apply(self, *objects: Object, manager: str = "test", dry_run: bool = False) -> Objects:
        """Server-side, as the server has them afterwards; `dry_run`: as it would."""
        said = self(
            *("apply", "--server-side", "--force-conflicts", f"--field-manager={manager}"),
            *("--validate=strict", *(["--dry-run=server"] if dry_run else []), "-o", "json", "-f", "-"),
            text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )
        found = json.loads(said)
        items: Objects = found["items"] if found["kind"] == "List" else [found]
        return items

    def get(self, kind: str, name: str) -> Object | None:
        said = self("get", kind, name, "--ignore-not-found", "-o", "json")
        found: Object | None = json.loads(said) if said else None
        return found

    def list(self, kind: str, selector: str = "") -> Objects:
        said = self("get", kind, f"--selector={selector}", "-o", "json")
        found: Objects = json.loads(said)["items"]
        return found

    def patch(self, kind: str, name: str, change: Object, *, subresource: str = "") -> Object:
        """A JSON merge patch: null removes, lists are replaced."""
        where = [f"--subresource={subresource}"] if subresource else []
        said = self("patch", kind, name, "--type=merge", "-p", json.dumps(change), *where, "-o", "json")
        changed: Object = json.loads(said)
        return changed

    def delete(self, kind: str, name: str, *, wait: bool = True) -> None:
        """What is not there need not be deleted."""
        self("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def may(self, verb: str, resource: str) -> bool:
        """Whether the API server allows it, for example `get` `secrets/NAME`."""
        try:
            return self("auth", "can-i", verb, resource).strip() == "yes"
        except KubectlError as error:
            if str(error) in {"", "no"}:
                return False
            raise


def define(kubectl: Kubectl, definition: Object) -> None:
    """A CustomResourceDefinition, and waits until its kind is served; `kubectl wait` fails where a new one has no
    conditions yet.
    """
    kubectl.apply(definition)
    name = definition["metadata"]["name"]

    def established() -> bool:
        found = kubectl.get("crd", name) or {}
        conditions = found.get("status", {}).get("conditions") or ()
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    until(established, f"crd {name} to be served")


def until(condition: Callable[[], Found], what: str, deadline_s: float = DEADLINE_S) -> Found:
    """What the condition gives once that is true. Raises TimeoutError with the last error that it raised."""
    end_s = time.monotonic() + deadline_s
    refused: KubectlError | None = None
    while True:
        try:
            if found := condition():
                return found
        except KubectlError as error:  # an API server that is busy answers the next time
            refused = error
        if time.monotonic() > end_s:
            raise TimeoutError(f"waited {deadline_s:g} s for {what}") from refused
        time.sleep(LOOK_S)

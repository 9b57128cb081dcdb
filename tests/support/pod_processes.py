"""What a pod's main container is told, and the process that stands in for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

KILLED = 137
"""Exit code of what SIGKILL ended."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")

Values = Callable[[str, str], Awaitable[dict[str, str]]]
"""Of `secrets` or `configmaps`, and a name in the pod's namespace. Raises ConfigError."""


@dataclass(frozen=True)
class Start:
    """A container that starts: all that it can see of itself."""

    namespace: str
    name: str
    """Of the pod."""
    labels: dict[str, str]
    address: str
    image: str
    args: tuple[str, ...]
    variables: dict[str, str]
    restarts: int

    @property
    def options(self) -> str:
        """The JSON document behind --options. Raises ValueError without one."""
        return self.args[self.args.index("--options") + 1]


class ConfigError(Exception):
    """A container can't be made: what it refers to is not there."""


class MountError(ConfigError):
    """A volume can't be mounted. The kubelet says why in an Event alone."""


async def start(pod: dict[str, Any], address: str, restarts: int, values: Values) -> Start:
    """Resolved as the kubelet does it. Raises ConfigError; MountError comes first."""
    metadata, container = pod["metadata"], pod["spec"]["containers"][0]
    own = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"]["nodeName"],
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.podIP": address,
        "status.hostIP": address,
    }
    for volume in pod["spec"].get("volumes", ()):
        for kind, key, plural in (("secret", "secretName", "secrets"), ("configMap", "name", "configmaps")):
            if (mounted := volume.get(kind)) and not mounted.get("optional"):
                try:
                    await values(plural, mounted[key])
                except ConfigError as error:
                    raise MountError(str(error)) from error
    variables: dict[str, str] = {}
    for entry in container.get("env", ()):
        source = entry.get("valueFrom", {})
        secret, config_map = source.get("secretKeyRef"), source.get("configMapKeyRef")
        if reference := secret or config_map:
            found = await values("secrets" if secret else "configmaps", reference["name"])
            if reference["key"] in found:
                variables[entry["name"]] = found[reference["key"]]
            elif not reference.get("optional"):
                raise ConfigError(f"couldn't find key {reference['key']} in {reference['name']}")
        elif field := source.get("fieldRef"):
            variables[entry["name"]] = own.get(field["fieldPath"], "")
        else:
            variables[entry["name"]] = _expanded(entry.get("value", ""), variables)
    return Start(
        namespace=metadata["namespace"],
        name=metadata["name"],
        labels=metadata.get("labels", {}),
        address=address,
        image=container["image"],
        args=tuple(
            _expanded(word, variables) for word in (*container.get("command", ()), *container.get("args", ()))
        ),
        variables=variables,
        restarts=restarts,
    )


def _expanded(text: str, variables: dict[str, str]) -> str:
    """$(NAME) for what is known; $$ is one $."""

    def found(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else variables.get(name, match[0])

    return _REFERENCE.sub(found, text)


class PodProcess:
    """Ready as soon as it runs, and gone when it is told to stop. What does more inherits from it."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.ready = False
        self.held = False
        """Not ready, whatever it says itself."""
        self.changed = asyncio.Event()
        """Set when `serving` may have changed."""
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def serving(self) -> bool:
        return self.ready and not self.held

    async def run(self) -> None:
        """Starts; what goes on for longer are tasks of its own, which `close` ends."""
        self.be(ready=True)

    def terminate(self) -> None:
        """SIGTERM."""
        self.exit(0)

    async def close(self) -> None:
        """Nothing of it is left afterwards, whatever it was doing."""

    def be(self, *, ready: bool) -> None:
        self.ready = ready
        self.changed.set()

    def hold(self, held: bool) -> None:
        self.held = held
        self.changed.set()

    def exit(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)


Runtime = Callable[[Start], PodProcess]
"""What is started for a container. Raises ValueError for what would end at once with an error."""

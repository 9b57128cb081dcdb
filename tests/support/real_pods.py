"""The processes of Drift's pods, for the stand-in kubelet: nodes on simulated devices and routers, with real sockets.

    pods = RealPods(cluster.kubectl, kubeconfig, folder)
    with stand_in_kubelet.running(kubeconfig, machines, pods) as kubelet: ...

What an image and a network namespace would do is done here: a process listens on its pod's address alone, and a
router sees its service account in the usual place. Probes are asked more often than a kubelet does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec
import yaml

from drift_engine import options as node_options
from drift_engine.options import NodeOptions
from drift_operator.objects import names
from drift_router import options as router_options
from kubectl import Kubectl
from pod_processes import KILLED, PodProcess, Start

PROBE_S = 0.2
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IN_POD = f"""
set -e
mount -t tmpfs none /run
mkdir -p {ACCOUNT.parent}
ln -s "$ACCOUNT" {ACCOUNT}
exec "$@"
"""
"""With a /run that nobody else sees."""


class RealPods:
    """A `pod_processes.Runtime`. `folder` takes logs and service accounts."""

    def __init__(self, kubectl: Kubectl, kubeconfig: Path, folder: Path) -> None:
        self.changed: Callable[[NodeOptions, int], NodeOptions] = lambda options, place: options
        """What a node's machine is like: its options, and how many nodes were started before it."""
        self.folder = folder
        self._kubectl = kubectl
        (cluster,) = yaml.safe_load(kubeconfig.read_text())["clusters"]
        self._server, self._authority = (
            cluster["cluster"][key] for key in ("server", "certificate-authority")
        )
        self._nodes = 0

    def __call__(self, start: Start) -> PodProcess:
        match start.labels.get(names.COMPONENT):
            case names.NODE:
                asked = msgspec.structs.replace(
                    node_options.parse(start.options),
                    host=start.address,
                    control_host=start.address,
                    latency_file=None,
                )
                asked = self.changed(asked, self._nodes)
                self._nodes += 1
                command = ("drift_engine.node", "--options", node_options.dump(asked))
                return _RealPod(start, self, command, names.API_PORT)
            case names.ROUTER:
                told = msgspec.structs.replace(
                    router_options.parse(start.options), host=start.address, admin_host=start.address
                )
                command = ("drift_router", "--options", router_options.dump(told))
                return _RealPod(start, self, command, names.ADMIN_PORT)
        return PodProcess(start)

    def account(self, start: Start) -> Path:
        """A folder like that which a router's service account is mounted in. Takes as long as a call of kubectl."""
        made = self.folder / f"{start.name}-account"
        made.mkdir(exist_ok=True)
        account = names.account(start.labels[names.INSTANCE], names.ROUTER)
        (made / "token").write_text(self._kubectl.within(start.namespace)("create", "token", account))
        (made / "ca.crt").write_bytes(Path(self._authority).read_bytes())
        return made

    @property
    def environment(self) -> dict[str, str]:
        """By which a pod finds the API server."""
        host, _, port = self._server.removeprefix("https://").rpartition(":")
        return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}


class _RealPod(PodProcess):
    def __init__(self, start: Start, pods: RealPods, command: tuple[str, ...], port: int) -> None:
        super().__init__(start)
        self._pods = pods
        self._command = (sys.executable, "-m", *command)
        self._probed = f"http://{start.address}:{port}/readyz"
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        command, variables = self._command, {**os.environ, **self._pods.environment}
        variables[node_options.TOKEN_VARIABLE] = self.start.variables[node_options.TOKEN_VARIABLE]
        if self.start.labels[names.COMPONENT] == names.ROUTER:
            variables["ACCOUNT"] = str(await asyncio.to_thread(self._pods.account, self.start))
            command = ("unshare", "--mount", "sh", "-c", IN_POD, "sh", *command)
        with (self._pods.folder / f"{self.start.name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env=variables, start_new_session=True
            )
        self._tasks = [asyncio.create_task(self._watch(self._process)), asyncio.create_task(self._probe())]

    def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own
            await self._process.wait()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        self.exit(code if code >= 0 else KILLED)

    async def _probe(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                try:
                    async with session.get(self._probed) as answer:
                        ready = answer.status == 200
                except (aiohttp.ClientError, TimeoutError):
                    ready = False
                if ready != self.ready:
                    self.be(ready=ready)
                await asyncio.sleep(PROBE_S)

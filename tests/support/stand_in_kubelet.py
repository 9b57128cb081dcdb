"""The kubelet of Nodes that do not exist: pods of a real control plane, with a few sockets in place of containers.

    with stand_in_kubelet.running(kubeconfig, [Machine("gpu-0", gpus=8)]) as kubelet:
        ...

Pods that the scheduler binds to its machines get addresses of this machine, start after `start_s`, are ready when
their process says so, restart when it ends, and leave as real ones do: SIGTERM, the grace period, SIGKILL, gone.
What runs in a pod says the `Runtime`; `crash`, `hold_unready` and `refuse_images` go wrong on order.
Only the first container of a pod is a process; the others are said to run.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import fnmatch
import functools
import itertools
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

import kube_api
import pod_processes
from background_loop import BackgroundLoop
from kube_api import ApiError, KubeApi, Object
from pod_addresses import Addresses
from pod_processes import KILLED, ConfigError, PodProcess, Runtime

LEASE_S = 40
RENEW_S = 10.0
AGAIN_S = 0.5
"""Between attempts at what the API server refused, or at starting what can't be configured."""

Key = tuple[str, str]
"""Namespace and name of a pod."""


@dataclass(frozen=True)
class Machine:
    """A Node, and what the scheduler may put on it."""

    name: str
    pods: int = 500
    cpu: str = "1000"
    memory: str = "4Ti"
    gpus: int = 0


@dataclass
class _Pod:
    object: Object
    address: str
    deleting: asyncio.Event = field(default_factory=asyncio.Event)
    process: PodProcess | None = None
    restarts: int = 0
    start_time: str = field(default_factory=lambda: _now())
    ready_since: tuple[bool, str] = (False, "")
    last_state: Object = field(default_factory=dict)
    said: Object = field(default_factory=dict)
    """The status that the API server was told last."""
    task: asyncio.Task[None] | None = None

    @property
    def path(self) -> str:
        metadata = self.object["metadata"]
        return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    @property
    def key(self) -> Key:
        return self.object["metadata"]["namespace"], self.object["metadata"]["name"]

    @property
    def image(self) -> str:
        return str(self.object["spec"]["containers"][0]["image"])


class StandInKubelet:
    """All methods but `serve` are for other threads."""

    def __init__(
        self,
        machines: Sequence[Machine],
        runtime: Runtime,
        *,
        background: BackgroundLoop,
        addresses: Addresses,
        start_s: float = 0.0,
        hook_s: float = 0.5,
        crash_backoff_s: float = 1.0,
    ) -> None:
        self.start_s = start_s
        """From a pod's binding to its container's start."""
        self.hook_s = hook_s
        """What a preStop hook may sleep at most, so that tests need not wait for what they don't look at."""
        self.crash_backoff_s = crash_backoff_s
        """Before the first restart; doubled for each further one, up to 32 times as long."""
        self.host = addresses.host
        self._machines = machines
        self._runtime = runtime
        self._background = background
        self._addresses = addresses
        self._pods: dict[str, _Pod] = {}
        self._refused: set[str] = set()
        self._broken: dict[str, str] = {}
        """Glob of images -> what their processes say before they end."""
        self._lost: set[str] = set()
        self._api: KubeApi | None = None
        self._faults: list[BaseException] = []

    # what tests order and ask

    @property
    def pods(self) -> list[Key]:
        return self._background.call(lambda: sorted(pod.key for pod in self._pods.values()))

    def process(self, namespace: str, name: str) -> PodProcess:
        """Raises KeyError where none runs in that pod."""
        return self._background.call(lambda: self._running(namespace, name))

    def crash(self, namespace: str, name: str, code: int = 1) -> None:
        self._background.call(lambda: self._running(namespace, name).exit(code))

    def hold_unready(self, namespace: str, name: str, held: bool = True) -> None:
        """Whatever its process says."""
        self._background.call(lambda: self._running(namespace, name).hold(held))

    def refuse_images(self, pattern: str) -> None:
        """Pods that start from now on can't pull what the glob matches."""
        self._background.call(lambda: self._refused.add(pattern))

    def break_images(self, pattern: str, last_words: str) -> None:
        """Containers of images that the glob matches end as soon as they start, with these words."""
        self._background.call(lambda: self._broken.update({pattern: last_words}))

    def serve_images(self) -> None:
        """All of them again."""
        self._background.call(self._refused.clear)

    def lose(self, machine: str) -> None:
        """It stops in the middle of everything, and nobody tells the API server."""

        def losing() -> None:
            self._lost.add(machine)
            for pod in self._pods.values():
                if pod.object["spec"]["nodeName"] == machine and pod.task is not None:
                    pod.task.cancel()

        self._background.call(losing)

    def bring_back(self, machine: str) -> None:
        """Empty, as one that was set up anew."""
        assert self._api is not None
        (found,) = (one for one in self._machines if one.name == machine)
        self._background.run(self._register(self._api, found))
        self._background.call(lambda: self._lost.discard(machine))

    def _running(self, namespace: str, name: str) -> PodProcess:
        for pod in self._pods.values():
            if pod.key == (namespace, name) and pod.process is not None:
                return pod.process
        raise KeyError(f"{namespace}/{name}")

    # machines

    async def serve(self, kubeconfig: Path, registered: asyncio.Event) -> None:
        """Until cancelled; then all pods and machines of it are gone."""
        async with kube_api.connect(kubeconfig) as api:
            self._api = api
            try:
                for machine in self._machines:
                    await self._register(api, machine)
                registered.set()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._renew(api))
                    for machine in self._machines:
                        tasks.create_task(self._follow(api, machine))
            finally:
                await self._leave(api)

    async def _register(self, api: KubeApi, machine: Machine) -> None:
        await self._leave_machine(api, machine)  # of a run that was killed
        amounts = {
            "cpu": machine.cpu,
            "memory": machine.memory,
            "pods": str(machine.pods),
            "ephemeral-storage": "10Ti",
            **({"nvidia.com/gpu": str(machine.gpus)} if machine.gpus else {}),
        }
        good = {"MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": machine.name,
                "labels": {
                    "kubernetes.io/hostname": machine.name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                },
            },
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "addresses": [{"type": "InternalIP", "address": self.host}],
                "conditions": [
                    {
                        "type": kind,
                        "status": status,
                        "reason": "StandIn",
                        "message": "",
                        "lastHeartbeatTime": _now(),
                        "lastTransitionTime": _now(),
                    }
                    for kind, status in good.items()
                ],
            },
        }
        await api.create("/api/v1/nodes", node)
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": machine.name, "namespace": "kube-node-lease"},
            "spec": {
                "holderIdentity": machine.name,
                "leaseDurationSeconds": LEASE_S,
                "renewTime": _now(micro=True),
            },
        }
        await api.apply(_lease(machine), lease, "stand-in-kubelet")

    async def _renew(self, api: KubeApi) -> None:
        """Or the controller-manager would take the machines for dead and evict their pods."""
        while True:
            await asyncio.sleep(RENEW_S)
            for machine in self._machines:
                if machine.name in self._lost:
                    continue
                with contextlib.suppress(ApiError, aiohttp.ClientError, TimeoutError):
                    await api.merge(_lease(machine), {"spec": {"renewTime": _now(micro=True)}})

    async def _follow(self, api: KubeApi, machine: Machine) -> None:
        async for kind, found in api.follow("/api/v1/pods", fieldSelector=f"spec.nodeName={machine.name}"):
            if machine.name in self._lost:
                continue
            uid = found["metadata"]["uid"]
            pod = self._pods.get(uid)
            if kind == "DELETED":
                if pod is not None and pod.task is not None:
                    pod.task.cancel()
                continue
            if pod is None:
                if found["status"].get("phase") in ("Succeeded", "Failed"):
                    continue
                pod = self._pods[uid] = _Pod(found, self._addresses.take())
                pod.task = asyncio.create_task(self._live(api, pod), name="/".join(pod.key))
                pod.task.add_done_callback(functools.partial(self._ended, pod))
            pod.object = found
            if "deletionTimestamp" in found["metadata"]:
                pod.deleting.set()

    def check(self) -> None:
        """Raises what went wrong in the stand-in itself."""
        if self._faults:
            raise BaseExceptionGroup("pods of the stand-in kubelet", self._faults)

    async def _leave(self, api: KubeApi) -> None:
        tasks = [pod.task for pod in self._pods.values() if pod.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for machine in self._machines:
            await self._leave_machine(api, machine)

    async def _leave_machine(self, api: KubeApi, machine: Machine) -> None:
        pods = await api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={machine.name}")
        for item in pods["items"]:
            metadata = item["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
            await api.delete(path, gracePeriodSeconds=0)
        await api.delete(f"/api/v1/nodes/{machine.name}")
        await api.delete(_lease(machine))

    # the life of one pod

    async def _live(self, api: KubeApi, pod: _Pod) -> None:
        if await self._waits_for_deletion(pod, self.start_s):
            await self._gone(api, pod)
            return
        while await self._pulled(api, pod) and (code := await self._run(api, pod)) is not None:
            said = next((text for glob, text in self._broken.items() if fnmatch.fnmatch(pod.image, glob)), "")
            pod.last_state = {"terminated": _terminated(code) | ({"message": said} if said else {})}
            if pod.object["spec"]["restartPolicy"] == "Never":
                phase = "Failed" if code else "Succeeded"
                await self._say(api, pod, phase, {"terminated": _terminated(code)})
                await pod.deleting.wait()
                break
            pause_s = self.crash_backoff_s * 2 ** min(pod.restarts, 5)
            message = f"back-off {pause_s:g}s restarting failed container"
            await self._wait_state(api, pod, "CrashLoopBackOff", message, "Running")
            pod.restarts += 1
            if await self._waits_for_deletion(pod, pause_s):
                break
        await self._gone(api, pod)

    def _ended(self, pod: _Pod, task: asyncio.Task[None]) -> None:
        self._addresses.give_back(pod.address)
        del self._pods[pod.uid]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._faults.append(error)

    async def _pulled(self, api: KubeApi, pod: _Pod) -> bool:
        """False: it is deleted before there was an image."""
        while any(fnmatch.fnmatch(pod.image, pattern) for pattern in self._refused):
            message = f'Back-off pulling image "{pod.image}"'
            await self._wait_state(api, pod, "ImagePullBackOff", message, "Pending")
            if await self._waits_for_deletion(pod, AGAIN_S):
                return False
        return True

    async def _run(self, api: KubeApi, pod: _Pod) -> int | None:
        """The exit code of a process that ended; None: the pod was deleted, and nothing runs any more."""
        while True:
            try:
                start = await pod_processes.start(pod.object, pod.address, pod.restarts, _values(api, pod))
                break
            except pod_processes.MountError:
                state = {"waiting": {"reason": "ContainerCreating"}}
                await self._say(api, pod, "Pending", state, assembled=False)
                if await self._waits_for_deletion(pod, AGAIN_S):
                    return None
            except ConfigError as error:
                await self._wait_state(api, pod, "CreateContainerConfigError", str(error), "Pending")
                if await self._waits_for_deletion(pod, AGAIN_S):
                    return None
        if any(fnmatch.fnmatch(pod.image, pattern) for pattern in self._broken):
            return 1
        try:
            process = pod.process = self._runtime(start)
        except ValueError:  # options that the real one would refuse
            return 2
        try:
            await process.run()
            deletion = asyncio.create_task(pod.deleting.wait())
            try:
                while not process.exited.done() and not pod.deleting.is_set():
                    await self._say_running(api, pod)
                    await _first(process.changed.wait(), process.exited, deletion)
                if not pod.deleting.is_set():
                    return process.exited.result()
            finally:
                deletion.cancel()
            await self._stop(api, pod, process)
            return None
        finally:
            process.exit(KILLED)
            await process.close()
            pod.process = None

    async def _stop(self, api: KubeApi, pod: _Pod, process: PodProcess) -> None:
        grace_s = pod.object["metadata"].get("deletionGracePeriodSeconds", 30)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                hook = pod.object["spec"]["containers"][0].get("lifecycle", {}).get("preStop", {})
                sleep_s = min(self.hook_s, hook.get("sleep", {}).get("seconds", 0))
                await _first(asyncio.sleep(sleep_s), process.exited)
                process.terminate()
                while not process.exited.done():
                    await self._say_running(api, pod)
                    await _first(process.changed.wait(), process.exited)
        if process.exited.done():
            process.exited.result()

    async def _gone(self, api: KubeApi, pod: _Pod) -> None:
        await _until_taken(lambda: api.delete(pod.path, gracePeriodSeconds=0, preconditions={"uid": pod.uid}))

    async def _waits_for_deletion(self, pod: _Pod, for_s: float) -> bool:
        """Whether it came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await pod.deleting.wait()
        return pod.deleting.is_set()

    # status

    async def _say_running(self, api: KubeApi, pod: _Pod) -> None:
        assert pod.process is not None
        pod.process.changed.clear()
        state = {"running": {"startedAt": pod.start_time}}
        await self._say(api, pod, "Running", state, ready=pod.process.serving)

    async def _wait_state(self, api: KubeApi, pod: _Pod, reason: str, message: str, phase: str) -> None:
        await self._say(api, pod, phase, {"waiting": {"reason": reason, "message": message}})

    async def _say(
        self,
        api: KubeApi,
        pod: _Pod,
        phase: str,
        state: Object,
        *,
        ready: bool = False,
        assembled: bool = True,
    ) -> None:
        """`assembled`: it has its volumes and its network."""
        if pod.ready_since[0] != ready or not pod.ready_since[1]:
            pod.ready_since = ready, _now()
        running = "running" in state
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": f"stand-in://{container['image']}",
                "ready": ready if index == 0 else running,
                "started": running,
                "restartCount": pod.restarts if index == 0 else 0,
                "state": state,
                "lastState": pod.last_state if index == 0 else {},
            }
            for index, container in enumerate(pod.object["spec"]["containers"])
        ]
        initial = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": f"stand-in://{container['image']}",
                "ready": True,
                "started": False,
                "restartCount": 0,
                "state": {"terminated": _terminated(0)},
            }
            for container in pod.object["spec"].get("initContainers", ())
        ]
        told = {True: "True", False: "False"}
        because = {} if ready else {"reason": "ContainersNotReady"}
        conditions = [
            {"type": "Initialized", "status": "True", "lastTransitionTime": pod.start_time},
            {
                "type": "PodReadyToStartContainers",
                "status": told[assembled],
                "lastTransitionTime": pod.start_time,
            },
            *(
                {"type": kind, "status": told[ready], "lastTransitionTime": pod.ready_since[1], **because}
                for kind in ("ContainersReady", "Ready")
            ),
        ]
        status = {
            "phase": phase,
            "hostIP": self.host,
            "hostIPs": [{"ip": self.host}],
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "startTime": pod.start_time,
            "conditions": conditions,
            "containerStatuses": containers,
            "initContainerStatuses": initial,
        }
        if status == pod.said:
            return
        pod.said = status
        body = {"metadata": {"uid": pod.uid}, "status": status}
        await _until_taken(lambda: api.merge(f"{pod.path}/status", body, kube_api.STRATEGIC))


@contextlib.contextmanager
def running(
    kubeconfig: Path,
    machines: Sequence[Machine],
    runtime: Runtime = PodProcess,
    **asked: Any,
) -> Iterator[StandInKubelet]:
    """`asked`: further arguments of StandInKubelet."""
    with BackgroundLoop("stand-in kubelet") as background, Addresses() as addresses:
        kubelet = StandInKubelet(machines, runtime, background=background, addresses=addresses, **asked)
        registered = asyncio.Event()

        async def start() -> asyncio.Task[None]:
            serving = asyncio.create_task(kubelet.serve(kubeconfig, registered))
            await _first(registered.wait(), serving)
            if serving.done():
                serving.result()
            return serving

        async def stop() -> None:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            kubelet.check()

        serving = background.run(start())
        try:
            yield kubelet
        finally:
            background.run(stop())


def _values(api: KubeApi, pod: _Pod) -> pod_processes.Values:
    async def read(plural: str, name: str) -> dict[str, str]:
        try:
            found = await api.get(f"/api/v1/namespaces/{pod.key[0]}/{plural}/{name}")
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            raise ConfigError(str(error)) from error
        values: dict[str, str] = found.get("data") or {}
        if plural != "secrets":
            return values
        return {key: base64.b64decode(value).decode() for key, value in values.items()}

    return read


async def _first(*work: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
    """Until one of them is done; coroutines that are not are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one, task in zip(work, tasks, strict=True):
            if one is not task:
                task.cancel()


async def _until_taken(write: Any) -> None:
    """Again and again while the API server can't; a pod that is gone or another one needs nothing."""
    for attempt in itertools.count():
        try:
            await write()
            return
        except ApiError as error:
            if error.status in (404, 409):
                return
            if error.status < 500 and error.status != 429:
                raise
        except (aiohttp.ClientError, TimeoutError):
            pass
        await asyncio.sleep(AGAIN_S * min(attempt + 1, 4))


def _lease(machine: Machine) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{machine.name}"


def _terminated(code: int) -> Object:
    return {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "finishedAt": _now()}


def _now(*, micro: bool = False) -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")

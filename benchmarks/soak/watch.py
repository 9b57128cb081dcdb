"""What is so and what the status says, side by side, while a soak goes on; and what memory its processes hold.

Once a second every pod is asked itself whether it serves, and the API server what the DriftService's status claims. A
line of the log is written when either changes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from benchmarks.soak import bed, processes
from benchmarks.soak.bed import Bed, Pod
from benchmarks.soak.looks import Claim, Look, Memory, Pressure

import kube_api
from kube_api import KubeApi

LOOK_S = 1.0
PROBE_S = 2.0
SILENCES = 3
"""A pod that has not answered within PROBE_S so many times on end does not serve, as the kubelet has it; one that
refuses does not serve at once."""
API_S = 3.0
MEMORY_S = 10.0

READY_PORT = {"node": 8000, "router": 8081, "operator": 8080}
"""Where each answers /readyz."""

PATHS = {
    component: f"/api/v1/namespaces/{'drift-system' if component == 'operator' else bed.NAMESPACE}/pods"
    for component in READY_PORT
}
STATUS = f"/apis/drift.ai/v1alpha1/namespaces/{bed.NAMESPACE}/driftservices/{bed.SERVICE}"

_AVAILABLE = re.compile(r"(\d+) of \d+ routers? (?:is|are) available")


class Watch:
    """Use its `run` as a task. `looks` and `memory` hear of what is new, with times of `clock`."""

    def __init__(
        self,
        made: Bed,
        clock: Callable[[], float],
        looks: Callable[[Look], None],
        memory: Callable[[Memory | Pressure], None],
    ) -> None:
        self._bed = made
        self._clock = clock
        self._tell = looks
        self._tell_memory = memory
        self._pods: dict[str, list[Pod]] = {component: [] for component in READY_PORT}
        self._silences: dict[str, int] = {}
        """By container: on end, since it served; SILENCES where it does not."""
        self.last: Look | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        async with (
            kube_api.connect(self._bed.cluster.kubeconfig) as api,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0)) as session,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._looking(api, session))
            tasks.create_task(self._weighing())

    async def _looking(self, api: KubeApi, session: aiohttp.ClientSession) -> None:
        while True:
            began_s = self._clock()
            claim = await self._claim(api)
            serving = await self._serving(session)
            look = Look(began_s, serving["node"], serving["router"], serving["operator"], claim)
            if self.last is None or not look.same(self.last):
                self._tell(look)
            self.last = look
            await asyncio.sleep(max(0.0, LOOK_S - (self._clock() - began_s)))

    async def _claim(self, api: KubeApi) -> Claim | None:
        """None: nobody can read it now."""
        try:
            async with asyncio.timeout(API_S):
                found, *listed = await asyncio.gather(
                    api.get(STATUS),
                    *(
                        api.get(path, labelSelector=bed.selector(component))
                        for component, path in PATHS.items()
                    ),
                )
        except (kube_api.ApiError, aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            return None
        for component, items in zip(PATHS, listed, strict=True):
            self._pods[component] = list(bed.living(items["items"], component))
        return claimed(found.get("status") or {})

    async def _serving(self, session: aiohttp.ClientSession) -> dict[str, int]:
        async def serves(pod: Pod) -> bool:
            url = f"http://{pod.address}:{READY_PORT[pod.component]}/readyz"
            try:
                async with session.get(url, timeout=aiohttp.ClientTimeout(total=PROBE_S)) as answer:
                    yes = answer.status == 200
            except TimeoutError:
                silences = self._silences.get(pod.container, SILENCES) + 1
                self._silences[pod.container] = silences
                return silences < SILENCES
            except (aiohttp.ClientError, OSError):
                yes = False
            self._silences[pod.container] = 0 if yes else SILENCES
            return yes

        pods = [pod for found in self._pods.values() for pod in found]
        answers = await asyncio.gather(*map(serves, pods))
        return {
            component: sum(yes for pod, yes in zip(pods, answers, strict=True) if pod.component == component)
            for component in READY_PORT
        }

    async def _weighing(self) -> None:
        while True:
            for pod in [pod for found in self._pods.values() for pod in found]:
                held = sum(processes.rss_bytes(pid) for pid in self._bed.pids(pod))
                if held:
                    self._tell_memory(Memory(self._clock(), pod.component, pod.container[:12], held))
            if (pressure := processes.cpu_pressure()) is not None:
                self._tell_memory(Pressure(self._clock(), round(pressure, 3)))
            await asyncio.sleep(MEMORY_S)


def claimed(status: Mapping[str, Any]) -> Claim:
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    routers = _AVAILABLE.search(conditions.get("RouterReady", {}).get("message", ""))
    return Claim(
        nodes=int(status.get("readyReplicas") or 0),
        routers=int(routers[1]) if routers else 0,
        conditions=tuple(
            f"{kind}={each['status']}:{each['reason']}" for kind, each in sorted(conditions.items())
        ),
    )

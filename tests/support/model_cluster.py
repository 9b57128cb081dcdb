"""A cluster in memory and in virtual time, with an operator in it that may end at any moment and is started again.

    virtual_time.run(scenario())    # async def scenario(): async with model_cluster.running(faults) as cluster: ...

The operator is the real one from its watches to its passes; the API server, the machines and the network are models.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any, cast

from drift_operator.cluster import kinds
from drift_operator.cluster.api import Api, ApiError
from drift_operator.cluster.caches import Cache
from drift_operator.cluster.place import Cluster, ClusterPlace
from drift_operator.cluster.recording import Recorder
from drift_operator.cluster.watching import Watching
from drift_operator.doors.metrics import Metrics
from drift_operator.doors.pulse import Pulse
from drift_operator.keepers import Keepers
from drift_operator.keeping import Tools
from drift_operator.nodes.channel import Channel
from drift_operator.objects import names
from drift_operator.objects.kinds import AUTOSCALER
from drift_operator.places import Service
from faulty_api import Fault, FaultyApi, Way
from kept_figures import KeptFigures
from model_api import BEGUN, ModelApi, Object
from model_machines import Machines, ModelChannel
from service_objects import OPTIONS

STEP_S = 0.5
"""Between two looks of the machines."""

DOWN_S = 2.0
"""An operator that ended is started again after it."""

OPTIONAL = frozenset({AUTOSCALER})

NAMESPACE = "team"


class ModelCluster:
    def __init__(self, faults: dict[int, Fault]) -> None:
        self._loop = asyncio.get_running_loop()
        self.way = Way(faults)
        self.api = ModelApi(self._loop.time)
        self.machines = Machines(self.api, self._loop.time)
        self.silent = 0
        """So many calls to pods that come next fail."""
        self.lives = 0
        self.errors: list[str] = []
        """Mistakes of its own that the operator told of."""
        self.warnings: list[str] = []
        self._failed: list[BaseException] = []
        self._operator: asyncio.Task[None] | None = None

    # what users do

    def apply(self, spec: Object, name: str = "chat") -> None:
        """Makes the service, or changes what is named of its spec."""
        if (replicas := spec.get("replicas")) is not None:
            self.machines.fewest = min(self.machines.fewest or replicas, replicas)
        if self.api.find(kinds.DRIFT_SERVICE, NAMESPACE, name) is None:
            body = {
                "apiVersion": kinds.DRIFT_SERVICE.api_version,
                "kind": kinds.DRIFT_SERVICE.kind,
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": spec,
            }
            self.api.create(kinds.DRIFT_SERVICE, body, "user")
        else:
            self.api.merge(kinds.DRIFT_SERVICE, NAMESPACE, name, {"spec": spec}, "user")

    @property
    def now_s(self) -> float:
        return self._loop.time()

    def status(self, name: str = "chat") -> Object:
        found = self.api.get(kinds.DRIFT_SERVICE, NAMESPACE, name)
        return cast("Object", found.get("status") or {})

    def shape(self) -> dict[str, Object]:
        """All objects that the operator makes, without what each of them has of its own."""
        return {
            f"{kind.plural}/{name}": _bare(item)
            for (kind, _, name), item in self.api.all()
            if kind not in (kinds.DRIFT_SERVICE, kinds.POD, kinds.EVENT)
        }

    def kill(self) -> None:
        """The operator, at once; it is started again."""
        if self._operator is not None:
            self._operator.cancel()

    async def wait(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        assert not self._failed, self._failed

    # what goes on

    async def _step(self) -> None:
        while True:
            self.machines.step()
            await asyncio.sleep(STEP_S)

    async def _operate(self) -> None:
        while True:
            self.lives += 1
            self._operator = asyncio.create_task(self._live())
            await asyncio.wait({self._operator})
            if not self._operator.cancelled() and (error := self._operator.exception()) is not None:
                raise error
            await asyncio.sleep(DOWN_S)

    async def _live(self) -> None:
        """One life of the operator, as in `drift_operator.process`."""
        api = cast("Api", FaultyApi(self.api, self.way, self.kill))
        start_s = self._loop.time()
        clock = lambda: self._loop.time() - start_s  # noqa: E731
        keepers: Keepers | None = None

        def changed(service: Service) -> None:
            if keepers is not None:
                keepers.wake(service)

        cache = Cache(changed)
        recorder = Recorder(api, f"operator-{self.lives}")
        metrics = Metrics(KeptFigures(), clock=clock)
        tools = Tools(
            cast("Channel", ModelChannel(self.api, self.machines, self._trouble)),
            metrics,
            clock=clock,
            wall_clock=lambda: BEGUN.timestamp() + self._loop.time(),
        )
        shared = Cluster(api, cache, recorder, OPTIONS, lambda: OPTIONAL)
        watching = Watching(
            api,
            cache,
            (),
            f"{names.MANAGED_BY}={names.FIELD_MANAGER}",
            lambda kind: None,
            lambda kind, times: None,
        )
        try:
            for kind in (kinds.POD, *kinds.OWNED, *OPTIONAL):
                watching.start(kind)
            while not watching.complete():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.05)
            keepers = Keepers(tools, lambda key: ClusterPlace(shared, key), Pulse(clock))
            await self._follow(api, keepers)
        finally:
            if keepers is not None:
                await keepers.close()
            await watching.close()
            await recorder.close()

    def _trouble(self) -> bool:
        self.silent = max(0, self.silent - 1)
        return self.silent > 0

    async def _follow(self, api: Api, keepers: Keepers) -> None:
        """DriftServices, as kopf tells of them: who was deleted while nobody looked is not told of."""
        kind = kinds.DRIFT_SERVICE
        while True:
            with contextlib.suppress(ApiError, TimeoutError):
                items, version = await api.list(kind)
                for item in items:
                    keepers.see(item, deleted=False)
                while True:
                    async with (
                        asyncio.timeout(90) as silence,
                        api.watch(kind, None, "", version, 240) as events,
                    ):
                        async for event in events:
                            silence.reschedule(self._loop.time() + 90)
                            version = event["object"]["metadata"]["resourceVersion"]
                            if event["type"] != "BOOKMARK":
                                keepers.see(event["object"], deleted=event["type"] == "DELETED")
            await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def running(faults: dict[int, Fault] | None = None) -> AsyncIterator[ModelCluster]:
    cluster = ModelCluster(faults or {})
    tasks = [asyncio.create_task(cluster._step()), asyncio.create_task(cluster._operate())]

    def ended(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            cluster._failed.append(error)

    for task in tasks:
        task.add_done_callback(ended)
    log, listening = logging.getLogger("drift_operator"), _Log(cluster)
    log.addHandler(listening)
    try:
        yield cluster
    finally:
        log.removeHandler(listening)
        for task in tasks:
            task.cancel()
        cluster.kill()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Log(logging.Handler):
    def __init__(self, cluster: ModelCluster) -> None:
        super().__init__(logging.WARNING)
        self._cluster = cluster

    def emit(self, record: logging.LogRecord) -> None:
        reason = getattr(record, "reason", "")
        text = f"at {self._cluster.now_s:.1f}: {logging.Formatter().format(record)} {reason}"
        (self._cluster.warnings if record.levelno < logging.ERROR else self._cluster.errors).append(text)


def _bare(item: Object) -> Object:
    bare: Object = json.loads(re.sub(r"[0-9a-f]{64}", "SHA256", json.dumps(item)))
    for key in ("uid", "resourceVersion", "generation", "creationTimestamp"):
        bare["metadata"].pop(key, None)
    for owner in bare["metadata"].get("ownerReferences", ()):
        owner.pop("uid")
    bare.get("status", {}).pop("observedGeneration", None)
    bare.get("data", {}).pop(names.TOKEN_KEY, None)
    return bare

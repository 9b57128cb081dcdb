"""What is soaked: Drift by its chart on a test cluster with a node, and one service behind its Ingress.

Three nodes of the embedded model and two routers. Wall clocks of nodes and of the operator are libfaketime's, which
asks a file how far it is to be off: the machine's own clock belongs to others, too. Monotonic clocks are real.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.soak import processes

sys.path.insert(0, str(machine.ROOT / "tests" / "support"))

import clusters
import drift_images
import installed
import nginx_ingress
from clusters import Cluster
from kubectl import Kubectl, until

NAMESPACE, SERVICE, MODEL = "soak", "soak", "drift-tiny"
NODES, ROUTERS = 3, 2
READY_S = 240.0

TTFT_MS, TBT_MS, MAX_WAIT = 30_000, 5_000, "2m"
"""So loose that nobody is refused because the machine has more to do: faults are what is looked at, not speed."""

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime")
LIBRARY = "libfaketimeMT.so.1"
INSIDE = "/faketime"

KV_BYTES = 256 * 2**20
"""Of a node: a part of the workload, so that pages are evicted. Estimate."""


@dataclass(frozen=True)
class Pod:
    name: str
    component: str
    address: str
    container: str
    """Id of its only container."""


@dataclass(frozen=True)
class Bed:
    cluster: Cluster
    url: str
    """Of the Ingress, which needs `headers`."""
    folder: Path

    @property
    def machine(self) -> str:
        """Name of the cluster's network namespace and control group."""
        return f"drift-{self.cluster.number}"

    @property
    def headers(self) -> dict[str, str]:
        return {"host": f"{SERVICE}.example.com"}

    def kubectl(self, component: str) -> Kubectl:
        return self.cluster.kubectl.within(installed.NAMESPACE if component == "operator" else NAMESPACE)

    def pods(self, component: str) -> list[Pod]:
        """Those that run, by name. Raises KubectlError."""
        listed = self.kubectl(component).list("pods", selector(component))
        return sorted(living(listed, component), key=lambda pod: pod.name)

    def pids(self, pod: Pod) -> list[int]:
        return processes.of_container(self.machine, pod.container)

    def set_clock(self, component: str, offset: str) -> None:
        """`offset` in seconds, as in +3600."""
        (self.folder / "clocks" / component).write_text(f"{offset}\n")


def selector(component: str) -> str:
    if component == "operator":
        return "app.kubernetes.io/name=drift-operator"
    return f"app.kubernetes.io/instance={SERVICE},app.kubernetes.io/component={component}"


def living(listed: list[dict[str, Any]], component: str) -> Iterator[Pod]:
    """Of the API's pods those whose container runs and that are not going."""
    for pod in listed:
        states = pod["status"].get("containerStatuses") or [{}]
        if "running" not in states[0].get("state", {}) or pod["metadata"].get("deletionTimestamp"):
            continue
        container = states[0]["containerID"].removeprefix("containerd://")
        yield Pod(pod["metadata"]["name"], component, pod["status"].get("podIP", ""), container)


@contextlib.contextmanager
def made() -> Iterator[Bed]:
    """Builds what has to be built, which takes minutes the first time. Raises BedError."""
    if lacking := clusters.missing():
        raise clusters.BedError(lacking)
    clusters.build()
    drift_images.build()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drift-soak-")))
        folder.chmod(0o755)  # pods have users of their own
        (folder / "clocks").mkdir()
        for component in ("node", "operator"):
            (folder / "clocks" / component).write_text("+0\n")
        cluster = stack.enter_context(clusters.started("up"))
        drift_images.load(cluster)
        release = stack.enter_context(installed.chart(cluster))
        _fake_operators_clock(release, folder)
        cluster.kubectl("create", "namespace", NAMESPACE)
        home = cluster.kubectl.within(NAMESPACE)
        home.apply(_service(folder))
        until(
            lambda: installed.status(home, SERVICE).get("readyReplicas") == NODES, f"{NODES} nodes", READY_S
        )
        installed.ready(home, SERVICE, READY_S)
        door = stack.enter_context(nginx_ingress.serving(home, SERVICE, folder))
        yield Bed(cluster, door.url, folder)


def clocks_can_step() -> bool:
    return (FAKETIME / LIBRARY).exists()


def _service(folder: Path) -> dict[str, Any]:
    template = drift_images.engine_pod_template()
    container, volumes = _faked(folder, "node")
    spec = template.setdefault("spec", {})
    (node,) = spec.setdefault("containers", [{"name": "node"}])
    node["volumeMounts"] = [*node.get("volumeMounts", ()), *container["volumeMounts"]]
    spec["volumes"] = [*spec.get("volumes", ()), *volumes]
    engine = {"args": [f"--kv-bytes={KV_BYTES}"], "podTemplate": template, "env": container["env"]}
    made = installed.document(SERVICE, replicas=NODES, engine=engine)
    made["spec"]["model"]["name"] = MODEL
    made["spec"]["slo"] = {"ttft": {"targetMs": TTFT_MS}, "tbt": {"targetMs": TBT_MS}}
    made["spec"]["routing"] = {"replicas": ROUTERS, "overload": {"maxWait": MAX_WAIT}}
    made["spec"]["expose"]["ingress"]["host"] = f"{SERVICE}.example.com"
    return made


def _fake_operators_clock(release: Kubectl, folder: Path) -> None:
    container, volumes = _faked(folder, "operator")
    (found,) = release.list("deployments")
    name = found["metadata"]["name"]
    container["name"] = found["spec"]["template"]["spec"]["containers"][0]["name"]
    change = {"spec": {"template": {"spec": {"containers": [container], "volumes": volumes}}}}
    release("patch", "deployment", name, "--type=strategic", "-p", json.dumps(change))
    release("rollout", "status", f"deployment/{name}", "--timeout=120s", timeout_s=130)


def _faked(folder: Path, component: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a container and its pod need; nothing where there is no libfaketime."""
    if not clocks_can_step():
        return {"volumeMounts": [], "env": []}, []
    variables = {
        "LD_PRELOAD": f"{INSIDE}/{LIBRARY}",
        "FAKETIME_TIMESTAMP_FILE": f"/clocks/{component}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }
    mounts = {"faketime": (INSIDE, FAKETIME), "clocks": ("/clocks", folder / "clocks")}
    container = {
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "volumeMounts": [
            {"name": name, "mountPath": inside, "readOnly": True} for name, (inside, _) in mounts.items()
        ],
    }
    volumes = [
        {"name": name, "hostPath": {"path": str(path), "type": "Directory"}}
        for name, (_, path) in mounts.items()
    ]
    return container, volumes

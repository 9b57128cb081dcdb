"""The bed itself: clusters that do what the other tests take for granted, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import clusters
import processes
import restricted_pods
from clusters import Cluster
from kubectl import Kubectl, KubectlError, Object, until
from restricted_pods import phase

KILLED = """
import sys, clusters
with clusters.started("control-plane") as cluster:
    print(cluster.number, cluster.kubeconfig, flush=True)
    sys.stdin.read()
"""


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_objects_are_applied_read_changed_and_deleted(control_plane: Cluster, namespace: Kubectl) -> None:
    assert namespace.apply(config_map("a", x="1"), dry_run=True)[0]["data"] == {"x": "1"}
    assert namespace.get("configmap", "a") is None
    namespace.apply(config_map("a", x="1"), config_map("b"))
    assert {item["metadata"]["name"] for item in namespace.list("configmap")} >= {"a", "b"}
    assert namespace.patch("configmap", "a", {"data": {"x": "2"}})["data"] == {"x": "2"}
    namespace.delete("configmap", "a")
    assert namespace.get("configmap", "a") is None


def test_server_refuses_unknown_fields(control_plane: Cluster, namespace: Kubectl) -> None:
    with pytest.raises(KubectlError, match="unknown field"):
        namespace.apply(config_map("a") | {"dta": {}})


def test_rights_are_those_of_the_impersonated(control_plane: Cluster, namespace: Kubectl) -> None:
    assert namespace.may("create", "pods")
    assert not namespace.acting_as("system:serviceaccount:nobody:nothing").may("create", "pods")


def test_every_test_has_a_namespace_of_its_own(control_plane: Cluster, namespace: Kubectl) -> None:
    assert {item["metadata"]["name"] for item in namespace.list("configmap")} <= {"kube-root-ca.crt"}


def test_waiting_ends_with_what_was_waited_for() -> None:
    with pytest.raises(TimeoutError, match="for the impossible"):
        until(lambda: False, "the impossible", deadline_s=0)


def test_pods_reach_services_by_name_and_this_machine_reaches_them(
    cluster: Cluster, namespace: Kubectl
) -> None:
    service = namespace.apply(*restricted_pods.web("web"))[1]
    ask = "import urllib.request as u; print(u.urlopen('http://{}', timeout=5).status)"
    until(lambda: phase(namespace, "web") == "Running", "the server to run")
    until(lambda: _asked(namespace, ask.format(f"web.{namespace.namespace}.svc")), "an answer from within")
    program = [sys.executable, "-c", ask.format(service["spec"]["clusterIP"])]
    assert subprocess.run(program, capture_output=True, timeout=20, check=True).stdout == b"200\n"


def _asked(kubectl: Kubectl, program: str) -> bool:
    return kubectl("exec", "web", "--", "python", "-c", program) == "200\n"


def test_an_api_server_reaches_this_machine(cluster: Cluster, namespace: Kubectl) -> None:
    connect = f"import socket; socket.create_connection(('{cluster.host}', 9), timeout=5)"
    namespace.apply(restricted_pods.python("client", connect))
    until(lambda: phase(namespace, "client") == "Failed", "the refusal")
    assert "ConnectionRefusedError" in namespace("logs", "client")


def _processes(number: int) -> list[int]:
    """Of a cluster: what is in its network namespace."""
    listed = subprocess.run(["ip", "netns", "pids", f"drift-{number}"], capture_output=True, check=True)
    return [int(process) for process in listed.stdout.split()]


def test_a_start_removes_what_an_earlier_one_left(built: None) -> None:
    with clusters.started("control-plane") as cluster:
        cluster.kubectl("create", "namespace", "left-behind")
        left = _processes(cluster.number)
        clusters.run("cluster", "control-plane", variables=cluster.variables)
        assert all(processes.ends(process) for process in left)
        assert cluster.kubectl.get("namespace", "left-behind") is None


def test_a_cluster_goes_down_with_a_run_that_is_killed(control_plane: Cluster) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        env={**clusters.ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        first, kubeconfig = owner.stdout.readline().split()
        number = int(first)
        assert number != control_plane.number
        started = _processes(number)
        assert len(started) >= 4
        owner.kill()
    assert all(processes.ends(process) for process in started)
    until(lambda: not Path(kubeconfig).parent.exists(), "its folder to be gone")
    assert not Path(f"/run/netns/drift-{number}").exists()
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"

"""Kubernetes clusters of this run of the tests, which end with it, however it ends.

    with clusters.started("up") as cluster:
        cluster.kubectl("get", "nodes")

`tests/cluster/bed/cluster` makes them. A run takes the first number that no other living run holds the lock of; what
a killed run left under that number is removed first.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import documents
from kubectl import Kubectl

BED = documents.REPOSITORY / "tests" / "cluster" / "bed"
NUMBERS = range(1, 40)
"""0 is for people."""
BUILD_S = 3600
"""The binaries take 7 min where two cores have nothing else to do."""
START_S = 150

PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "openssl": "openssl",
    "sysctl": "procps",
    "ip": "iproute2",
    "nginx": "nginx-light",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
"""Debian's, by a program that each has."""

# As it is before a test moves the cache folder: a cluster that starts with one must end with the same.
ENVIRONMENT = dict(os.environ)
CACHE = Path(ENVIRONMENT.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drift"
SYSTEM_PATH = f"{ENVIRONMENT.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"


class BedError(Exception):
    """What a script of the bed said before it failed."""


def missing() -> str | None:
    """What this machine lacks for a cluster, with the remedy."""
    if os.geteuid() != 0:
        return "a test cluster needs root: it makes network namespaces and control groups"
    if shutil.which("go") is None:
        return "a test cluster is built by Go 1.25 or later, and there is none"
    packages = [
        package for program, package in PACKAGES.items() if not shutil.which(program, path=SYSTEM_PATH)
    ]
    return f"a test cluster needs: apt-get install {' '.join(packages)}" if packages else None


def run(
    script: str, *arguments: str, timeout_s: float = START_S, variables: Mapping[str, str] | None = None
) -> str:
    """What a script of the bed prints. Raises BedError."""
    try:
        done = subprocess.run(
            [str(BED / script), *arguments],
            env={**ENVIRONMENT, "PATH": SYSTEM_PATH, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BedError(f"{script} {' '.join(arguments)}: not within {timeout_s:g} s") from error
    if done.returncode != 0:
        raise BedError(f"{script} {' '.join(arguments)}: {(done.stderr or done.stdout)[-4000:]}")
    return done.stdout.strip()


@functools.cache
def binaries() -> Path:
    """Where kubectl, helm and the rest are, or will be once they are built."""
    return Path(run("cluster", "bin"))


def build() -> None:
    """Once for all runs; another run that builds is waited for."""
    run("cluster", "build", timeout_s=BUILD_S)


@dataclass(frozen=True)
class Cluster:
    number: int
    kubeconfig: Path
    host: str
    """The address by which the API server and pods reach this machine; they refuse 127.0.0.1."""

    @property
    def kubectl(self) -> Kubectl:
        """As the cluster's administrator."""
        return Kubectl(binaries() / "kubectl", self.kubeconfig)

    @property
    def variables(self) -> dict[str, str]:
        """That the bed's scripts know this cluster by."""
        return {"DRIFT_CLUSTER_NUMBER": str(self.number)}


@contextlib.contextmanager
def started(extent: Literal["control-plane", "up"]) -> Iterator[Cluster]:
    """`up` has a node, on which pods run. Raises BedError."""
    with _number() as number:
        variables = {"DRIFT_CLUSTER_NUMBER": str(number)}
        try:
            run("cluster", extent, variables={**variables, "DRIFT_CLUSTER_OWNER": str(os.getpid())})
            yield Cluster(
                number,
                Path(run("cluster", "kubeconfig", variables=variables)),
                run("cluster", "address", variables=variables),
            )
        finally:
            run("cluster", "down", variables=variables)


@contextlib.contextmanager
def _number() -> Iterator[int]:
    folder = CACHE / "clusters"
    folder.mkdir(parents=True, exist_ok=True)
    for number in NUMBERS:
        with (folder / f"{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield number
            return
    raise BedError(f"{len(NUMBERS)} test clusters are running: none is left")

"""An operator and a stand-in fleet for the tests of a module, and a namespace for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import operator_bed
import operator_process
import stand_in_kubelet
from clusters import Cluster
from drift_operator import crd
from kubectl import define
from operator_bed import Bed, Scene
from stand_in_fleet import Fleet
from stand_in_kubelet import Machine

MACHINES = [Machine(f"gpu-{number}", gpus=8) for number in range(2)]


@pytest.fixture(scope="session")
def kubeconfig(control_plane: Cluster) -> Path:
    """Of a control plane that knows DriftServices."""
    define(control_plane.kubectl, crd.build())
    return control_plane.kubeconfig


@pytest.fixture(scope="module")
def bed(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    fleet = Fleet()
    with (
        operator_bed.cluster(kubeconfig) as cluster,
        stand_in_kubelet.running(kubeconfig, MACHINES, fleet, crash_backoff_s=0.2) as kubelet,
        operator_process.operator(kubeconfig, tmp_path_factory.mktemp("operator")) as operator,
    ):
        yield Bed(cluster, kubelet, fleet, operator)


@pytest.fixture
def scene(bed: Bed) -> Iterator[Scene]:
    with operator_bed.scene(bed) as found:
        yield found

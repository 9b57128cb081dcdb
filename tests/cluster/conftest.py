"""A real Kubernetes for the tests that ask for one, and Drift's images on it.

`control_plane` has an API server and controllers, and no node: pods are pending for ever, unless a test plays the
kubelet. `cluster` has a node that runs Drift's images. Both start in seconds, when the first test asks; what takes
minutes the first time, the building, is outside of the tests' time limits.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Generator, Iterator

import pytest

import clusters
import drift_images
from clusters import BedError, Cluster
from kubectl import Kubectl

LIMIT_S = 600
"""Of a test: the first also waits for the cluster and for its images."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = clusters.missing()
    for item in items:
        if "built" not in getattr(item, "fixturenames", ()):
            continue
        item.add_marker("cluster")
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMIT_S))
        if lacking:
            item.add_marker(pytest.mark.skip(reason=lacking))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Builds what the test needs, before its time begins."""
    asked = getattr(item, "fixturenames", ())
    if not clusters.missing():
        for fixture, build in (("built", clusters.build), ("built_images", drift_images.build)):
            if fixture in asked:
                _failure(build)
    return (yield)


@functools.cache
def _failure(build: Callable[[], None]) -> BedError | None:
    """Of this build, which runs once: a test that needs what can't be built fails, and no other."""
    try:
        build()
    except BedError as error:
        return error
    return None


def _check(build: Callable[[], None]) -> None:
    if (error := _failure(build)) is not None:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def built() -> None:
    _check(clusters.build)


@pytest.fixture(scope="session")
def control_plane(built: None) -> Iterator[Cluster]:
    with clusters.started("control-plane") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def built_images(built: None) -> None:
    """Drift's images are there; `drift_images` tells their names and what is in them."""
    _check(drift_images.build)


@pytest.fixture(scope="session")
def cluster(built_images: None) -> Iterator[Cluster]:
    with clusters.started("up") as cluster:
        drift_images.load(cluster)
        yield cluster


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl within a namespace that is the test's own, of the cluster that it asked for."""
    asked = "cluster" if "cluster" in request.fixturenames else "control_plane"
    kubectl: Kubectl = request.getfixturevalue(asked).kubectl
    name = f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield kubectl.within(name)
    kubectl.delete("namespace", name, wait=False)

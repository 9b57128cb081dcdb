"""What holds for every test: GPU tests need a GPU, and nothing else is skipped where CI runs.

Side by side (`make test`) a worker takes a file at a time. Tests that share a Kubernetes stay together, and come
last: it takes minutes to build where there is none yet.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("drift", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("drift")

CLUSTER = "tests/cluster/"


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]
    """Which tests one worker runs, one after the other."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file.rpartition("/")[0] if file.startswith(CLUSTER) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    config.option.loadscopereorder = False
    return SideBySide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.startswith(CLUSTER))
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and not _has_gpu():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A tool that is missing where CI runs is a failure: a skipped test proves nothing."""
    report = yield
    if (
        report.skipped
        and os.environ.get("CI")
        and not (item.get_closest_marker("gpu") or hasattr(report, "wasxfail"))
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report


def _has_gpu() -> bool:
    import torch  # slow to load, and most runs have no GPU test selected

    return torch.cuda.is_available()

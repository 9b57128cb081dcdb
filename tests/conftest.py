"""What holds for every test: GPU tests need a GPU, and nothing else is skipped where CI runs."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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

"""Every Triton kernel compiles for every supported GPU, fits it, and needs no more of it than is recorded."""

import json
from dataclasses import asdict

import pytest

import kernel_resources

GROWTH = 1.1  # a compiler's whims are smaller; a lost pipeline stage or a doubled tile is larger

RECORD = json.loads(kernel_resources.RECORD.read_text())
REFRESH = (
    f"if that is meant, run tests/support/kernel_resources.py, which rewrites {kernel_resources.RECORD.name}"
)


@pytest.mark.parametrize("capability", kernel_resources.SHARED_LIMIT_BYTES)
def test_kernels_compile_and_fit(capability: int) -> None:
    found = kernel_resources.compile_all(capability)
    recorded = RECORD[f"sm_{capability}"]
    assert found.keys() == recorded.keys(), f"the kernels and their record name different launches: {REFRESH}"
    for name, used in found.items():
        limit = kernel_resources.SHARED_LIMIT_BYTES[capability]
        assert used.shared_bytes <= limit, (
            f"{name}: {used.shared_bytes} bytes of shared memory, sm_{capability} has {limit}"
        )
        assert used.spilled_bytes == 0, (
            f"{name} spills {used.spilled_bytes} bytes of registers on sm_{capability}"
        )
        for resource, before in recorded[name].items():
            now = asdict(used)[resource]
            assert now <= before * GROWTH, (
                f"{name} on sm_{capability}: {resource} {before} -> {now}; {REFRESH}"
            )

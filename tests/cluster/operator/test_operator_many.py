"""A hundred services and one operator, which has nothing to do most of the time."""

from __future__ import annotations

import time

import pytest

from kube_api import Object
from operator_bed import Bed, Scene, condition

SERVICES = 100
QUIET_S = 60
MOST_BYTES = 250 << 20


@pytest.mark.timeout(600)
def test_a_hundred_services_at_rest_write_nothing_and_need_little_memory(scene: Scene, bed: Bed) -> None:
    services = [f"chat-{number}" for number in range(SERVICES)]
    for name in services:
        scene.apply(name, routing={"replicas": 1})
    for name in services:
        scene.until_ready(name, nodes=1, deadline_s=240)
        scene.until(lambda status: condition(status, "SplitConverged") == "True", name)
    time.sleep(15)  # the last words in the statuses
    statuses = {name: scene.status(name) for name in services}
    before = scene.objects()
    time.sleep(QUIET_S)
    after = scene.objects()
    written = {key for key in after if after[key] != before.get(key)}
    assert written == set(), {
        name: difference(statuses[name], scene.status(name))
        for name in services
        if f"driftservices/{name}" in written
    }
    assert bed.operator.rss_bytes <= MOST_BYTES


def difference(before: Object, after: Object) -> Object:
    """Of two statuses, field by field."""
    return {key: (before.get(key), value) for key, value in after.items() if before.get(key) != value}

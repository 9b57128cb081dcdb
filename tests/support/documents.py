"""DriftService documents for tests, as plain data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))

Document = dict[str, Any]


def minimal(**spec: Any) -> Document:
    """The least that is a DriftService, with further fields of its spec."""
    return {
        "apiVersion": "drift.ai/v1alpha1",
        "kind": "DriftService",
        "metadata": {"name": "demo"},
        "spec": {"model": {"uri": "embedded://drift-tiny"}, **spec},
    }


def full() -> Document:
    """Every field of a spec and of a status."""
    document: Document = yaml.safe_load((REPOSITORY / "examples" / "cluster-full.yaml").read_text())
    document["status"] = copy.deepcopy(STATUS)
    return document


STATUS: Document = {
    "observedGeneration": 3,
    "conditions": [
        {
            "type": "SLOMet",
            "status": "True",
            "reason": "WithinTargets",
            "message": "99.4 % of requests met both targets",
            "lastTransitionTime": "2026-01-31T12:00:00Z",
            "observedGeneration": 3,
        }
    ],
    "replicas": 2,
    "readyReplicas": 2,
    "updatedReplicas": 2,
    "availableReplicas": 2,
    "drainingReplicas": 0,
    "desiredReplicas": 2,
    "selector": "drift.ai/service=chat,drift.ai/component=node",
    "slo": {
        "ttft": {"attainment": 0.994, "p50Ms": 180, "p99Ms": 390.5, "burnRate": 0.6, "requests": 1200},
        "tbt": {"attainment": 1, "p50Ms": 31, "p99Ms": 62, "burnRate": 0, "requests": 1200},
    },
    "decodeSMs": "48-56",
    "url": "http://chat.example.com/v1",
    "nodes": [
        {
            "name": "chat-7f9c-abcde",
            "ready": True,
            "draining": False,
            "decodeSMs": 48,
            "prefillSMs": 84,
            "weight": 0.5,
            "epochSent": 17,
            "epochAcknowledged": 17,
            "kvUse": 0.4,
            "hitRate": 0.31,
        }
    ],
    "decisions": [
        {
            "time": "2026-01-31T12:00:00.25Z",
            "lever": "split",
            "node": "chat-7f9c-abcde",
            "from": "40",
            "to": "48",
            "reason": "DecodeLate",
            "message": "TBT misses its target",
        }
    ],
}

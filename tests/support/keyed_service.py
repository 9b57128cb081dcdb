"""A service as strangers meet it: two nodes with simulated GPUs, and a router before them that asks for API keys."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import real_node
import router_process
from http_calls import get
from router_process import RouterProcess

NODES = 2
KEY = "a-key-of-theirs"


def limited_key(client: str) -> str:
    """With this one a client may ask once a minute."""
    return f"limited-{client}"


@dataclass
class Service:
    router: RouterProcess
    nodes: list[real_node.RealNode]

    def asked(self, client: str, **further: Any) -> dict[str, Any]:
        """What the script of a client is told."""
        keys = {"key": KEY, "limited_key": limited_key(client)}
        return {"url": f"{self.router.url}/v1", "model": self.nodes[0].model, **keys, **further}

    def settled(self) -> bool:
        return all(node.settled() for node in self.nodes)

    def generated_tokens(self) -> float:
        return sum(node.count("drift_core_generation_tokens_total") for node in self.nodes)


@contextlib.contextmanager
def started(folder: Path, model: Path, clients: Sequence[str]) -> Iterator[Service]:
    folder.mkdir()
    limited = [
        {"name": name, "sha256": _digest(limited_key(name)), "requests_per_minute": 1} for name in clients
    ]
    keys = folder / "keys.yaml"
    keys.write_text(json.dumps({"keys": [{"name": "theirs", "sha256": _digest(KEY)}, *limited]}))
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                real_node.started(folder / f"node{index}", model, device="sim", slo={"tbt_ms": 20.0})
            )
            for index in range(NODES)
        ]
        urls = [f"{node.url},{node.control_url}" for node in nodes]
        router = stack.enter_context(router_process.router(*urls, token=real_node.TOKEN, keys_file=str(keys)))
        real_node.until(lambda: _eligible(router) == NODES, "the nodes behind the router")
        yield Service(router, nodes)


def _eligible(router: RouterProcess) -> int:
    found = get(router.admin_url, "/control/v1/nodes", {"x-drift-token": real_node.TOKEN})
    return sum(bool(node["eligible"]) for node in found.json["nodes"])


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()

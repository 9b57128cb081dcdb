"""Routers by others, from pip's packages, before nodes of ours. Their commands are those that benchmarks compare."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.router import dummies, peers

import environments
import http_calls
import real_node

COMMANDS = {
    "sglang-router": peers.sglang("round_robin"),
    "vllm-router": peers.vllm("round_robin"),
    "smg": peers.smg("round_robin"),
}


@contextlib.contextmanager
def started(name: str, folder: Path, nodes: Sequence[real_node.RealNode]) -> Iterator[str]:
    """Its URL, once it serves the nodes' model."""
    port, metrics_port = dummies.free_ports(2)
    ports = [int(node.url.rpartition(":")[2]) for node in nodes]
    place = peers.Place(folder, port, metrics_port, ports, environments.python("routers"))
    url = f"http://{dummies.HOST}:{port}"
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            COMMANDS[name](place), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:

        def serves() -> bool:
            assert process.poll() is None, log.read_text()
            return _answers(url, nodes[0])

        real_node.until(serves, f"{name} to serve")
        yield url
    finally:
        peers.stop(process)


def _answers(url: str, node: real_node.RealNode) -> bool:
    with contextlib.suppress(OSError):
        return http_calls.post(url, "/v1/completions", node.completion(max_tokens=1)).status == 200
    return False

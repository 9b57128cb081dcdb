"""The routers that are compared, each in its own process on one core.

Those of pip want an environment of their own:

    python -m venv PEERS && PEERS/bin/pip install --require-hashes -r requirements/routers.txt

nginx is Debian's nginx-light.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
from benchmarks.router import dummies

CORE = 0
START_S = 40.0
STOP_S = 10.0
DIRECT, NGINX, OURS = "direct", "nginx", "drift cache-aware"


class Place(NamedTuple):
    """Where one router runs."""

    folder: Path
    port: int
    metrics_port: int
    nodes: Sequence[int]
    python: Path | None
    """Of the peers' environment."""

    @property
    def urls(self) -> list[str]:
        return [f"http://{dummies.HOST}:{port}" for port in self.nodes]


class UnavailableError(Exception):
    """A router that cannot be measured here, and why."""


class Running:
    """A router and its processes."""

    def __init__(self, port: int, pid: int | None, command: str = "") -> None:
        self.port = port
        self.command = command
        self._pid = pid

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def resident_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        if self._pid is None:
            return []
        first = psutil.Process(self._pid)
        return [first, *first.children(recursive=True)]


def nginx(place: Place) -> list[str]:
    if shutil.which("nginx") is None:
        raise UnavailableError("nginx is not installed (Debian: nginx-light)")
    servers = "".join(f"server {dummies.HOST}:{port};\n" for port in place.nodes)
    (place.folder / "nginx.conf").write_text(
        f"""worker_processes 1;
worker_rlimit_nofile {resource.getrlimit(resource.RLIMIT_NOFILE)[1]};
pid {place.folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 32768; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_buffer_size 128k;
  client_body_temp_path {place.folder}/body;
  proxy_temp_path {place.folder}/proxy;
  upstream nodes {{ {servers} keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen {dummies.HOST}:{place.port} backlog=4096;
    location / {{
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""
    )
    config = str(place.folder / "nginx.conf")
    return ["nginx", "-p", str(place.folder), "-e", "stderr", "-c", config, "-g", "daemon off;"]


def drift(policy: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        keys = place.folder / "keys.yaml"
        key = {
            "name": "benchmark",
            "sha256": hashlib.sha256(dummies.KEY.encode()).hexdigest(),
            "requests_per_minute": 1e9,
            "tokens_per_minute": 1e12,
        }
        keys.write_text(json.dumps({"keys": [key]}))
        nodes = [word for url in place.urls for word in ("--node", url)]
        served = ["--port", str(place.port), "--admin-port", str(place.metrics_port)]
        served += ["--keys-file", str(keys), "--policy", policy]
        return [sys.executable, "-m", "drift_cli", "router", *served, *nodes]

    return command


def packaged(module: str, policy: str, *further: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        if place.python is None:
            raise UnavailableError("not installed: --peers-venv was not given")
        return [
            str(place.python),
            "-m",
            *module.split(),
            *("--host", dummies.HOST, "--port", str(place.port)),
            *("--prometheus-host", dummies.HOST, "--prometheus-port", str(place.metrics_port)),
            *("--policy", policy, *further),
            *("--worker-urls", *place.urls),
        ]

    return command


def sglang(policy: str) -> Callable[[Place], list[str]]:
    return packaged("sglang_router.launch_router", policy, "--log-level", "warn")


def vllm(policy: str) -> Callable[[Place], list[str]]:
    return packaged("vllm_router.launch_router", policy, "--log-level", "warning")


def smg(policy: str) -> Callable[[Place], list[str]]:
    return packaged("smg launch", policy, "--log-level", "warn", "--disable-tokenizer-autoload")


ROUTERS: dict[str, Callable[[Place], list[str]]] = {
    NGINX: nginx,
    OURS: drift("cache-aware"),
    "sglang-router cache_aware": sglang("cache_aware"),
    "sglang-router round_robin": sglang("round_robin"),
    "vllm-router cache_aware": vllm("cache_aware"),
    "vllm-router round_robin": vllm("round_robin"),
    "smg cache_aware": smg("cache_aware"),
}


@contextlib.contextmanager
def running(
    command: Callable[[Place], list[str]], folder: Path, nodes: Sequence[int], python: Path | None
) -> Iterator[Running]:
    """Raises UnavailableError."""
    folder.mkdir(parents=True, exist_ok=True)
    port, metrics_port = dummies.free_ports(2)
    place = Place(folder, port, metrics_port, nodes, python)
    words = dummies.pinned(CORE, command(place))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(process, place, folder / "log")
        yield Running(port, process.pid, _shown(words))
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)


def _wait(process: subprocess.Popen[bytes], place: Place, log: Path) -> None:
    end_s = time.monotonic() + START_S
    said = ""
    while time.monotonic() < end_s and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, said = ask(place.port)
            if status == http.client.OK:
                return
        time.sleep(0.2)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or [said]
    raise UnavailableError(f"did not serve within {START_S:g} s: {last[0][:300]}")


def ask(port: int) -> tuple[int, str]:
    body = {"model": "dummy", "messages": [{"role": "user", "content": "Hello"}]}
    connection = http.client.HTTPConnection(dummies.HOST, port, timeout=5)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json", "authorization": f"Bearer {dummies.KEY}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


def versions(python: Path | None) -> dict[str, str]:
    """Of the peers."""
    found = {}
    if shutil.which("nginx"):
        told = subprocess.run(["nginx", "-v"], capture_output=True, text=True, timeout=5, check=False)
        found["nginx"] = told.stderr.strip().rpartition("/")[2]
    if python is not None:
        query = (
            "import importlib.metadata as m; print(*[f'{n}={m.version(n)}' for n in %r if m.distribution(n)])"
        )
        names = ["sglang-router", "vllm-router", "smg"]
        told = subprocess.run(
            [python, "-c", query % names], capture_output=True, text=True, timeout=10, check=False
        )
        found |= dict(word.split("=", 1) for word in told.stdout.split())
    return found


def _shown(words: Sequence[str]) -> str:
    """A command without this machine's folders."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in words)

"""What an ingress controller is to one Ingress: Debian's nginx on 127.0.0.1, configured from the object.

    with nginx_ingress.serving(kubectl, "demo", folder) as door:
        http_calls.get(door.url, "/v1/models", {"host": "demo.example.com"})

It honours hosts, paths, backends, TLS secrets and some of ingress-nginx's annotations, and refuses an Ingress with
others, so that no test passes because one was ignored. Where an annotation is left out nginx's own default holds:
answers are buffered, silence ends after 60 s, bodies have at most 1 MiB. Only the time to connect is ingress-nginx's
5 s: what is sent to a new Service before kube-proxy knows it is lost, and every repetition goes the same way.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clusters
from drift_operator.local import ports
from kubectl import Kubectl, Object

PREFIX = "nginx.ingress.kubernetes.io/"
DIRECTIVES = {
    "proxy-buffering": "proxy_buffering {}",
    "proxy-read-timeout": "proxy_read_timeout {}s",
    "proxy-send-timeout": "proxy_send_timeout {}s",
    "proxy-body-size": "client_max_body_size {}",
}
"""Of nginx, by annotation."""

START_S = 20.0

MAIN = """\
daemon off;
master_process off;
error_log stderr warn;
pid {folder}/pid;
events {{ worker_connections 512; }}
http {{
  access_log off;
  proxy_connect_timeout 5s;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port} default_server; return 404; }}
{servers}}}
"""

PASSED_ON = """\
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
"""


@dataclass(frozen=True)
class Door:
    port: int
    tls_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"


@contextlib.contextmanager
def serving(kubectl: Kubectl, name: str, folder: Path) -> Iterator[Door]:
    """The Ingress of that name in kubectl's namespace, until the test ends. Raises ValueError for one that asks for
    what is not honoured here."""
    ingress = kubectl.get("ingress", name)
    assert ingress is not None, f"no Ingress {name}"
    for tls in ingress["spec"].get("tls", ()):
        secret = kubectl.get("secret", tls["secretName"])
        assert secret is not None, f"no Secret {tls['secretName']}"
        for part in ("tls.crt", "tls.key"):
            _certificate(folder, tls["secretName"], part).write_bytes(base64.b64decode(secret["data"][part]))
    services = {item["metadata"]["name"]: item for item in kubectl.list("services")}
    with running(ingress, services, folder) as door:
        yield door


@contextlib.contextmanager
def running(ingress: Object, services: Mapping[str, Object], folder: Path) -> Iterator[Door]:
    """As `serving`, where the certificates are in the folder already; services by name."""
    door = Door(*ports.free("127.0.0.1", 2))
    file = folder / "nginx.conf"
    file.write_text(configuration(ingress, services, door, folder))
    program = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(file)]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(program, stderr=log, env={"PATH": clusters.SYSTEM_PATH})
    try:
        end_s = time.monotonic() + START_S
        while not _accepts(door.port):
            assert process.poll() is None, (folder / "nginx.log").read_text()
            assert time.monotonic() < end_s, f"nginx did not listen within {START_S:g} s"
            time.sleep(0.02)
        yield door
    finally:
        process.kill()
        process.wait()


def configuration(ingress: Object, services: Mapping[str, Object], door: Door, folder: Path) -> str:
    """nginx's, of the Ingress. Raises ValueError."""
    spec = ingress["spec"]
    directives = list(_directives(ingress["metadata"].get("annotations") or {}))
    secrets = {host: tls["secretName"] for tls in spec.get("tls", ()) for host in tls["hosts"]}
    servers = []
    for rule in spec.get("rules", ()):
        host = rule.get("host", "")
        body = "".join(f"    {line};\n" for line in directives)
        for path in rule["http"]["paths"]:
            target = _address(path["backend"]["service"], services)
            for location in _locations(path["path"], path["pathType"]):
                body += f"    location {location} {{\n      proxy_pass http://{target};\n{PASSED_ON}    }}\n"
        if host in secrets:
            again = f"    return 308 https://$host:{door.tls_port}$request_uri;\n"
            servers.append(_server(f"127.0.0.1:{door.port}", host, again))
            pair = "".join(
                f"    ssl_certificate{suffix} {_certificate(folder, secrets[host], part)};\n"
                for suffix, part in (("", "tls.crt"), ("_key", "tls.key"))
            )
            servers.append(_server(f"127.0.0.1:{door.tls_port} ssl", host, pair + body))
        else:
            servers.append(_server(f"127.0.0.1:{door.port}", host, body))
    return MAIN.format(folder=folder, port=door.port, servers="".join(servers))


def _server(listen: str, host: str, body: str) -> str:
    # A rule without a host is for all: no name of a real host matches this before the others do.
    name = host or "~."
    return f"  server {{\n    listen {listen};\n    server_name {name};\n{body}  }}\n"


def _directives(annotations: Mapping[str, str]) -> Iterator[str]:
    for key, value in annotations.items():
        if key.startswith(PREFIX):
            directive = DIRECTIVES.get(key.removeprefix(PREFIX))
            if directive is None:
                raise ValueError(f"annotation {key}: is none of {', '.join(DIRECTIVES)}")
            yield directive.format(value)


def _locations(path: str, kind: str) -> Iterator[str]:
    """Of a path; a prefix is one of whole segments."""
    stem = path.rstrip("/")
    if kind == "Exact":
        yield f"= {path}"
    else:
        if stem:
            yield f"= {stem}"
        yield f"{stem}/"


def _address(backend: Mapping[str, Any], services: Mapping[str, Object]) -> str:
    service = services.get(backend["name"])
    if service is None:
        raise ValueError(f"backend {backend['name']}: no such Service")
    wanted = backend["port"]
    for port in service["spec"]["ports"]:
        if port["port"] == wanted.get("number") or port.get("name", "") == wanted.get("name"):
            return f"{service['spec']['clusterIP']}:{port['port']}"
    raise ValueError(f"backend {backend['name']}: its Service has no port {wanted}")


def _certificate(folder: Path, secret: str, part: str) -> Path:
    return folder / f"{secret}.{part}"


def _accepts(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0

"""The stand-in for an ingress controller: hosts, paths, TLS, and the annotations that streaming depends on."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import clusters
import http_calls
import nginx_ingress
import restricted_pods
from clusters import Cluster
from kubectl import Kubectl, Object, until

HOST = "demo.example.com"

if lacking := clusters.missing():
    pytestmark = pytest.mark.skip(reason=lacking)


class Upstream:
    """A server whose answer to /stream has a first part, and a second one once `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self._chunk(f"{self.headers['host']} {self.path}".encode())
                if self.path == "/stream":
                    assert upstream.go_on.wait(http_calls.TIMEOUT_S)
                    self._chunk(b"second")
                self._chunk(b"")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def service(self) -> Object:
        ports = [{"name": "http", "port": self.server.server_address[1]}]
        return {"metadata": {"name": "demo"}, "spec": {"clusterIP": "127.0.0.1", "ports": ports}}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    thread = threading.Thread(target=upstream.server.serve_forever)
    thread.start()
    yield upstream
    upstream.go_on.set()
    upstream.server.shutdown()
    upstream.server.server_close()
    thread.join()


def path_of(path: str, kind: str = "Prefix") -> Object:
    backend = {"service": {"name": "demo", "port": {"name": "http"}}}
    return {"path": path, "pathType": kind, "backend": backend}


def ingress(*paths: Object, host: str | None = HOST, tls: bool = False, **annotations: str) -> Object:
    """Annotations by the last part of their names, with _ for -."""
    rule: Object = {"http": {"paths": list(paths) or [path_of("/")]}}
    if host is not None:
        rule["host"] = host
    named = {f"{nginx_ingress.PREFIX}{key.replace('_', '-')}": value for key, value in annotations.items()}
    spec: Object = {"ingressClassName": "nginx", "rules": [rule]}
    if tls:
        spec["tls"] = [{"hosts": [host], "secretName": "certificate"}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "demo", "annotations": named},
        "spec": spec,
    }


@contextmanager
def door_of(upstream: Upstream, wanted: Object, folder: Path) -> Iterator[nginx_ingress.Door]:
    with nginx_ingress.running(wanted, {"demo": upstream.service}, folder) as door:
        yield door


def status(door: nginx_ingress.Door, path: str, host: str = HOST) -> int:
    return http_calls.get(door.url, path, {"host": host}).status


def test_requests_go_by_host_and_keep_it(upstream: Upstream, tmp_path: Path) -> None:
    with door_of(upstream, ingress(), tmp_path) as door:
        assert (
            http_calls.get(door.url, "/v1/models?a=b", {"host": HOST}).raw
            == f"{HOST} /v1/models?a=b".encode()
        )
        assert status(door, "/", host="other.example.com") == 404


def test_a_rule_without_a_host_is_for_all(upstream: Upstream, tmp_path: Path) -> None:
    with door_of(upstream, ingress(host=None), tmp_path) as door:
        assert status(door, "/", host="any.example.com") == 200


def test_prefixes_are_of_whole_segments_and_exact_paths_of_themselves(
    upstream: Upstream, tmp_path: Path
) -> None:
    with door_of(upstream, ingress(path_of("/v1"), path_of("/health", "Exact")), tmp_path) as door:
        asked = ["/v1", "/v1/models", "/v1x", "/health", "/health/live", "/"]
        assert [status(door, path) for path in asked] == [200, 200, 404, 200, 404, 404]


def test_an_unbuffered_answer_comes_as_it_is_made(upstream: Upstream, tmp_path: Path) -> None:
    with door_of(upstream, ingress(proxy_buffering="off"), tmp_path) as door:
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=http_calls.TIMEOUT_S)
        connection.request("GET", "/stream", headers={"host": HOST})
        answer = connection.getresponse()
        assert answer.read1() == f"{HOST} /stream".encode()
        upstream.go_on.set()
        assert answer.read() == b"second"
        connection.close()


def test_silence_ends_after_the_read_timeout(upstream: Upstream, tmp_path: Path) -> None:
    with (
        door_of(upstream, ingress(proxy_buffering="off", proxy_read_timeout="1"), tmp_path) as door,
        pytest.raises(http.client.IncompleteRead),
    ):
        status(door, "/stream")


def test_bodies_have_the_size_that_is_allowed(upstream: Upstream, tmp_path: Path) -> None:
    with door_of(upstream, ingress(proxy_body_size="2k"), tmp_path) as door:
        sent = [http_calls.post(door.url, "/", b"x" * size, {"host": HOST}).status for size in (2048, 2049)]
        assert sent == [200, 413]


def test_tls_hosts_have_their_certificate_and_plain_requests_are_sent_there(
    upstream: Upstream, tmp_path: Path
) -> None:
    asked = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={HOST}"]
    files = ["-out", f"{tmp_path}/certificate.tls.crt", "-keyout", f"{tmp_path}/certificate.tls.key"]
    name = ["-addext", f"subjectAltName=DNS:{HOST}"]
    subprocess.run(["openssl", *asked, *name, *files], capture_output=True, timeout=60, check=True)
    with door_of(upstream, ingress(tls=True), tmp_path) as door:
        plain = http_calls.get(door.url, "/v1", {"host": HOST})
        assert (plain.status, plain.headers["location"]) == (308, f"https://{HOST}:{door.tls_port}/v1")
        trust = ssl.create_default_context(cafile=f"{tmp_path}/certificate.tls.crt")
        with (
            socket.create_connection(("127.0.0.1", door.tls_port), http_calls.TIMEOUT_S) as raw,
            trust.wrap_socket(raw, server_hostname=HOST) as secure,
        ):
            secure.sendall(f"GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
            assert secure.recv(100).startswith(b"HTTP/1.1 200")


def test_an_annotation_that_is_not_honoured_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="rewrite-target: is none of"),
        door_of(upstream, ingress(rewrite_target="/"), tmp_path),
    ):
        pass


def test_an_ingress_of_the_api_server_leads_to_its_pods(
    cluster: Cluster, namespace: Kubectl, tmp_path: Path
) -> None:
    namespace.apply(*restricted_pods.web("demo"), ingress(proxy_buffering="off"))
    with nginx_ingress.serving(namespace, "demo", tmp_path) as door:
        until(lambda: status(door, "/") == 200, "the pod to answer through the Ingress")

"""The aggregated API over real TLS: who gets in, what they are told, and what changes while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drift_operator.cluster.kinds import API_SERVICE
from drift_operator.doors import external_metrics, registering
from drift_operator.doors.external_metrics import GROUP_VERSION, ROOT
from drift_operator.doors.hpa_door import LOOP, ROUND_S, HpaDoor
from drift_operator.doors.pulse import Pulse
from drift_operator.doors.registering import Registration
from drift_operator.options import OperatorOptions
from kept_figures import KeptFigures
from scripted_cluster import ScriptedCluster
from waiting import until

OPTIONS = OperatorOptions(
    engine_image="e",
    router_image="r",
    own_namespace="drift",
    host="127.0.0.1",
    external_metrics_port=0,
    external_metrics_service="metrics",
)
NAME = "metrics.drift.svc"
METRIC = f"{ROOT}/namespaces/ns/{external_metrics.PRESSURE}"
HPA = {"X-Remote-User": "hpa"}
DEADLINE_S = 20
NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs clients' certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "front authority")])
        certificate = self._certificate("front authority", self._key, ca=True)
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, folder: Path, name: str) -> Path:
        """Certificate and key in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = folder / f"{name}-{id(self)}.pem"
        path.write_bytes(
            self._certificate(name, key, ca=False).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path

    def _certificate(self, name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(hours=1))
            .not_valid_after(NOW + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: Any


class Door:
    """The door, a cluster that it is registered in, and clients on threads of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.front = Authority()
        self.api = ScriptedCluster()
        self.api.allowed.add("hpa")
        self.trust(self.front)
        self.figures = KeptFigures()
        self.figures.change("ns", "llm", pressure=0.9, desired_replicas=3, measured_s=time.monotonic())
        self.pulse_s = 0.0
        self.pulse = Pulse(lambda: self.pulse_s)
        self.door = HpaDoor(OPTIONS, self.api, self.figures, self.pulse)

    def trust(self, front: Authority) -> None:
        self.api.front_proxy = {
            "requestheader-client-ca-file": front.pem,
            "requestheader-allowed-names": '["front-proxy"]',
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.door.run())
        try:
            await until(lambda: self.door.port != 0)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def get(
        self,
        path: str,
        headers: Mapping[str, str] = HPA,
        shown: str | None = "front-proxy",
        front: Authority | None = None,
        method: str = "GET",
    ) -> Reply:
        """`shown`: name on the client's certificate, which `front` signs."""
        connection = self.connect(shown, front)
        try:
            return await asyncio.to_thread(ask, connection, path, headers, method)
        finally:
            connection.close()

    def connect(
        self, shown: str | None = "front-proxy", front: Authority | None = None
    ) -> http.client.HTTPSConnection:
        bundle = registering.bundle_of(self.api.objects["Secret", "metrics"])
        assert bundle is not None
        context = ssl.create_default_context(cadata=bundle.authority.decode())
        if shown is not None:
            context.load_cert_chain((front or self.front).issue(self.folder, shown))
        return Connection(self.door.port, context)


class Connection(http.client.HTTPSConnection):
    """To this machine, under the name that the certificate is for."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__("127.0.0.1", port, timeout=DEADLINE_S, context=context)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=NAME)


def ask(
    connection: http.client.HTTPSConnection, path: str, headers: Mapping[str, str], method: str = "GET"
) -> Reply:
    connection.request(method, path, headers=dict(headers))
    answer = connection.getresponse()
    raw = answer.read()
    found = {name.lower(): value for name, value in answer.getheaders()}
    body = json.loads(raw) if found.get("content-type", "").startswith("application/json") else raw
    return Reply(answer.status, found, body)


def run(folder: Path, scenario: Callable[[Door], Coroutine[Any, Any, None]]) -> None:
    async def served() -> None:
        door = Door(folder)
        async with door.serving():
            await scenario(door)

    asyncio.run(served())


def test_an_hpa_gets_its_metric_through_the_front_proxy(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        reply = await door.get(f"{METRIC}?labelSelector=service%3Dllm")
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("application/json")
        assert reply.body["kind"] == "ExternalMetricValueList"
        assert [item["value"] for item in reply.body["items"]] == ["900m"]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/apis", "APIGroupList"), (f"/apis/{external_metrics.GROUP}", "APIGroup"), (ROOT, "APIResourceList")],
)
def test_discovery_is_plain_json_whatever_is_preferred(tmp_path: Path, path: str, kind: str) -> None:
    async def scenario(door: Door) -> None:
        preferred = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        reply = await door.get(path, HPA | {"Accept": preferred})
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.body["kind"] == kind

    run(tmp_path, scenario)


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3"])
def test_its_openapi_documents_are_there(tmp_path: Path, path: str) -> None:
    async def scenario(door: Door) -> None:
        assert (await door.get(path)).body["paths"] == {}

    run(tmp_path, scenario)


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_health_is_for_everybody(tmp_path: Path, path: str) -> None:
    async def scenario(door: Door) -> None:
        assert (await door.get(path, headers={}, shown=None)).status == 200

    run(tmp_path, scenario)


@pytest.mark.parametrize("shown", [None, "admin"], ids=["no certificate", "another name"])
def test_a_user_s_name_counts_from_the_front_proxy_alone(tmp_path: Path, shown: str | None) -> None:
    async def scenario(door: Door) -> None:
        reply = await door.get(METRIC, HPA, shown)
        assert reply.status == 401
        assert (reply.body["kind"], reply.body["reason"]) == ("Status", "Unauthorized")
        assert reply.headers["www-authenticate"] == "Bearer"

    run(tmp_path, scenario)


def test_a_certificate_of_another_authority_ends_the_handshake(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await door.get(METRIC, front=Authority())

    run(tmp_path, scenario)


def test_a_user_who_may_not_is_refused(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        reply = await door.get(METRIC, {"X-Remote-User": "bert"})
        assert (reply.status, reply.body["reason"]) == (403, "Forbidden")

    run(tmp_path, scenario)


def test_a_direct_client_gets_in_with_its_token(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        door.api.tokens["secret"] = {"username": "hpa"}
        assert (await door.get(METRIC, {"Authorization": "Bearer secret"}, None)).status == 200
        assert (await door.get(METRIC, {"Authorization": "Bearer other"}, None)).status == 401

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"{ROOT}/namespaces/ns/queue", 404, "NotFound"),
        (f"{METRIC}?labelSelector=service%3Dother", 404, "NotFound"),
        (f"{METRIC}?labelSelector=service%20in", 400, "BadRequest"),
        (f"{METRIC}?watch=true", 405, "MethodNotAllowed"),
        ("/apis/other", 404, "NotFound"),
    ],
)
def test_refusals_are_status_objects(tmp_path: Path, path: str, status: int, reason: str) -> None:
    async def scenario(door: Door) -> None:
        reply = await door.get(path)
        assert reply.status == reply.body["code"] == status
        assert (reply.body["kind"], reply.body["reason"]) == ("Status", reason)

    run(tmp_path, scenario)


def test_nothing_can_be_written(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        reply = await door.get(METRIC, method="DELETE")
        assert (reply.status, reply.body["reason"]) == (405, "MethodNotAllowed")

    run(tmp_path, scenario)


def test_an_unknown_pressure_is_not_found(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        door.figures.change("ns", "llm", pressure=None)
        assert (await door.get(METRIC)).status == 404

    run(tmp_path, scenario)


def test_while_the_cluster_can_t_be_asked_the_answer_is_503(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        door.api.down = True
        assert (await door.get(METRIC)).status == 503

    run(tmp_path, scenario)


def test_a_new_front_proxy_is_trusted_and_the_old_one_no_more(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        new = Authority()
        door.trust(new)
        await door.door.look()
        assert (await door.get(METRIC, front=new)).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await door.get(METRIC, front=door.front)

    run(tmp_path, scenario)


def test_a_connection_from_before_an_exchange_ends_with_its_next_answer(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        connection = door.connect()
        with contextlib.closing(connection):
            before = await asyncio.to_thread(ask, connection, METRIC, HPA)
            door.trust(Authority())
            await door.door.look()
            after = await asyncio.to_thread(ask, connection, METRIC, HPA)
        assert before.headers.get("connection") != "close"
        assert after.headers.get("connection") == "close"

    run(tmp_path, scenario)


def test_a_new_certificate_is_served_without_a_pause(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        del door.api.objects["Secret", "metrics"]
        await door.door.look()
        assert (await door.get(METRIC)).status == 200

    run(tmp_path, scenario)


def test_a_round_that_fails_changes_nothing(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        door.api.front_proxy = {"requestheader-allowed-names": "nonsense"}
        with pytest.raises(ValueError, match="requestheader-allowed-names"):
            await door.door.look()
        assert (await door.get(METRIC)).status == 200

    run(tmp_path, scenario)


def test_it_stays_shut_where_somebody_else_serves_the_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        door = Door(tmp_path)
        foreign = {
            "metadata": {"name": registering.NAME},
            "spec": {"service": {"name": "keda-metrics", "namespace": "keda"}},
        }
        await door.api.create(API_SERVICE, foreign)
        task = asyncio.create_task(door.door.run())
        await until(lambda: door.door.standing.registration is Registration.FOREIGN)
        assert door.door.port == 0
        assert "keda/keda-metrics" in caplog.text
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())


def test_its_loop_is_watched_while_it_runs(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        door.pulse_s = 5 * ROUND_S
        assert [late.loop for late in door.pulse.late()] == [LOOP]

    run(tmp_path, scenario)


def test_its_resources_are_those_of_its_version(tmp_path: Path) -> None:
    async def scenario(door: Door) -> None:
        assert (await door.get(ROOT)).body["groupVersion"] == GROUP_VERSION

    run(tmp_path, scenario)

"""What the door for HPAs keeps in the cluster: one certificate for all replicas, and an APIService that is ours."""

from __future__ import annotations

import asyncio
import base64
import datetime
from typing import Any

import pytest

from drift_operator.cluster.api import ConflictError
from drift_operator.cluster.kinds import API_SERVICE
from drift_operator.doors import certificates, registering
from drift_operator.doors.certificates import LEAF_LIFE
from drift_operator.doors.registering import Registrar, Registration
from drift_operator.objects.kinds import SECRET
from drift_operator.options import OperatorOptions
from scripted_cluster import ScriptedCluster

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
OPTIONS = OperatorOptions(
    engine_image="e", router_image="r", own_namespace="drift", external_metrics_service="metrics"
)
AUTHORITY = b"PEM"


def api_service_of(**service: Any) -> dict[str, Any]:
    document = registering.api_service(OPTIONS, AUTHORITY)
    document["spec"]["service"] |= service
    return document


def present(api: ScriptedCluster, document: dict[str, Any]) -> None:
    asyncio.run(api.create(API_SERVICE, document))
    api.written.clear()


def test_the_certificate_is_made_once() -> None:
    api = ScriptedCluster()
    registrar = Registrar(api, OPTIONS)
    first = asyncio.run(registrar.certificate(NOW))
    assert asyncio.run(registrar.certificate(NOW)) == first
    assert api.written == ["Secret"]


def test_every_replica_serves_with_the_same() -> None:
    api = ScriptedCluster()
    one, other = (asyncio.run(Registrar(api, OPTIONS).certificate(NOW)) for _ in range(2))
    assert one == other


def test_of_two_that_make_it_at_once_the_later_one_has_to_look_again() -> None:
    api = ScriptedCluster()
    registrar = Registrar(api, OPTIONS)
    document = registering.secret(OPTIONS, certificates.make(["a"], NOW), None)
    asyncio.run(registrar.certificate(NOW))
    with pytest.raises(ConflictError):
        asyncio.run(api.create(SECRET, document))


def test_it_is_renewed_in_its_place() -> None:
    api = ScriptedCluster()
    registrar = Registrar(api, OPTIONS)
    first = asyncio.run(registrar.certificate(NOW))
    renewed = asyncio.run(registrar.certificate(NOW + LEAF_LIFE * 0.7))
    assert renewed.authority == first.authority
    assert renewed.certificate != first.certificate
    assert registering.bundle_of(api.objects["Secret", "metrics"]) == renewed


def test_a_secret_that_changes_meanwhile_is_not_written_over() -> None:
    api = ScriptedCluster()
    asyncio.run(Registrar(api, OPTIONS).certificate(NOW))
    stale = registering.secret(OPTIONS, certificates.make(["a"], NOW), "0")
    with pytest.raises(ConflictError):
        asyncio.run(api.apply(stale))


def test_a_secret_full_of_nonsense_is_no_bundle() -> None:
    assert registering.bundle_of({"data": {"tls.crt": "%%%"}}) is None


def test_the_service_is_registered_with_its_authority() -> None:
    api = ScriptedCluster()
    standing = asyncio.run(Registrar(api, OPTIONS).register(AUTHORITY))
    spec = api.objects["APIService", "v1beta1.external.metrics.k8s.io"]["spec"]
    assert standing.registration is Registration.REGISTERED
    assert spec["service"] == {"name": "metrics", "namespace": "drift", "port": 443}
    assert base64.b64decode(spec["caBundle"]) == AUTHORITY


def test_a_registration_that_is_right_is_not_written_again() -> None:
    api = ScriptedCluster()
    present(api, api_service_of())
    asyncio.run(Registrar(api, OPTIONS).register(AUTHORITY))
    assert not api.written


def test_one_that_the_chart_made_gets_the_authority() -> None:
    api = ScriptedCluster()
    document = api_service_of()
    del document["spec"]["caBundle"]
    present(api, document)
    asyncio.run(Registrar(api, OPTIONS).register(AUTHORITY))
    spec = api.objects["APIService", registering.NAME]["spec"]
    assert base64.b64decode(spec["caBundle"]) == AUTHORITY


@pytest.mark.parametrize(
    "service", [{"name": "keda-metrics-apiserver", "namespace": "keda"}, {"namespace": "drift-2"}]
)
def test_a_group_that_somebody_else_serves_is_left_to_them(service: dict[str, str]) -> None:
    api = ScriptedCluster()
    present(api, api_service_of(**service))
    standing = asyncio.run(Registrar(api, OPTIONS).register(AUTHORITY))
    assert standing.registration is Registration.FOREIGN
    assert service["namespace"] in standing.message
    assert not api.written

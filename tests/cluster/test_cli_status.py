"""`drift status` and `drift explain` before a real API server, with the rights of whoever calls them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import documents
from clusters import Cluster
from drift_cli import main, status
from drift_operator import crd
from kubectl import Kubectl, define

DRIFT_SERVICE = "driftservices.drift.ai"


@pytest.fixture
def services(control_plane: Cluster, namespace: Kubectl, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """A namespace where DriftServices may be, and the user's kubeconfig."""
    define(control_plane.kubectl, crd.build())
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    return namespace


def make(services: Kubectl, name: str, met: str | None = None) -> str:
    """A service whose operator has said whether the promise is kept, or nothing yet. Returns the namespace."""
    document = documents.minimal()
    document["metadata"] = {"name": name}
    (made,) = services.apply(document)
    if met is not None:
        told = {"Ready": ("True", "Serving"), "SLOMet": (met, "Kept" if met == "True" else "Missed")}
        found: dict[str, Any] = {
            **documents.STATUS,
            "observedGeneration": made["metadata"]["generation"],
            "conditions": [
                {
                    "type": kind,
                    "status": truth,
                    "reason": reason,
                    "message": f"{kind}'s message",
                    "lastTransitionTime": "2026-01-31T12:00:00Z",
                }
                for kind, (truth, reason) in told.items()
            ],
        }
        services.patch(DRIFT_SERVICE, name, {"status": found}, subresource="status")
    namespace: str = made["metadata"]["namespace"]
    return namespace


@pytest.mark.parametrize(
    ("met", "code", "verdict"),
    [("True", 0, "promise kept"), ("False", 1, "promise broken"), (None, 1, "not looked at yet")],
)
def test_a_page_about_a_service(
    services: Kubectl, met: str | None, code: int, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = make(services, "chat", met)
    assert main.main(["status", "chat", "-n", namespace]) == code
    assert capsys.readouterr().out.startswith(f"chat in namespace {namespace}: {verdict}\n")


def test_a_table_of_a_namespace(services: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = make(services, "chat", "True")
    make(services, "code", "False")
    assert main.main(["status", "-n", namespace]) == 1
    _, chat, code = capsys.readouterr().out.splitlines()
    assert chat.split()[:4] == [namespace, "chat", "promise", "kept"]
    assert code.split()[:4] == [namespace, "code", "promise", "broken"]


def test_all_namespaces_as_data(services: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = make(services, "chat", "True")
    main.main(["status", "-A", "--json"])
    found = json.loads(capsys.readouterr().out)["services"]
    assert (namespace, "chat") in {(each["namespace"], each["name"]) for each in found}


def test_decisions_are_explained(services: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = make(services, "chat", "True")
    assert main.main(["explain", "chat", "-n", namespace]) == 0
    shown = capsys.readouterr().out
    assert documents.STATUS["decisions"][0]["reason"] in shown
    assert "what would move each lever next:" in shown


def test_a_service_that_is_not_there(services: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "nobody", "-n", "default"]) == status.NOTHING_TO_SEE
    assert capsys.readouterr().err == f'drift: NotFound: {DRIFT_SERVICE} "nobody" not found\n'


def test_a_namespace_without_services(services: Kubectl, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["status", "-n", "kube-public"]) == status.NOTHING_TO_SEE
    assert capsys.readouterr().err == "drift: there is no DriftService in namespace kube-public\n"

"""The chart before a real API server: objects that it takes, rights that suffice, and none beyond them."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import documents
import helm
from clusters import Cluster
from drift_operator import crd, manifests
from drift_operator.objects import service as service_objects
from drift_operator.objects.facts import Facts
from drift_operator.options import OperatorOptions
from kubectl import Kubectl, KubectlError, define, until

DEFINITION = crd.build()["metadata"]["name"]


@pytest.fixture(scope="module")
def admin(control_plane: Cluster) -> Kubectl:
    """Of a cluster that knows DriftServices."""
    define(control_plane.kubectl, crd.build())
    return control_plane.kubectl


@contextlib.contextmanager
def fresh(admin: Kubectl) -> Iterator[str]:
    """A namespace under the restricted Pod Security Standard."""
    name = f"chart-{secrets.token_hex(4)}"
    admin("create", "namespace", name)
    try:
        admin("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name
    finally:
        admin.delete("namespace", name, wait=False)


@pytest.fixture(scope="module")
def home(admin: Kubectl) -> Iterator[str]:
    with fresh(admin) as name:
        yield name


def apply(admin: Kubectl, objects: Sequence[helm.Object], *, dry_run: bool = False) -> int:
    """How many the API server took. A kubectl has one namespace at a time."""
    places = {item["metadata"].get("namespace", "default") for item in objects}
    taken = 0
    for place in sorted(places):
        here = [item for item in objects if item["metadata"].get("namespace", "default") == place]
        taken += len(admin.within(place).apply(*here, dry_run=dry_run))
    return taken


def account(control_plane: Cluster, namespace: str, name: str, folder: Path) -> Path:
    """A kubeconfig of a ServiceAccount."""
    token = control_plane.kubectl.within(namespace)("create", "token", name).strip()
    settings = yaml.safe_load(control_plane.kubeconfig.read_text())
    (user,) = settings["users"]
    user["user"] = {"token": token}
    file = folder / f"{name}.kubeconfig"
    file.write_text(yaml.safe_dump(settings))
    return file


# what the API server says to the objects ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {},
        {
            "replicas": 2,
            "externalMetrics": {"enabled": True},
            "monitoring": {"dashboards": {"enabled": True}},
        },
        {"watch": {"namespaces": ["NAMESPACE"]}, "commonLabels": {"team": "serving"}},
        {
            "imagePullSecrets": [{"name": "registry"}],
            "tolerations": [{"operator": "Exists"}],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "networkPolicy": {"from": [{"podSelector": {}}], "apiServer": {"cidrs": ["10.0.0.1/32"]}},
            "test": {"service": "chat", "apiKeySecretRef": {"name": "keys", "key": "me"}},
        },
    ],
    ids=["defaults", "all doors", "namespaced", "placed"],
)
def test_every_object_is_accepted(admin: Kubectl, home: str, values: helm.Values) -> None:
    given = json.loads(json.dumps(values).replace("NAMESPACE", home))
    objects = [item for item in helm.render(given, namespace=home) if item["kind"] != "Pod"]
    assert apply(admin, objects, dry_run=True) == len(objects)


def test_every_pod_is_admitted_where_pods_are_restricted(admin: Kubectl, home: str) -> None:
    """Of Deployments and Jobs the API server only warns."""
    specs = helm.pods(helm.render(namespace=home))
    accounts = {spec["serviceAccountName"] for spec in specs.values()}
    for name in accounts:
        admin.within(home)("create", "serviceaccount", name)
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": home}, "spec": spec}
        for name, spec in specs.items()
    ]
    try:
        apply(admin, pods, dry_run=True)
    finally:
        admin.within(home)("delete", "serviceaccount", *accounts)


# the operator's rights -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Release:
    namespace: str
    notes: str


@contextlib.contextmanager
def released(control_plane: Cluster, namespace: str, values: helm.Values) -> Iterator[Release]:
    """Without hooks and without waiting for pods: their images are not needed here."""
    where = (f"--namespace={namespace}", "--no-hooks")
    kubeconfig = control_plane.kubeconfig
    done = helm.call(
        *("install", "drift", str(helm.CHART), *where, "--skip-crds"), values=values, kubeconfig=kubeconfig
    )
    assert done.returncode == 0, done.stderr
    try:
        yield Release(namespace, done.stdout.partition("NOTES:\n")[2])
    finally:
        done = helm.call("uninstall", "drift", *where, kubeconfig=kubeconfig)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def everywhere(control_plane: Cluster, admin: Kubectl) -> Iterator[Release]:
    with fresh(admin) as namespace, released(control_plane, namespace, {"replicas": 2}) as release:
        yield release


@pytest.fixture(scope="module")
def at_home(control_plane: Cluster, admin: Kubectl) -> Iterator[Release]:
    with fresh(admin) as namespace:
        values = {
            "watch": {"namespaces": [namespace]},
            "crds": {"upgrade": False},
            "rbac": {"aggregate": False},
        }
        with released(control_plane, namespace, values) as release:
            yield release


Right = tuple[str, str, str]
"""Verb, resource with its group (core: none) and subresource, namespace."""


def denied(admin: Kubectl, release: Release, rights: Sequence[Right]) -> set[Right]:
    """Those of the rights that the operator's account does not have."""
    user = f"system:serviceaccount:{release.namespace}:drift-operator"
    reviews = []
    for verb, resource, namespace in rights:
        plural, _, group = resource.partition(".")
        plural, _, sub = plural.partition("/")
        plural, _, name = plural.partition(" ")
        asked = {"verb": verb, "resource": plural, "group": group, "namespace": namespace}
        reviews.append(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": user,
                    "groups": ["system:serviceaccounts", "system:authenticated"],
                    "resourceAttributes": asked | {"subresource": sub, "name": name},
                },
            }
        )
    said = admin(
        *("create", "-f", "-", "-o", 'go-template={{.status.allowed}}{{"\\n"}}'),
        text=yaml.safe_dump_all(reviews),
    )
    answers = said.split()
    assert len(answers) == len(rights)
    return {right for right, allowed in zip(rights, answers, strict=True) if allowed != "true"}


OWNED = [
    *("deployments.apps", "services", "serviceaccounts", "configmaps", "poddisruptionbudgets.policy"),
    *("ingresses.networking.k8s.io", "networkpolicies.networking.k8s.io"),
    *("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"),
    *("horizontalpodautoscalers.autoscaling", "scaledobjects.keda.sh"),
    *("podmonitors.monitoring.coreos.com", "prometheusrules.monitoring.coreos.com"),
]


def needed(namespace: str) -> list[Right]:
    verbs = {
        **dict.fromkeys(OWNED, "get list watch create patch delete"),
        "driftservices.drift.ai": "get list watch",
        "driftservices/status.drift.ai": "patch",
        "driftservices/finalizers.drift.ai": "update",
        "pods": "get list watch patch delete",
        "secrets": "get create",
        "events": "create",
        "endpointslices.discovery.k8s.io": "get list watch",
    }
    return [(verb, resource, namespace) for resource, found in verbs.items() for verb in found.split()]


def needless(namespace: str) -> list[Right]:
    verbs = {
        "secrets": "list watch patch update delete deletecollection",
        "driftservices.drift.ai": "create patch update delete deletecollection",
        "driftservices/scale.drift.ai": "update patch",
        "pods": "create deletecollection",
        "pods/exec": "create",
        "pods/log": "get",
        "serviceaccounts/token": "create",
        "clusterroles.rbac.authorization.k8s.io": "get create bind escalate",
        "roles.rbac.authorization.k8s.io": "bind escalate",
        "nodes": "get list",
        "persistentvolumeclaims": "get create",
        "daemonsets.apps": "create",
        "customresourcedefinitions.apiextensions.k8s.io": "create patch update delete",
        "endpointslices.discovery.k8s.io": "create patch",
        "users": "impersonate",
    }
    return [(verb, resource, namespace) for resource, found in verbs.items() for verb in found.split()]


def lease(release: Release, name: str) -> list[Right]:
    return [(verb, f"leases {name}.coordination.k8s.io", release.namespace) for verb in ("get", "patch")]


def test_operator_has_the_rights_that_it_needs_in_every_namespace(
    admin: Kubectl, everywhere: Release
) -> None:
    rights = [*needed("default"), *needed(everywhere.namespace), *lease(everywhere, "drift-operator")]
    rights += [("create", "leases.coordination.k8s.io", everywhere.namespace)]
    rights += [("watch", "namespaces", ""), ("watch", "customresourcedefinitions.apiextensions.k8s.io", "")]
    assert denied(admin, everywhere, rights) == set()


def test_operator_has_no_right_that_it_does_not_need(admin: Kubectl, everywhere: Release) -> None:
    rights = [*needless("default"), *needless(everywhere.namespace), *lease(everywhere, "of-somebody-else")]
    rights += [("create", "leases.coordination.k8s.io", "default")]
    assert denied(admin, everywhere, rights) == set(rights)


def test_operator_of_one_namespace_has_its_rights_there(admin: Kubectl, at_home: Release) -> None:
    rights = [*needed(at_home.namespace), *lease(at_home, "drift-operator")]
    assert denied(admin, at_home, rights) == set()


def test_operator_of_one_namespace_has_none_elsewhere(admin: Kubectl, at_home: Release) -> None:
    rights = [*needed("default"), *needed(""), *needless(at_home.namespace)]
    rights += [("list", "namespaces", ""), ("list", "customresourcedefinitions.apiextensions.k8s.io", "")]
    assert denied(admin, at_home, rights) == set(rights)


def test_operator_may_give_routers_the_rights_that_they_need_and_no_others(
    admin: Kubectl, at_home: Release
) -> None:
    """Nobody can give away rights that he lacks: the API server checks that when a Role is made."""
    operator = admin.within(at_home.namespace).acting_as(
        f"system:serviceaccount:{at_home.namespace}:drift-operator", "system:authenticated"
    )
    options = OperatorOptions(engine_image="e", router_image="r", own_namespace=at_home.namespace)
    document = documents.minimal()
    document["metadata"]["namespace"] = at_home.namespace
    service = manifests.parse(document)
    made = [
        copy.deepcopy(item)
        for item in service_objects.build(service, options, Facts("uid", "", 1, 1))
        if "Role" in item["kind"]
    ]
    for item in made:
        item["metadata"].pop("ownerReferences")
    assert [item["kind"] for item in operator.apply(*made)] == ["Role", "RoleBinding"]
    made[0]["rules"][0]["verbs"].append("delete")
    with pytest.raises(KubectlError, match="attempting to grant RBAC permissions not currently held"):
        operator.apply(made[0])


@pytest.mark.parametrize(("role", "verb"), [("view", "list"), ("edit", "create"), ("admin", "create")])
def test_who_may_edit_a_namespace_may_make_services_there(
    admin: Kubectl, everywhere: Release, role: str, verb: str
) -> None:
    def verbs() -> set[str]:
        found = admin.get("clusterrole", role) or {"rules": []}
        return {
            verb for rule in found["rules"] if "driftservices" in rule["resources"] for verb in rule["verbs"]
        }

    until(lambda: verb in verbs(), f"a controller to let {role} {verb} services")


# what the release says -----------------------------------------------------------------------------------------


def test_notes_end_with_a_request_to_a_sound_service(at_home: Release) -> None:
    (document,) = re.findall(r"<<EOF\n(.*?)\nEOF\n", at_home.notes, re.S)
    (service,) = manifests.read(document)
    assert f"--namespace {at_home.namespace}" in at_home.notes
    *_, first, second = at_home.notes.rstrip().splitlines()
    assert first.startswith("curl http://127.0.0.1:8000/v1/chat/completions")
    asked = json.loads(re.findall(r"-d '(.*)'", second)[0])
    assert asked["model"] == service.served_name


# what runs in hooks --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hook_accounts(admin: Kubectl, namespace: str, name: str) -> Iterator[None]:
    """The account of a hook with its rights, as Helm makes them before the hook runs."""
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    made = [
        item
        for item in helm.render(namespace=namespace)
        if item["kind"] in kinds and item["metadata"]["name"].endswith(name)
    ]
    assert len(made) == 3
    apply(admin, made)
    try:
        yield
    finally:
        admin.within(namespace)("delete", "--wait=false", "-f", "-", text=yaml.safe_dump_all(made))


def program(module: str, kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def columns(admin: Kubectl) -> list[str]:
    found = admin.get("crd", DEFINITION)
    assert found is not None
    return [column["name"] for column in found["spec"]["versions"][0]["additionalPrinterColumns"]]


def test_upgrade_brings_an_old_definition_up_to_date(
    control_plane: Cluster, admin: Kubectl, home: str, tmp_path: Path
) -> None:
    wanted = columns(admin)
    old: dict[str, Any] = copy.deepcopy(crd.build())
    old["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    admin.apply(old, manager="helm")
    assert columns(admin) != wanted
    with hook_accounts(admin, home, "-crds"):
        kubeconfig = account(control_plane, home, "drift-operator-crds", tmp_path)
        done = program("drift_operator.installing", kubeconfig)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"applied": DEFINITION}
    assert columns(admin) == wanted


def test_upgrade_without_the_rights_says_so(control_plane: Cluster, home: str, tmp_path: Path) -> None:
    done = program("drift_operator.installing", account(control_plane, home, "default", tmp_path))
    assert done.returncode == 1
    assert "customresourcedefinitions" in done.stderr
    assert "Traceback" not in done.stderr


class Chat(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.dumps({"choices": [{"message": {"content": "A server."}}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def chat() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def play_operator(admin: Kubectl, stopped: threading.Event) -> None:
    """Calls every service ready."""
    condition = documents.STATUS["conditions"][0] | {"type": "Ready", "status": "True"}
    status = {"observedGeneration": 1, "conditions": [condition]}
    while not stopped.wait(0.2):
        for service in admin.list("driftservices"):
            with contextlib.suppress(KubectlError):  # it may be gone by now
                admin.patch(
                    "driftservice", service["metadata"]["name"], {"status": status}, subresource="status"
                )


def test_test_gets_its_answer_with_the_rights_that_it_has(
    control_plane: Cluster, admin: Kubectl, home: str, tmp_path: Path
) -> None:
    (container,) = helm.pods(helm.render(namespace=home))["drift-operator-test"]["containers"]
    stopped = threading.Event()
    operator = threading.Thread(target=play_operator, args=(admin.within(home), stopped))
    with chat() as url, hook_accounts(admin, home, "-test"):
        operator.start()
        try:
            kubeconfig = account(control_plane, home, "drift-operator-test", tmp_path)
            done = program(container["command"][-1], kubeconfig, *container["args"], f"--url={url}")
        finally:
            stopped.set()
            operator.join()
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("What is Drift?\nA server.\n")
    assert admin.within(home).list("driftservices") == []

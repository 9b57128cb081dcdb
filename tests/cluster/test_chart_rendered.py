"""The Helm chart: what it renders and what it refuses. `test_chart` has an API server judge it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import documents
import helm
from drift_operator import crd, manifests, options
from drift_operator.cluster import leader
from drift_operator.doors import console, figures, metrics, registering
from drift_operator.doors.certificates import Bundle
from drift_operator.objects import names

pytestmark = pytest.mark.usefixtures("built")
"""Helm is built with Kubernetes."""

POD_MONITOR, PROMETHEUS_RULE = (
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)
NAMESPACED = {"watch": {"namespaces": ["team-a", "team-b"]}}
NO_CLUSTER_RIGHTS = {**NAMESPACED, "crds": {"upgrade": False}, "rbac": {"aggregate": False}}
METRICS = {"externalMetrics": {"enabled": True}}
MONITORED = {"monitoring": {"dashboards": {"enabled": True}}}
CONSOLE = {"console": {"hosts": ["drift.example.com"], "tokenSecretRef": {"name": "console", "key": "token"}}}
CASES: dict[str, helm.Values] = {
    "defaults": {},
    "namespaced": NAMESPACED,
    "without cluster rights": NO_CLUSTER_RIGHTS,
    "external metrics": METRICS,
    "monitored": MONITORED,
    "console": CONSOLE,
    "two replicas": {"replicas": 2},
    "all at once": {
        **METRICS,
        **MONITORED,
        "replicas": 2,
        "image": {"registry": "registry.example.com/team", "operator": {"digest": f"sha256:{'0' * 64}"}},
        "imagePullSecrets": [{"name": "registry"}],
        "commonLabels": {"team": "serving"},
        "podLabels": {"tier": "control"},
        "podAnnotations": {"example.com/a": "b"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "networkPolicy": {"from": [{"podSelector": {}}], "apiServer": {"cidrs": ["10.0.0.1/32"]}},
        "serviceAccount": {"annotations": {"example.com/role": "none"}},
    },
}
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "APIService"}


def rendered(name: str) -> list[helm.Object]:
    return helm.render(CASES[name], kinds=(POD_MONITOR, PROMETHEUS_RULE))


@pytest.fixture(params=CASES)
def objects(request: pytest.FixtureRequest) -> list[helm.Object]:
    return rendered(request.param)


# what belongs together -----------------------------------------------------------------------------------------


def test_definition_in_the_chart_is_the_generated_one() -> None:
    file = helm.CHART / "crds" / "driftservices.drift.ai.yaml"
    assert file.read_text() == crd.render(), (
        f"run: cp crds/{file.name} {file.relative_to(documents.REPOSITORY)}"
    )


def test_chart_has_the_version_of_the_project() -> None:
    project = tomllib.loads((documents.REPOSITORY / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (project["version"], project["version"])


def test_examples_of_the_chart_are_sound() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    (example,) = yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"])
    assert manifests.parse(example).served_name == "drift-tiny"


# values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_linter_has_nothing_to_say(name: str) -> None:
    done = helm.lint(CASES[name])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"replica": 1}, "replica"),
        ({"replicas": 3}, "/replicas"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"image": {"operator": {"tagg": "1"}}}, "tagg"),
        ({"image": {"engine": {"digest": "sha256:abc"}}}, "/image/engine/digest"),
        ({"watch": {"namespaces": ["Team"]}}, "/watch/namespaces/0"),
        ({"watch": {"namespaces": ["a", "a"]}}, "/watch/namespaces"),
        ({"externalMetrics": {"port": 80}}, "/externalMetrics/port"),
        ({"externalMetrics": {"port": 8080}}, "/externalMetrics/port"),
        ({"monitoring": {"podMonitor": {"mode": "auto"}}}, "/monitoring/podMonitor/mode"),
        ({"log": {"level": "verbose"}}, "/log/level"),
        ({"resources": {"limits": {"memory": "256 MB"}}}, "/resources/limits/memory"),
        ({"networkPolicy": {"from": [{"pods": {}}]}}, "/networkPolicy/from/0"),
        ({"test": {"apiKeySecretRef": {"name": "keys"}}}, "/test/apiKeySecretRef"),
        ({"fullnameOverride": "Drift"}, "/fullnameOverride"),
        ({"clusterName": "$(HOME)"}, "/clusterName"),
    ],
    ids=str,
)
def test_values_that_can_not_be_meant_are_refused(values: helm.Values, place: str) -> None:
    done = helm.lint(values)
    assert done.returncode != 0
    assert place in done.stdout + done.stderr


def leaves(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}")
    else:
        yield path[1:]


def test_schema_tells_of_every_value_and_of_no_other() -> None:
    def declared(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        if "$ref" in schema:
            schema = whole["definitions"][schema["$ref"].rsplit("/", 1)[1]]
        if not schema.get("properties"):
            yield path[1:]
        for key, item in schema.get("properties", {}).items():
            yield from declared(item, f"{path}.{key}")

    whole = json.loads((helm.CHART / "values.schema.json").read_text())
    given = set(leaves(yaml.safe_load((helm.CHART / "values.yaml").read_text())))
    wanted = set(declared(whole)) - {"global"}  # Helm's own, where this chart is part of another
    free = {
        "podSecurityContext",
        "test.spec",
        "monitoring.dashboards.labels",
        "resources.requests",
        "resources.limits",
    }
    references = {"test.apiKeySecretRef", "console.tokenSecretRef"}
    assert {path for path in given if not path.startswith(tuple(free))} == {
        path for path in wanted if path not in free and path.rpartition(".")[0] not in references
    } | references


def test_chart_may_be_part_of_another() -> None:
    assert helm.lint({"global": {"anything": 1}}).returncode == 0


# the operator --------------------------------------------------------------------------------------------------


def asked(objects: list[helm.Object]) -> options.OperatorOptions:
    (container,) = helm.find(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "drift_operator"]
    flag, document = container["args"]
    assert flag == "--options"
    return options.parse(document)


def test_options_are_those_of_the_operator(objects: list[helm.Object]) -> None:
    given = asked(objects)
    assert given.own_namespace == "drift-system"
    assert given.identity == "$(POD_ID)"
    assert given.port == 8080


def test_values_become_options() -> None:
    values = {
        **NAMESPACED,
        **METRICS,
        "image": {
            "registry": "registry.example.com/team/",
            "tag": "1.2.3",
            "pullPolicy": "Never",
            "router": {"tag": "1.2.4"},
            "engine": {"repository": "engines/drift", "digest": f"sha256:{'a' * 64}"},
        },
        "services": {"imagePullSecrets": ["registry"]},
        "clusterName": "paris",
        "log": {"level": "debug"},
        "fullnameOverride": "serving",
        "networkPolicy": {"apiServer": {"ports": [16443]}},
        "console": {"hosts": ["drift.example.com"]},
    }
    assert asked(helm.render(values)) == options.OperatorOptions(
        engine_image=f"registry.example.com/team/engines/drift:1.2.3@sha256:{'a' * 64}",
        router_image="registry.example.com/team/drift-router:1.2.4",
        image_pull_policy="Never",
        image_pull_secrets=("registry",),
        namespaces=("team-a", "team-b"),
        own_namespace="drift-system",
        identity="$(POD_ID)",
        lease="serving",
        console_hosts=("drift.example.com",),
        service="serving",
        external_metrics_port=8443,
        external_metrics_service="serving-metrics",
        api_server_ports=(16443,),
        cluster_name="paris",
        log_level="debug",
    )


def test_images_are_of_the_chart_s_release_unless_told() -> None:
    given = asked(rendered("defaults"))
    version = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())["appVersion"]
    assert (given.engine_image, given.router_image) == (f"drift-engine:{version}", f"drift-router:{version}")


def test_every_pod_runs_the_operator_s_image_where_it_is_told_to() -> None:
    for spec in helm.pods(rendered("all at once")).values():
        (container,) = spec["containers"]
        assert container["image"] == f"registry.example.com/team/drift-operator:0.1.0@sha256:{'0' * 64}"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_every_pod_is_restricted(objects: list[helm.Object]) -> None:
    for name, spec in helm.pods(objects).items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
            assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp"}, name


def test_new_operator_stands_by_before_an_old_one_goes(objects: list[helm.Object]) -> None:
    strategy = helm.find(objects, "Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_two_operators_are_not_evicted_at_once() -> None:
    assert not [item for item in rendered("defaults") if item["kind"] == "PodDisruptionBudget"]
    assert helm.find(rendered("two replicas"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_services_lead_to_the_leader(objects: list[helm.Object]) -> None:
    for item in objects:
        if item["kind"] == "Service":
            assert item["spec"]["selector"][leader.LABEL] == "true"


def test_selectors_find_the_operator_and_no_hook(objects: list[helm.Object]) -> None:
    deployment = helm.find(objects, "Deployment", "drift-operator")
    own = deployment["spec"]["template"]["metadata"]["labels"]
    own |= {leader.LABEL: "true"}
    job = helm.find(objects, "Pod", "drift-operator-test")["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        *(item["spec"]["selector"] for item in objects if item["kind"] == "Service"),
        helm.find(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= own.items()
        assert not selector.items() <= job.items()


# rights --------------------------------------------------------------------------------------------------------


def rules(objects: list[helm.Object]) -> list[dict[str, Any]]:
    return [rule for item in objects if item["kind"] in ("Role", "ClusterRole") for rule in item["rules"]]


def test_no_rule_has_a_wildcard_or_lists_secrets(objects: list[helm.Object]) -> None:
    for rule in rules(objects):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        if "secrets" in rule["resources"]:
            assert not {"list", "watch", "deletecollection"} & set(rule["verbs"])
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_operator_of_some_namespaces_has_no_right_elsewhere() -> None:
    objects = helm.render(NO_CLUSTER_RIGHTS)
    assert not [item for item in objects if item["kind"] in CLUSTER_WIDE]
    roles = {item["metadata"]["namespace"]: item["rules"] for item in objects if item["kind"] == "Role"}
    assert set(roles) == {"team-a", "team-b", "drift-system"}
    at_home = {resource for rule in roles["drift-system"] for resource in rule["resources"]}
    assert at_home == {"leases", "pods"}


def test_cluster_wide_objects_are_told_apart_by_the_release_s_namespace() -> None:
    here, there = (
        {
            (item["kind"], item["metadata"]["name"])
            for item in helm.render(METRICS, namespace=namespace)
            if item["kind"] in CLUSTER_WIDE - {"APIService"}
            or item["metadata"].get("namespace") == "kube-system"
        }
        for namespace in ("one", "two")
    )
    assert here
    assert not here & there


def test_every_binding_names_a_role_and_an_account_that_are_there(objects: list[helm.Object]) -> None:
    made = {
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects
    } | {
        ("ClusterRole", None, "system:auth-delegator"),
        ("Role", "kube-system", "extension-apiserver-authentication-reader"),
        ("ServiceAccount", "kube-system", "horizontal-pod-autoscaler"),
    }
    for item in objects:
        if item["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            assert (
                item["roleRef"]["kind"],
                item["metadata"].get("namespace"),
                item["roleRef"]["name"],
            ) in made
            for subject in item["subjects"]:
                assert (subject["kind"], subject["namespace"], subject["name"]) in made


def test_accounts_may_be_made_by_others() -> None:
    objects = helm.render(
        {"rbac": {"create": False}, "serviceAccount": {"create": False, "name": "theirs"}}, hooks=False
    )
    assert helm.find(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"
    assert not {item["kind"] for item in objects} & {"ServiceAccount", "Role", "RoleBinding", "ClusterRole"}


def test_account_without_a_name_is_refused() -> None:
    done = helm.lint({"serviceAccount": {"create": False}})
    assert "serviceAccount.name is required" in done.stdout + done.stderr


# around the operator -------------------------------------------------------------------------------------------


def reached(policy: helm.Object) -> set[tuple[str, int]]:
    return {
        (peer["podSelector"]["matchLabels"][names.COMPONENT], port["port"])
        for rule in policy["spec"]["egress"]
        for peer in rule.get("to", ())
        if "podSelector" in peer
        for port in rule["ports"]
    }


def test_network_lets_the_operator_reach_nodes_and_routers_only() -> None:
    policy = helm.find(rendered("defaults"), "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert reached(policy) == {(names.NODE, names.CONTROL_PORT), (names.ROUTER, names.ADMIN_PORT)}


def test_console_asks_services_only_with_a_token_of_its_own() -> None:
    objects = rendered("console")
    policy = helm.find(objects, "NetworkPolicy")
    assert (names.ROUTER, names.CLIENT_PORT) in reached(policy)
    (container,) = helm.find(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    found = [each["valueFrom"] for each in container["env"] if each["name"] == console.TOKEN_VARIABLE]
    assert found == [{"secretKeyRef": {"name": "console", "key": "token"}}]


def test_network_of_some_namespaces_ends_there() -> None:
    policy = helm.find(rendered("namespaced"), "NetworkPolicy")["spec"]
    selectors = [
        peer["namespaceSelector"]
        for rule in policy["egress"]
        for peer in rule.get("to", ())
        if "podSelector" in peer
    ]
    wanted = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a", "team-b"]}
    assert selectors == [{"matchExpressions": [wanted]}] * 2


def test_hpa_s_door_is_shut_unless_asked_for() -> None:
    shut, opened = rendered("defaults"), rendered("external metrics")
    assert not [item for item in shut if item["kind"] == "APIService"]
    service = helm.find(opened, "APIService")["spec"]["service"]
    assert helm.find(opened, "Service", service["name"])["spec"]["ports"] == [
        {"name": "https", "port": service["port"], "targetPort": "metrics-api"}
    ]
    assert asked(opened).external_metrics_service == service["name"]


def test_hpa_s_door_has_rights_for_what_it_writes_and_finds_itself_registered() -> None:
    objects = rendered("external metrics")
    given = asked(objects)
    assert registering.is_ours(helm.find(objects, "APIService"), given)
    named = {
        name
        for rule in rules(objects)
        if {"secrets", "apiservices"} & set(rule["resources"])
        for name in rule.get("resourceNames", ())
    }
    secret = registering.secret(given, Bundle(b"", b"", b"", b""), None)
    assert named == {secret["metadata"]["name"], registering.NAME}
    ours = registering.api_service(given, b"")["spec"]
    ours.pop("caBundle")
    assert helm.find(objects, "APIService")["spec"] == ours


@pytest.mark.parametrize(
    ("kind", "key"), [("PodMonitor", "podMonitor"), ("PrometheusRule", "prometheusRule")]
)
@pytest.mark.parametrize(
    ("mode", "known", "made"),
    [("Auto", True, 1), ("Auto", False, 0), ("Enabled", False, 1), ("Disabled", True, 0)],
)
def test_monitoring_follows_what_the_cluster_knows(
    kind: str, key: str, mode: str, known: bool, made: int
) -> None:
    kinds = [f"monitoring.coreos.com/v1/{kind}"] if known else []
    objects = helm.render({"monitoring": {key: {"mode": mode}}}, kinds=kinds)
    assert len([item for item in objects if item["kind"] == kind]) == made


def test_dashboards_are_found_by_grafana_s_sidecar() -> None:
    maps = [item for item in rendered("monitored") if item["kind"] == "ConfigMap"]
    assert {name for item in maps for name in item["data"]} == {"drift-operator.json", "drift-services.json"}
    for item in maps:
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize(
    "file", sorted((helm.CHART / "dashboards").glob("*.json")), ids=lambda file: file.stem
)
def test_dashboards_are_whole(file: Any) -> None:
    board = json.loads(file.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?(?!__)(\w+)", file.read_text())) <= variables


class OneService:
    """Figures of a service that has them all."""

    def lookup(self, namespace: str, name: str) -> figures.ServiceFigures | None:
        raise NotImplementedError

    def all(self) -> list[figures.ServiceFigures]:
        target = figures.TargetFigures(400, 0.99, attainment=1, burn_rates={"1m": 0})
        return [figures.ServiceFigures("team", "demo", 0, 0.5, 2, 2, target, target, feasible=True)]


def exported() -> set[str]:
    """Names of everything that an operator tells Prometheus."""
    told = metrics.Metrics(OneService(), clock=lambda: 0)
    told.reconciled(("team", "demo"), 0.1, metrics.Outcome.CHANGED)
    told.decided(("team", "demo"), "split", "Burning")
    told.watch_restarted("pods")
    return set(re.findall(r"^(drift_\w+)", told.render().decode(), re.M))


def test_dashboards_and_alerts_ask_for_metrics_that_there_are() -> None:
    objects = rendered("monitored")
    told = [text for item in objects if item["kind"] == "ConfigMap" for text in item["data"].values()]
    told += [rule["expr"] for rule in helm.find(objects, "PrometheusRule")["spec"]["groups"][0]["rules"]]
    asked = {
        name for text in told for name in re.findall(r"\bdrift_(?:operator|slo|desired|present)\w+", text)
    }
    assert len(asked) > 10
    assert asked <= exported()


def test_labels_of_all_reach_all() -> None:
    for item in rendered("all at once"):
        assert item["metadata"]["labels"]["team"] == "serving", item["metadata"]["name"]


def test_further_objects_are_templates() -> None:
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one"}}
    two = 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include "drift.name" . }}-two\n'
    objects = helm.render({"extraObjects": [one, two]})
    assert {item["metadata"]["name"] for item in objects if item["kind"] == "ConfigMap"} == {
        "drift-one",
        "drift-operator-two",
    }


# hooks ---------------------------------------------------------------------------------------------------------


def test_hooks_leave_nothing_behind(objects: list[helm.Object]) -> None:
    for item in objects:
        notes = item["metadata"].get("annotations") or {}
        if "helm.sh/hook" in notes:
            assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


def test_definition_is_applied_before_the_operator_that_needs_it() -> None:
    job = helm.find(rendered("defaults"), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "drift_operator.installing"]
    role = helm.find(rendered("defaults"), "ClusterRole", "drift-system:drift-operator-crds")
    assert role["rules"] == [
        {
            "apiGroups": ["apiextensions.k8s.io"],
            "resources": ["customresourcedefinitions"],
            "resourceNames": [crd.build()["metadata"]["name"]],
            "verbs": ["get", "create", "patch"],
        }
    ]


def arguments(objects: list[helm.Object]) -> dict[str, str]:
    (container,) = helm.pods(objects)["drift-operator-test"]["containers"]
    assert container["command"] == ["python", "-m", "drift_operator.smoke"]
    return dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])


def test_test_makes_a_service_that_is_sound() -> None:
    given = arguments(rendered("defaults"))
    document = documents.minimal() | {"spec": json.loads(given["spec"])}
    assert manifests.parse(document).spec.model.uri == "embedded://drift-tiny"
    assert given["namespace"] == "drift-system"


def test_test_asks_where_services_are_served() -> None:
    objects = rendered("namespaced")
    assert arguments(objects)["namespace"] == "team-a"
    assert helm.find(objects, "Pod")["metadata"]["namespace"] == "team-a"


def test_test_of_a_service_that_is_there_may_only_look() -> None:
    values = {
        "test": {"service": "chat", "namespace": "team", "apiKeySecretRef": {"name": "keys", "key": "me"}}
    }
    objects = helm.render(values)
    assert "spec" not in arguments(objects)
    role = next(
        item for item in objects if item["kind"] == "Role" and item["metadata"]["namespace"] == "team"
    )
    assert [(rule["verbs"], rule["resourceNames"]) for rule in role["rules"]] == [(["get"], ["chat"])]
    (container,) = helm.pods(objects)["drift-operator-test"]["containers"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "keys", "key": "me"}

"""External metrics as documents: a value where it is known, and never a zero where it isn't."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_operator.doors import external_metrics, label_selectors
from drift_operator.doors.external_metrics import DESIRED_REPLICAS, PRESSURE, Access, Refused
from drift_operator.doors.figures import STALE_S, ServiceFigures
from kept_figures import KeptFigures

NOW_S = 1000.0
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def figures(name: str = "a", namespace: str = "ns", **changes: Any) -> ServiceFigures:
    known: dict[str, Any] = {"measured_s": NOW_S - 2, "pressure": 0.9, "desired_replicas": 3}
    return ServiceFigures(namespace, name, **(known | changes))


def values(*services: ServiceFigures, metric: str = PRESSURE, selector: str = "") -> list[dict[str, Any]]:
    document = external_metrics.values(
        KeptFigures(*services), "ns", metric, label_selectors.parse(selector), now_s=NOW_S, now=NOW
    )
    items: list[dict[str, Any]] = document["items"]
    return items


def test_a_value_says_whose_it_is_and_when_it_was_measured() -> None:
    assert values(figures()) == [
        {
            "metricName": "drift_slo_pressure",
            "metricLabels": {"service": "a"},
            "timestamp": "2026-01-02T03:04:03Z",
            "value": "900m",
        }
    ]


def test_desired_replicas_are_a_whole_number() -> None:
    assert [item["value"] for item in values(figures(), metric=DESIRED_REPLICAS)] == ["3"]


def test_a_selector_chooses_among_the_namespace_s_services() -> None:
    services = (figures("a"), figures("b"), figures("c"), figures("b", namespace="other"))
    found = values(*services, selector="service in (b,c)")
    assert [item["metricLabels"]["service"] for item in found] == ["b", "c"]


@pytest.mark.parametrize(
    "unknown",
    [
        figures(pressure=None),
        figures(pressure=math.nan),
        figures(pressure=math.inf),
        figures(pressure=-0.1),
        figures(measured_s=None),
        figures(measured_s=NOW_S - STALE_S - 1),
        figures(namespace="other"),
        figures("b"),
    ],
    ids=["unknown", "nan", "infinite", "negative", "never measured", "stale", "another namespace", "another"],
)
def test_what_is_not_known_is_not_found(unknown: ServiceFigures) -> None:
    with pytest.raises(Refused) as refused:
        values(unknown, selector="service=a")
    assert refused.value.code == 404


def test_one_unknown_part_makes_the_whole_unknown() -> None:
    with pytest.raises(Refused, match="ns/b"):
        values(figures("a"), figures("b", pressure=None))


def test_a_metric_of_another_name_is_not_found() -> None:
    with pytest.raises(Refused, match="no metric 'queue'"):
        values(figures(), metric="queue")


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=1e6))
def test_a_quantity_is_the_number_in_thousandths_and_never_less(number: float) -> None:
    text = external_metrics.quantity(number)
    read = Decimal(text[:-1]) / 1000 if text.endswith("m") else Decimal(text)
    assert -1e-9 <= read - Decimal(number) <= Decimal("0.001")


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0"), (1.0, "1"), (0.1, "100m"), (0.0001, "1m"), (2.5, "2500m")]
)
def test_quantities_are_written_as_kubernetes_does(number: float, text: str) -> None:
    assert external_metrics.quantity(number) == text


def test_a_metric_s_path_is_a_list_of_a_resource() -> None:
    path = f"{external_metrics.ROOT}/namespaces/ns/{PRESSURE}"
    assert Access.of("GET", path).attributes() == {
        "resourceAttributes": {
            "group": "external.metrics.k8s.io",
            "version": "v1beta1",
            "namespace": "ns",
            "resource": PRESSURE,
            "verb": "list",
        }
    }


@pytest.mark.parametrize(
    "path",
    ["/apis", external_metrics.ROOT, f"{external_metrics.ROOT}/namespaces/ns/a/b", "/x/namespaces/ns/a"],
)
def test_other_paths_are_no_resources(path: str) -> None:
    assert Access.of("GET", path).attributes() == {"nonResourceAttributes": {"path": path, "verb": "get"}}


def test_discovery_lists_both_metrics() -> None:
    listed = external_metrics.discovery()[external_metrics.ROOT]["resources"]
    assert [resource["name"] for resource in listed] == [PRESSURE, DESIRED_REPLICAS]

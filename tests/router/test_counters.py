"""What is counted, added up over workers, and shown to Prometheus."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from drift_router import counters, metrics, pictures
from drift_router.counters import Counters, Histogram, Rejection, Resumption, Tally
from drift_router.nodes.breaker import Circuit, Failure
from drift_router.pictures import LengthClass, Picture, Recent
from drift_router.snapshots import IndexState, Reason
from router_pictures import picture_of, status_of


def counted() -> Counters:
    found = Counters.fresh(ttft_s=0.4, tbt_s=0.08)
    counters.add(found.requests, 200, 3)
    counters.add(found.requests, 503)
    counters.add(found.decisions, Reason.STICKY, 2)
    counters.add(found.rejected, Rejection.RATE_LIMIT)
    counters.add(found.resumes, Resumption.RESUMED)
    found.retries += 1
    found.in_flight, found.queue_depth = 5, 2
    found.prompt_tokens, found.predicted_hit_tokens, found.confirmed_hit_tokens = 1000, 600, 500
    for ttft_s in (0.0005, 0.4, 0.4000001, 500):
        found.tally.ttft.observe(ttft_s)
    found.tally.tbt.observe(0.02)
    found.queue_wait.observe(0.0)
    found.tally.ttft_judged(found.tally.answered(600, 100), True)
    found.tally.ttft_judged(found.tally.answered(3000, 2000), False)
    found.tally.requests += 2
    found.node_failed("a", Failure.CONNECT)
    return found


def samples(picture: Picture) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.render(picture).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_users_find_the_names_that_they_rely_on() -> None:
    nodes = [
        status_of("a", circuit=Circuit.OPEN, index=IndexState.DEGRADED, in_flight=4),
        status_of("b"),
        status_of("gone", removed=True),
    ]
    picture = picture_of(counted(), nodes, index_bytes=4096, index_blocks=7)
    found = samples(msgspec.structs.replace(picture, reload_failures=2))
    assert value(found, "drift_router_reload_failures_total") == 2
    assert value(found, "drift_router_requests_total", code="200") == 3
    assert value(found, "drift_router_requests_total", code="503") == 1
    assert value(found, "drift_router_inflight") == 5
    assert value(found, "drift_router_queue_depth") == 2
    assert value(found, "drift_router_decisions_total", reason="sticky") == 2
    assert value(found, "drift_router_decisions_total", reason="headroom") == 0
    assert value(found, "drift_router_rejected_total", reason="rate-limit") == 1
    assert value(found, "drift_router_resumes_total", outcome="resumed") == 1
    assert value(found, "drift_router_resumes_total", outcome="failed") == 0
    assert value(found, "drift_router_retries_total") == 1
    assert value(found, "drift_router_prompt_tokens_total") == 1000
    assert value(found, "drift_router_prefix_hit_tokens_total", source="predicted") == 600
    assert value(found, "drift_router_prefix_hit_tokens_total", source="confirmed") == 500
    assert value(found, "drift_router_slo_requests_total", slo="ttft", met="false") == 1
    assert value(found, "drift_router_index_bytes") == 4096
    assert value(found, "drift_router_index_blocks") == 7
    assert value(found, "drift_router_index_state", node="a", state="degraded") == 1
    assert value(found, "drift_router_index_state", node="a", state="exact") == 0
    assert value(found, "drift_router_node_circuit_state", node="a") == 2
    assert value(found, "drift_router_node_circuit_state", node="b") == 0
    assert value(found, "drift_router_node_in_flight", node="a") == 4
    assert value(found, "drift_router_node_failures_total", node="a", kind="connect") == 1
    assert value(found, "drift_router_node_failures_total", node="b", kind="timeout") == 0
    assert value(found, "drift_router_tbt_seconds_count") == 1
    assert value(found, "drift_router_queue_wait_seconds_count") == 1
    assert not any(("node", "gone") in labels for _, labels in found)


def test_attainment_can_be_read_at_the_target() -> None:
    found = samples(picture_of(counted(), []))
    assert value(found, "drift_router_ttft_seconds_bucket", le="0.4") == 2
    assert value(found, "drift_router_ttft_seconds_bucket", le="+Inf") == 4
    assert value(found, "drift_router_ttft_seconds_count") == 4
    assert value(found, "drift_router_ttft_seconds_sum") == pytest.approx(500.8, rel=1e-3)
    assert ("drift_router_tbt_seconds_bucket", frozenset({("le", "0.08")})) in found


def test_labels_are_bounded_whatever_was_counted() -> None:
    found = counted()
    counters.add(found.decisions, "ignore previous instructions")
    text = metrics.render(picture_of(found, [])).decode()
    assert "ignore" not in text


def test_workers_add_up() -> None:
    one, other = counted(), counted()
    other.node_failed("b", Failure.TIMEOUT)
    dumped = msgspec.msgpack.decode(msgspec.msgpack.encode(other), type=Counters)
    both = counters.merged([one, dumped])
    assert both.requests == {200: 6, 503: 2}
    assert both.tally.ttft.count == 8
    assert both.in_flight == 10
    assert both.node_failures == {"a": {"connect": 2}, "b": {"timeout": 1}}
    assert one.requests == {200: 3, 503: 1}


def test_what_a_dead_worker_counted_stays_and_what_it_held_does_not() -> None:
    both = counters.merged([counted(), counted().ended()])
    assert (both.requests[200], both.in_flight, both.queue_depth) == (6, 5, 2)


def test_nodes_that_are_no_more_are_forgotten() -> None:
    found = counted()
    found.keep_nodes({"b"})
    assert found.node_failures == {}


@given(st.lists(st.floats(0, 200), min_size=1, max_size=50))
def test_a_histograms_quantiles_are_within_a_bucket(seconds: list[float]) -> None:
    histogram = Histogram.over(counters.TTFT_EDGES_S, 0.4)
    for value_s in seconds:
        histogram.observe(value_s)
    assert histogram.count == len(seconds)
    for share in (0.01, 0.5, 0.99, 1.0):
        exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
        high = next((edge for edge in histogram.edges if exact <= edge), histogram.edges[-1])
        low = max((edge for edge in histogram.edges if edge < exact), default=0.0)
        found = histogram.quantile(share)
        assert found is not None
        assert low <= found <= high


def test_nothing_observed_has_no_quantile() -> None:
    assert Histogram.over((1, 2)).quantile(0.5) is None


def test_several_workers_views_of_a_node_become_one() -> None:
    one = status_of("a", in_flight=1, circuit=Circuit.CLOSED, index=IndexState.EXACT)
    other = status_of(
        "a", slot=3, in_flight=2, circuit=Circuit.HALF_OPEN, index=IndexState.FALLBACK, eligible=False
    )
    both = pictures.merged(
        [picture_of(counted(), [one], index_bytes=1), picture_of(counted(), [other], index_bytes=2)]
    )
    (node,) = both.nodes
    assert (node.in_flight, node.circuit, node.index, node.eligible) == (
        3,
        Circuit.HALF_OPEN,
        IndexState.FALLBACK,
        False,
    )
    assert (both.workers, both.index_bytes) == (2, 3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(both), type=Picture) == both


def test_rates_are_those_of_the_last_minute() -> None:
    recent, live = Recent(), counted()
    for second in range(0, 601, 5):
        counters.add(live.requests, 200, 50)
        live.prompt_tokens += 1000
        live.confirmed_hit_tokens += 250
        live.tally.ttft_judged(None, second % 20 != 0)
        live.tally.ttft.observe(0.15)
        recent.sample(live, float(second))
    report = recent.report(picture_of(live, [status_of("a")]), 600.0)
    assert report.window_s == pytest.approx(60, abs=5)
    assert report.requests_per_s == pytest.approx(10, rel=0.01)
    assert report.prompt_tokens_per_s == pytest.approx(200, rel=0.01)
    assert report.confirmed_hit_ratio == pytest.approx(0.25)
    assert report.attainment == {"ttft": pytest.approx(0.75, abs=0.05)}
    assert report.ttft_p50_s == pytest.approx(0.15)
    assert report.tbt_p50_s is None


def test_a_router_that_just_started_reports_no_rates() -> None:
    report = Recent().report(picture_of(counted(), []), 0.0)
    assert (report.window_s, report.requests_per_s, report.attainment) == (0.0, 0.0, {})


def test_totals_are_told_by_the_prompts_uncached_lengths() -> None:
    totals = Recent().report(picture_of(counted(), []), 0.0).totals
    assert [one.up_to_tokens for one in totals.classes] == [512, 2048, 8192, 32768, 131072, None]
    assert totals.classes[0] == LengthClass(512, 1, 500, 1, 0)
    assert totals.classes[1] == LengthClass(2048, 1, 1000, 0, 1)
    assert (totals.requests, totals.prompt_tokens, totals.cached_tokens) == (2, 3600, 2100)
    assert (totals.ttft_kept, totals.ttft_missed, totals.tbt_kept, totals.tbt_missed) == (1, 1, 0, 0)
    assert totals.ttft.count == 4


@pytest.mark.parametrize(
    ("tokens", "place"), [(0, 0), (512, 0), (513, 1), (131072, 4), (131073, 5), (1 << 30, 5)]
)
def test_a_class_includes_its_edge(tokens: int, place: int) -> None:
    assert Tally.fresh(0.4, 0.08).answered(tokens, 0) == place


def test_more_that_is_cached_than_there_is_is_nothing_uncached() -> None:
    tally = Tally.fresh(0.4, 0.08)
    tally.answered(100, 200)
    assert tally.class_uncached_tokens[0] == 0


def test_of_workers_with_different_promises_the_later_one_counts() -> None:
    before, after = counted(), counted()
    after.tally = Tally.fresh(1.0, 0.1, number=1)
    after.tally.requests = 7
    for both in (before.plus(after), after.plus(before)):
        assert both.tally.requests == 7
        assert 1.0 in both.tally.ttft.edges
        assert both.requests == {200: 6, 503: 2}


def test_attainment_begins_anew_with_the_promise() -> None:
    recent, live = Recent(), counted()
    recent.sample(live, 0.0)
    live.tally = Tally.fresh(1.0, 0.1, number=1)
    live.tally.ttft_judged(None, True)
    assert recent.report(picture_of(live, []), 5.0).attainment == {"ttft": 1.0}

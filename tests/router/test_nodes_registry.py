"""What the registry knows of nodes: who may be sent requests, with which figures, and books that add up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import node_reports
from drift_engine import wire
from drift_router.documents import DocumentError
from drift_router.nodes.addresses import Address
from drift_router.nodes.breaker import Circuit, Failure
from drift_router.nodes.health import HITS, MISSES, State
from drift_router.nodes.known import LOST_S, REMOVED_S
from drift_router.nodes.peers import Load
from drift_router.nodes.registry import REFRESH_S, STALE_S, Handle, Registry
from drift_router.snapshots import IndexState, Node

A = Address("a", "http://a:8000", "http://a:8001")
B = Address("b", "http://b:8000", "http://b:8001")
FOREIGN = Address("f", "http://f:8000")


class Index:
    """Knows every cache equally well."""

    def __init__(self) -> None:
        self.known = IndexState.EXACT
        self.forgotten: list[int] = []

    def state(self, slot: int) -> IndexState:
        return self.known


REPORT = node_reports.report(
    node="a",
    model="m",
    mode=wire.Mode.MUX,
    in_flight=3,
    running=2,
    waiting=1,
    queued_tokens=5000,
    kv_usage=0.25,
    kv_pages_total=1000,
    prefill_tokens_per_s=10000.0,
    tbt_p50_ms=20.0,
    tbt_p99_ms=30.0,
    uptime_s=100.0,
)


def report(**changes: object) -> wire.Report:
    return msgspec.structs.replace(REPORT, **changes)


def made(*nodes: Address, reports: bool = True) -> tuple[Registry, Index]:
    """At time 0; those of ours have reported once, the others answered."""
    index = Index()
    registry = Registry(index, index.forgotten.append, seed=1)
    registry.set_nodes(nodes, 0.0)
    for slot, address in registry.addresses().items():
        if address.control_url is not None and reports:
            registry.reported(slot, REPORT, 0.0)
        else:
            registry.answered(slot, 0.0)
    return registry, index


def sent(registry: Registry, slot: int, tokens: int, now_s: float = 0.0) -> Handle:
    handle = registry.sent(slot, tokens, now_s)
    assert handle is not None
    return handle


def only(registry: Registry, now_s: float) -> Node:
    (node,) = registry.snapshot(now_s)
    return node


def names(registry: Registry, now_s: float) -> list[str]:
    return [node.name for node in registry.snapshot(now_s)]


def circuit(registry: Registry, now_s: float) -> Circuit:
    return registry.status(now_s)[0].circuit


# who may be sent requests


def test_nobody_is_sent_anything_before_it_answered() -> None:
    registry = Registry(Index(), lambda slot: None)
    registry.set_nodes([A], 0.0)
    assert names(registry, 0.0) == []
    registry.reported(0, REPORT, 0.1)
    assert names(registry, 0.1) == ["a"]


@pytest.mark.parametrize("said", [{"ready": False}, {"draining": True}, {"weight": 0.0}])
def test_what_a_node_says_of_itself_counts_at_once(said: dict[str, object]) -> None:
    registry, _ = made(A, B)
    assert names(registry, 0.0) == ["a", "b"]
    registry.reported(0, report(**said), 0.01)
    assert names(registry, 0.01) == ["b"]
    registry.reported(0, REPORT, 0.02)
    assert names(registry, 0.02) == ["a", "b"]


def test_so_does_the_list() -> None:
    registry, _ = made(A, B)
    registry.set_nodes(
        [msgspec.structs.replace(A, draining=True), msgspec.structs.replace(B, weight=0.5)], 0.0
    )
    node = only(registry, 0.0)
    assert (node.name, node.weight) == ("b", 0.5)
    registry.set_nodes([A, msgspec.structs.replace(B, weight=0.0)], 0.0)
    assert names(registry, 0.0) == ["a"]


def test_the_operators_weights_multiply() -> None:
    registry, _ = made(msgspec.structs.replace(A, weight=0.5))
    registry.reported(0, report(weight=0.5), 0.1)
    assert only(registry, 0.1).weight == 0.25


def test_missed_reports_take_a_node_out_and_two_bring_it_back() -> None:
    registry, _ = made(A, B)
    for number in range(MISSES):
        assert names(registry, number / 4) == ["a", "b"]
        registry.missed(0, number / 4, "no answer")
    assert names(registry, 1.0) == ["b"]
    assert registry.status(1.0)[0].health is State.UNHEALTHY
    assert registry.status(1.0)[0].problem == "no answer"
    for number in range(HITS):
        assert names(registry, 1.0 + number) == ["b"]
        registry.reported(0, report(uptime_s=101.0 + number), 1.0 + number)
    assert names(registry, 2.0) == ["a", "b"]


def test_a_node_that_streams_is_not_dead_because_it_does_not_report() -> None:
    registry, _ = made(A)
    handle = sent(registry, 0, 10)
    registry.first_byte(handle, 0.1)
    for number in range(20):
        now_s = 0.2 + number / 4
        registry.token_gap(handle, 0.25, now_s)
        registry.missed(0, now_s, "no answer")
    assert names(registry, 5.2) == ["a"]


def test_a_node_that_answers_draining_gets_nothing_until_it_says_otherwise() -> None:
    registry, _ = made(A)
    registry.failed(sent(registry, 0, 10), Failure.DRAINING, 0.1)
    assert names(registry, 0.1) == []
    assert circuit(registry, 0.1) is Circuit.CLOSED
    registry.reported(0, report(uptime_s=101), 0.2)
    assert names(registry, 0.2) == ["a"]


def test_a_refused_connection_takes_a_node_out_until_a_trial_succeeds() -> None:
    registry, _ = made(A, B)
    registry.failed(sent(registry, 0, 10), Failure.CONNECT, 0.0)
    assert names(registry, 0.0) == ["b"]
    assert registry.sent(0, 10, 0.0) is None
    assert names(registry, 1.5) == ["a", "b"]
    trial = sent(registry, 0, 10, 1.5)
    assert names(registry, 1.5) == ["b"]
    assert registry.sent(0, 10, 1.5) is None  # decided on the same snapshot
    registry.first_byte(trial, 1.6)
    registry.finished(trial, 1.7)
    assert names(registry, 1.7) == ["a", "b"]
    registry.first_byte(sent(registry, 0, 10, 1.8), 1.9)
    assert circuit(registry, 1.9) is Circuit.CLOSED


def test_where_every_circuit_is_open_none_counts() -> None:
    registry, _ = made(A, B)
    for slot in (0, 1):
        registry.failed(sent(registry, slot, 10), Failure.CONNECT, 0.0)
    assert names(registry, 0.0) == ["a", "b"]
    assert [status.eligible for status in registry.status(0.0)] == [True, True]
    assert [status.circuit for status in registry.status(0.0)] == [Circuit.OPEN, Circuit.OPEN]
    for _ in range(10):  # whatever becomes of these, the time of the first trial stays
        registry.failed(sent(registry, 0, 10, 0.1), Failure.TIMEOUT, 0.2)
    assert names(registry, 1.5) == ["a", "b"]
    assert circuit(registry, 1.5) is Circuit.HALF_OPEN


def test_the_only_node_goes_on_being_asked_while_it_is_tried() -> None:
    registry, _ = made(A)
    registry.failed(sent(registry, 0, 10), Failure.CONNECT, 0.0)
    assert names(registry, 1.5) == ["a"]
    trial = sent(registry, 0, 10, 1.5)
    assert names(registry, 1.5) == ["a"]
    beside = sent(registry, 0, 10, 1.5)
    registry.first_byte(beside, 1.6)
    assert circuit(registry, 1.6) is Circuit.HALF_OPEN  # one trial says more than any number of others
    registry.first_byte(trial, 1.7)
    registry.first_byte(sent(registry, 0, 10, 1.8), 1.9)
    assert circuit(registry, 1.9) is Circuit.CLOSED


def test_circuits_count_again_as_soon_as_one_node_may_be_asked() -> None:
    registry, _ = made(A, B)
    for slot in (0, 1):
        registry.failed(sent(registry, slot, 10), Failure.CONNECT, 0.0)
    registry.reported(1, report(uptime_s=0.1), 0.5)  # another process, and another breaker
    assert names(registry, 0.5) == ["b"]


def fall_silent(registry: Registry, slot: int, now_s: float, *, refused: bool = False) -> None:
    for _ in range(MISSES):
        registry.missed(slot, now_s, "no answer", refused=refused)


def test_nodes_that_fall_silent_all_at_once_go_on_being_asked_for_a_while() -> None:
    registry, _ = made(A, B)
    fall_silent(registry, 0, 2.0)
    assert names(registry, 2.0) == ["b"]
    fall_silent(registry, 1, 2.5)
    assert names(registry, 2.5) == ["a", "b"]
    assert [status.eligible for status in registry.status(2.5)] == [True, True]
    assert names(registry, 2.0 + LOST_S) == ["b"]
    assert names(registry, 2.5 + LOST_S) == []


def test_they_are_not_asked_any_more_once_one_answers() -> None:
    registry, _ = made(A, B)
    fall_silent(registry, 0, 2.0)
    fall_silent(registry, 1, 2.0)
    for number in range(HITS):
        registry.reported(1, report(uptime_s=103.0 + number), 3.0 + number)
    assert names(registry, 4.0) == ["b"]


def test_a_node_where_nobody_listens_is_no_last_resort() -> None:
    registry, _ = made(A)
    fall_silent(registry, 0, 2.0, refused=True)
    assert names(registry, 2.5) == []


def test_a_silent_node_that_fails_requests_is_no_last_resort() -> None:
    registry, _ = made(A)
    fall_silent(registry, 0, 2.0)
    registry.failed(sent(registry, 0, 10, 2.1), Failure.CONNECT, 2.2)
    assert names(registry, 2.5) == []


def test_a_trial_whose_client_leaves_makes_room_for_another() -> None:
    registry, _ = made(A)
    registry.failed(sent(registry, 0, 10), Failure.CONNECT, 0.0)
    registry.finished(sent(registry, 0, 10, 1.5), 1.6)
    assert registry.sent(0, 10, 1.6) is not None


def test_a_restarted_node_starts_with_a_closed_circuit_and_an_empty_cache() -> None:
    registry, index = made(A, B)
    old = sent(registry, 0, 10)
    registry.failed(sent(registry, 0, 10), Failure.CONNECT, 0.0)
    registry.hit(old, 1000, 0)
    registry.reported(0, report(uptime_s=0.2), 0.5)
    node, other = registry.snapshot(0.5)
    assert index.forgotten == [0]
    assert node.trust == 1.0
    assert node.warmth < 0.2
    assert other.warmth == 1.0
    registry.failed(old, Failure.CONNECT, 0.6)  # of the process before
    assert names(registry, 0.6) == ["a", "b"]


def test_where_every_node_restarted_none_is_spared() -> None:
    registry, _ = made(A, B)
    for slot in (0, 1):
        registry.reported(slot, report(uptime_s=0.2), 0.5)
    assert [node.warmth for node in registry.snapshot(0.5)] == [1.0, 1.0]


def test_a_server_that_was_not_up_when_the_router_started_did_not_restart() -> None:
    index = Index()
    registry = Registry(index, index.forgotten.append)
    registry.set_nodes([FOREIGN], 0.0)
    registry.missed(0, 0.0, "refused", refused=True)
    registry.answered(0, 1.0)
    assert index.forgotten == []
    assert names(registry, 1.0) == ["f"]


def test_a_restart_is_noticed_where_the_new_process_is_older_than_the_last_report_was() -> None:
    registry, index = made(A)
    registry.reported(0, report(uptime_s=110.0), 10.0)
    assert index.forgotten == []
    registry.reported(0, report(uptime_s=500.0), 1000.0)
    assert index.forgotten == [0]


def test_a_foreign_server_that_nobody_listened_for_has_restarted() -> None:
    registry, index = made(FOREIGN)
    registry.missed(0, 1.0, "refused")
    registry.answered(0, 2.0)
    assert index.forgotten == []
    registry.missed(0, 3.0, "refused", refused=True)
    registry.answered(0, 4.0)
    assert index.forgotten == [0]


# slots


def test_slots_are_small_and_reused_when_the_last_request_ended() -> None:
    registry, index = made(A, B)
    handle = sent(registry, 0, 10)
    registry.set_nodes([B], 0.0)
    assert index.forgotten == [0]
    assert names(registry, 0.0) == ["b"]
    assert registry.address(0) == A
    assert registry.sent(0, 10, 0.0) is None
    registry.set_nodes([B, FOREIGN], 0.0)
    assert registry.addresses() == {1: B, 2: FOREIGN}
    registry.finished(handle, 1.0)
    assert index.forgotten == [0, 0]  # its last answer may have taught something
    registry.set_nodes([B, FOREIGN, A], 1.0)
    assert registry.addresses() == {0: A, 1: B, 2: FOREIGN}


def test_another_url_is_another_node() -> None:
    registry, index = made(A)
    handle = sent(registry, 0, 10)
    moved = msgspec.structs.replace(A, url="http://other:8000")
    registry.set_nodes([moved], 0.0)
    assert index.forgotten == [0]
    assert registry.addresses() == {1: moved}
    registry.reported(1, REPORT, 0.1)
    assert only(registry, 0.1).in_flight == 0
    registry.finished(handle, 0.2)
    assert [status.slot for status in registry.status(0.2)] == [1]


def test_weights_and_draining_change_nothing_else() -> None:
    registry, index = made(A)
    handle = sent(registry, 0, 10)
    registry.set_nodes([msgspec.structs.replace(A, weight=0.5, draining=True)], 0.0)
    registry.set_nodes([A], 0.0)
    assert index.forgotten == []
    assert only(registry, 0.0).in_flight == 1
    registry.finished(handle, 0.1)


def test_a_list_with_a_name_twice_changes_nothing() -> None:
    registry, _ = made(A)
    with pytest.raises(DocumentError, match=r"nodes\[1\].name"):
        registry.set_nodes([B, msgspec.structs.replace(B, url="http://c:1")], 0.0)
    assert names(registry, 0.0) == ["a"]


# figures


def test_queued_tokens_follow_what_was_sent_since_the_report() -> None:
    registry, _ = made(A)
    first = sent(registry, 0, 1000)
    second = sent(registry, 0, 300)
    assert only(registry, 0.0).queued_tokens == 6300
    registry.first_byte(first, 0.1)
    assert only(registry, 0.1).queued_tokens == 5300
    registry.reported(0, report(queued_tokens=400, uptime_s=101), 0.2)  # 300 of ours among them
    assert only(registry, 0.2).queued_tokens == 400
    registry.first_byte(second, 0.3)
    assert only(registry, 0.3).queued_tokens == 100


def test_they_are_never_less_than_our_own_that_wait() -> None:
    registry, _ = made(A)
    sent(registry, 0, 1000)
    registry.reported(0, report(queued_tokens=0, uptime_s=101), 0.1)  # it had not arrived there yet
    assert only(registry, 0.1).queued_tokens == 1000


def test_what_goes_before_a_prompt_is_what_was_told_and_all_that_was_sent_since() -> None:
    registry, _ = made(A)
    long = sent(registry, 0, 50_000, 0.1)
    told = report(queued_tokens=54_000, ahead=(wire.Ahead(512, 0), wire.Ahead(8192, 4000)), uptime_s=101)
    registry.reported(0, told, 0.2)
    assert only(registry, 0.2).ahead == ((512, 0), (8192, 4000))
    since = sent(registry, 0, 1000, 0.3)
    assert only(registry, 0.3).ahead == ((512, 1000), (8192, 5000))
    registry.first_byte(since, 0.4)
    assert only(registry, 0.4).ahead == ((512, 0), (8192, 4000))
    registry.first_byte(long, 0.5)
    assert only(registry, 0.5).ahead == ((512, 0), (8192, 4000))
    assert only(registry, 0.2 + STALE_S + 0.01).ahead == ()


def test_what_was_on_its_way_when_the_report_was_made_counts() -> None:
    registry, _ = made(A)
    handle = sent(registry, 0, 1000, 0.19)
    told = report(queued_tokens=60_000, ahead=(wire.Ahead(512, 0),), uptime_s=101)
    registry.reported(0, told, 0.2)
    assert only(registry, 0.2).ahead == ((512, 1000),)
    registry.reported(0, msgspec.structs.replace(told, uptime_s=101.3), 0.5)
    assert only(registry, 0.5).ahead == ((512, 0),)
    registry.first_byte(handle, 0.6)
    assert only(registry, 0.6).ahead == ((512, 0),)


def test_where_reports_are_seldom_all_that_was_sent_since_counts() -> None:
    registry, _ = made(A)
    registry.stale_s = 12.0
    registry.reported(0, report(queued_tokens=90_000, ahead=(wire.Ahead(512, 0),), uptime_s=101), 0.2)
    for second in range(1, 5):
        sent(registry, 0, 1000, float(second))
    assert only(registry, 4.1).ahead == ((512, 4000),)


def test_what_other_workers_sent_since_the_report_goes_before_it_too() -> None:
    registry, _ = made(A)
    registry.peers("a", Load(2000, 1))
    registry.reported(0, report(queued_tokens=9000, ahead=(wire.Ahead(512, 0),), uptime_s=101), 0.2)
    registry.peers("a", Load(2700, 2))
    assert only(registry, 0.3).ahead == ((512, 700),)


def test_no_more_goes_before_a_prompt_than_is_queued() -> None:
    registry, _ = made(A)
    registry.reported(0, report(queued_tokens=500, ahead=(wire.Ahead(512, 1 << 50),), uptime_s=101), 0.2)
    assert only(registry, 0.2).ahead == ((512, 500),)


def test_an_old_report_attracts_nothing() -> None:
    registry, _ = made(A)
    registry.reported(0, report(queued_tokens=0, kv_usage=0.0, uptime_s=101), 0.1)
    handles = [sent(registry, 0, 700) for _ in range(3)]
    later_s = 0.1 + STALE_S + 0.01
    assert only(registry, later_s).queued_tokens == 2100
    for handle in handles[1:]:
        registry.first_byte(handle, later_s)
    assert only(registry, later_s).queued_tokens == 700


def test_reported_figures_win_and_nonsense_is_cut() -> None:
    registry, _ = made(A)
    node = only(registry, 0.0)
    assert node.prefill_tokens_per_s == 10_000
    assert node.tbt_s == 0.03
    assert node.kv_tokens == 16_000
    assert node.kv_usage == 0.25
    assert node.index is IndexState.EXACT
    nonsense = report(queued_tokens=-7, kv_usage=17.0, prefill_tokens_per_s=-1.0, weight=9.0, uptime_s=101)
    registry.reported(0, nonsense, 0.1)
    node = only(registry, 0.1)
    assert (node.queued_tokens, node.kv_usage, node.prefill_tokens_per_s, node.weight) == (0, 1.0, 0.0, 1.0)


def test_a_foreign_servers_speed_is_observed() -> None:
    """It takes 50 ms for any request, computes 4,000 tokens a second, one prompt after the other."""
    registry, _ = made(FOREIGN)
    now_s = 0.0
    for number in range(60):
        now_s += 10
        tokens = (20, 2000, 4000)[number % 3]
        registry.first_byte(sent(registry, 0, tokens, now_s), now_s + 0.05 + tokens / 4000)
    node = only(registry, now_s)
    assert node.prefill_tokens_per_s == pytest.approx(4000, rel=0.1)
    assert node.fixed_s == pytest.approx(0.055, rel=0.1)


def test_waiting_for_other_prompts_does_not_make_it_look_slow() -> None:
    registry, _ = made(FOREIGN)
    now_s = 0.0
    for _ in range(30):
        now_s += 100
        handles = [sent(registry, 0, 4000, now_s) for _ in range(5)]
        for number, handle in enumerate(handles):
            registry.first_byte(handle, now_s + number + 1)
    assert only(registry, now_s).prefill_tokens_per_s == pytest.approx(4000, rel=0.05)


def test_an_answer_that_comes_as_a_whole_only_says_how_quick_the_prefill_is_at_least() -> None:
    registry, _ = made(FOREIGN)
    registry.first_byte(sent(registry, 0, 4000), 40.0, timed=False)
    node = only(registry, 40.0)
    assert (node.prefill_tokens_per_s, node.timed, node.fixed_s) == (100.0, False, 0.0)
    registry.first_byte(sent(registry, 0, 4000, 40.0), 42.0)
    node = only(registry, 42.0)
    assert node.timed
    assert node.prefill_tokens_per_s > 1000


def test_the_tail_of_the_gaps_is_observed() -> None:
    registry, _ = made(FOREIGN)
    handle = sent(registry, 0, 1)
    for number in range(20_000):
        gap_s = 0.02 + 0.01 * (number % 7) / 7 if number % 50 else 0.1  # one in fifty: P99 is 0.1
        registry.token_gap(handle, gap_s, 0.0)
    assert only(registry, 0.2).tbt_s == pytest.approx(0.1, rel=0.15)


def test_what_one_more_request_adds_is_learned_from_reports() -> None:
    registry, _ = made(A)
    for number in range(400):
        running = 10 + number * 7 % 20
        said = report(running=running, tbt_p50_ms=10 + 0.5 * running, uptime_s=101.0 + number)
        registry.reported(0, said, 0.1 + number)
    assert only(registry, 399.1).tbt_per_request_s == pytest.approx(0.0005, rel=0.05)


def test_a_lying_node_loses_its_trust_and_can_earn_it_back() -> None:
    registry, _ = made(A)
    handle = sent(registry, 0, 10)
    for _ in range(20):
        registry.hit(handle, 1000, 0)
    assert only(registry, 0.0).trust < 0.15
    registry.hit(handle, 0, 0)  # nothing was promised
    for _ in range(40):
        registry.hit(handle, 1000, 5000)
    assert 0.9 < only(registry, 0.0).trust <= 1.0


def test_a_node_that_joins_others_warms_up_from_its_first_answer() -> None:
    registry, _ = made(A)
    assert only(registry, 0.0).warmth == 1.0  # nobody else holds anything either
    registry.set_nodes([A, B], 100.0)
    registry.reported(1, REPORT, 200.0)
    cold = registry.snapshot(200.0)[1].warmth
    half = registry.snapshot(215.0)[1].warmth
    assert 0 < cold < 0.2 < half < 1
    assert registry.snapshot(300.0)[1].warmth == 1.0


def test_assigned_tokens_fade() -> None:
    registry, _ = made(FOREIGN)
    sent(registry, 0, 1000)
    now = only(registry, 0.0).assigned_tokens
    later = only(registry, 60.0).assigned_tokens
    assert now == 1000
    assert 0 < later < 600


def test_nothing_is_made_anew_where_nothing_changed() -> None:
    registry, _ = made(A, B)
    before = registry.snapshot(0.0)
    assert registry.snapshot(0.05) is before
    sent(registry, 1, 10, 0.05)
    after = registry.snapshot(0.05)
    assert after[0] is before[0]
    assert after[1].in_flight == 1


def test_the_index_state_is_taken_over_soon() -> None:
    registry, index = made(A)
    assert only(registry, 0.0).index is IndexState.EXACT
    index.known = IndexState.DEGRADED
    assert only(registry, 0.2).index is IndexState.DEGRADED


# books

ADDRESSES = [
    Address(name, f"http://{name}:{port}", f"http://{name}:9000" if name == "c" else None)
    for name in "abc"
    for port in (8000, 8001)
]


class Books(RuleBasedStateMachine):
    """Any interleaving of requests, lists, reports and restarts; a plain model of the books beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index()
        self.registry = Registry(self.index, self.index.forgotten.append, seed=0)
        self.now_s = 0.0
        self.open: dict[Handle, list[int]] = {}  # [slot, tokens that wait]
        self.ended: list[Handle] = []

    @rule(chosen=st.sets(st.sampled_from("abc")), port=st.integers(0, 1), weight=st.sampled_from([0.0, 1.0]))
    def list_nodes(self, chosen: set[str], port: int, weight: float) -> None:
        listed = [address for address in ADDRESSES[port::2] if address.name in chosen]
        self.registry.set_nodes(
            [msgspec.structs.replace(address, weight=weight) for address in listed], self.now_s
        )

    @rule(which=st.integers(0, 5), uptime_s=st.floats(0, 100), queued=st.integers(-5, 10_000))
    def report(self, which: int, uptime_s: float, queued: int) -> None:
        slots = sorted(self.registry.addresses())
        if slots:
            said = report(
                uptime_s=uptime_s,
                queued_tokens=queued,
                ahead=(wire.Ahead(512, queued // 2), wire.Ahead(-1, -1)),
            )
            self.registry.reported(slots[which % len(slots)], said, self.now_s)

    @rule(which=st.integers(0, 5), refused=st.booleans(), hit=st.booleans())
    def ask(self, which: int, refused: bool, hit: bool) -> None:
        slots = sorted(self.registry.addresses())
        if slots and hit:
            self.registry.answered(slots[which % len(slots)], self.now_s)
        elif slots:
            self.registry.missed(slots[which % len(slots)], self.now_s, "x", refused=refused)

    @rule(slot=st.integers(0, 6), tokens=st.integers(0, 100_000))
    def send(self, slot: int, tokens: int) -> None:
        handle = self.registry.sent(slot, tokens, self.now_s)
        if handle is not None:
            self.open[handle] = [slot, tokens]

    def pick(self, which: int) -> Handle:
        return list(self.open)[which % len(self.open)]

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 100))
    def first_byte(self, which: int) -> None:
        handle = self.pick(which)
        self.registry.first_byte(handle, self.now_s)
        self.open[handle][1] = 0

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 100), failure=st.none() | st.sampled_from(Failure))
    def end(self, which: int, failure: Failure | None) -> None:
        handle = self.pick(which)
        del self.open[handle]
        self.ended.append(handle)
        if failure is None:
            self.registry.finished(handle, self.now_s)
        else:
            self.registry.failed(handle, failure, self.now_s)

    @precondition(lambda self: self.ended)
    @rule(which=st.integers(0, 100), failure=st.sampled_from(Failure))
    def speak_of_it_again(self, which: int, failure: Failure) -> None:
        handle = self.ended[which % len(self.ended)]
        self.registry.first_byte(handle, self.now_s)
        self.registry.finished(handle, self.now_s)
        self.registry.failed(handle, failure, self.now_s)

    @rule(elapsed_s=st.floats(-0.1, 40))
    def wait(self, elapsed_s: float) -> None:
        self.now_s += elapsed_s

    @invariant()
    def books_are_right(self) -> None:
        status = {node.slot: node for node in self.registry.status(self.now_s)}
        for slot in {slot for slot, _ in self.open.values()} | set(status):
            here = [tokens for on, tokens in self.open.values() if on == slot]
            assert status[slot].in_flight == len(here)
            assert status[slot].queued_tokens >= sum(here)
        listed = self.registry.addresses()
        assert set(status) == {slot for slot, _ in self.open.values()} | set(listed)
        seen = self.registry.snapshot(self.now_s)
        assert {node.slot for node in seen} <= set(listed)
        for node in seen:
            assert all(0 <= tokens <= node.queued_tokens for _, tokens in node.ahead)
            assert node.in_flight == status[node.slot].in_flight
            assert 0 < node.weight <= 1
            assert 0 < node.warmth <= 1

    @invariant()
    def whoever_is_eligible_is_seen_a_refresh_later(self) -> None:
        later_s = self.now_s + 2 * REFRESH_S
        eligible = {node.slot for node in self.registry.status(later_s) if node.eligible}
        assert {node.slot for node in self.registry.snapshot(later_s)} == eligible

    def teardown(self) -> None:
        for handle in list(self.open):
            self.registry.finished(handle, self.now_s)
        for node in self.registry.status(self.now_s):
            assert (node.in_flight, node.removed) == (0, False)
            if node.report is None:
                assert node.queued_tokens == 0
        self.registry.set_nodes([], self.now_s)
        assert self.registry.status(self.now_s) == []


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


def test_requests_of_a_node_that_neither_answers_nor_sends_are_lost() -> None:
    registry, _ = made(A, B)
    handle = sent(registry, 0, 100)
    for turn in range(12):
        registry.missed(0, 2.0 + turn, "no answer")
        assert registry.lost(handle, 2.0 + turn) == (2.0 + turn >= 4.0 + LOST_S)
    registry.reported(0, REPORT, 20.0)
    assert not registry.lost(handle, 40.0)


def test_requests_of_a_node_that_sends_are_not_lost() -> None:
    registry, _ = made(A, B)
    handle = sent(registry, 0, 100)
    for turn in range(20):
        registry.missed(0, 2.0 + turn, "no answer")
    registry.first_byte(handle, 22.0)
    assert not registry.lost(handle, 22.0)
    registry.missed(0, 24.0, "no answer")
    assert not registry.lost(handle, 24.0 + LOST_S / 2)
    assert registry.lost(handle, 24.0 + LOST_S)


def test_requests_of_a_node_that_is_off_the_list_are_lost_when_it_is_silent() -> None:
    registry, _ = made(A, B)
    handle = sent(registry, 0, 100, 10.0)
    registry.set_nodes([B], 11.0)
    assert not registry.lost(handle, 9.9 + REMOVED_S)
    assert registry.lost(handle, 10.0 + REMOVED_S)

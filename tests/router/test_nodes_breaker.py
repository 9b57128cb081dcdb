"""The circuit breaker, over time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_router.nodes import breaker
from drift_router.nodes.breaker import Breaker, Circuit, Failure


def opened(now_s: float = 0.0) -> Breaker:
    node = Breaker()
    node.failed(node.begin(), Failure.CONNECT, now_s, 0.0)
    return node


def trial_fails(node: Breaker, now_s: float) -> None:
    node.failed(node.begin(), Failure.TIMEOUT, now_s, 0.0)


def test_a_refused_connection_opens_it_at_once() -> None:
    node = opened()
    assert node.state(0.0) is Circuit.OPEN
    assert not node.admits(0.5)


@pytest.mark.parametrize("failure", [Failure.RESET, Failure.TIMEOUT, Failure.GARBAGE, Failure.SERVER_ERROR])
def test_other_failures_open_it_when_they_come_in_a_row(failure: Failure) -> None:
    node = Breaker()
    for _ in range(breaker.FAILURES_IN_ROW - 1):
        node.failed(node.begin(), failure, 0.0, 0.0)
    assert node.admits(0.0)
    node.failed(node.begin(), failure, 0.0, 0.0)
    assert not node.admits(0.0)


def test_an_answer_in_between_starts_the_row_again() -> None:
    node = Breaker()
    for _ in range(breaker.FAILURES_IN_ROW - 1):
        node.failed(node.begin(), Failure.RESET, 0.0, 0.0)
    node.succeeded(node.begin(), 0.0)
    node.failed(node.begin(), Failure.RESET, 0.0, 0.0)
    assert node.admits(0.0)


def test_a_node_that_breaks_every_answer_is_found_out() -> None:
    node = Breaker()
    for number in range(10):
        request = node.begin()
        node.succeeded(request, number / 10)
        node.failed(request, Failure.BROKEN, number / 10, 0.0)
    assert not node.admits(1.0)


def test_a_few_failures_among_many_answers_do_not_open_it() -> None:
    node = Breaker()
    for number in range(1000):
        node.succeeded(node.begin(), number / 10)
        if number % 10 == 0:
            node.failed(node.begin(), Failure.SERVER_ERROR, number / 10, 0.0)
    assert node.admits(100.0)


def test_draining_is_no_failure() -> None:
    node = Breaker()
    for _ in range(100):
        node.failed(node.begin(), Failure.DRAINING, 0.0, 0.0)
    assert node.state(0.0) is Circuit.CLOSED


def test_after_a_time_one_request_at_a_time_is_tried() -> None:
    node = opened()
    now_s = breaker.FIRST_OPEN_S
    assert node.state(now_s) is Circuit.HALF_OPEN
    assert node.admits(now_s)
    trial = node.begin()
    assert not node.admits(now_s)
    node.abandoned(trial)  # its client left
    assert node.admits(now_s)
    assert node.state(now_s) is Circuit.HALF_OPEN


def test_trials_that_are_answered_close_it() -> None:
    node = opened()
    for _ in range(breaker.SUCCESSES_TO_CLOSE):
        assert node.state(2.0) is Circuit.HALF_OPEN
        node.succeeded(node.begin(), 2.0)
    assert node.state(2.0) is Circuit.CLOSED


def test_each_failed_trial_doubles_the_time_up_to_a_limit() -> None:
    node, now_s, waits_s = opened(), 0.0, []
    for _ in range(8):
        start_s = now_s
        while not node.admits(now_s):
            now_s += 0.25
        waits_s.append(now_s - start_s)
        trial_fails(node, now_s)
    assert waits_s == [1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_makes_it_longer() -> None:
    node = Breaker()
    node.failed(0, Failure.CONNECT, 0.0, 1.0)
    assert not node.admits(breaker.FIRST_OPEN_S * 1.19)
    assert node.admits(breaker.FIRST_OPEN_S * 1.21)


def test_one_that_fails_again_soon_after_it_closed_goes_on_where_it_was() -> None:
    node = opened()
    for _ in range(breaker.SUCCESSES_TO_CLOSE):
        node.succeeded(node.begin(), 1.0)
    node.failed(node.begin(), Failure.CONNECT, 1.5, 0.0)
    assert not node.admits(1.5 + breaker.FIRST_OPEN_S)
    assert node.admits(1.5 + 2 * breaker.FIRST_OPEN_S)


def test_one_that_stayed_closed_for_long_starts_anew() -> None:
    node = opened()
    for _ in range(breaker.SUCCESSES_TO_CLOSE):
        node.succeeded(node.begin(), 1.0)
    node.failed(node.begin(), Failure.CONNECT, 100.0, 0.0)
    assert node.admits(100.0 + breaker.FIRST_OPEN_S)


def test_requests_from_before_it_opened_decide_nothing() -> None:
    node = Breaker()
    old = node.begin()
    node.failed(node.begin(), Failure.CONNECT, 0.0, 0.0)
    node.succeeded(old, 0.5)
    assert not node.admits(0.5)
    node.failed(old, Failure.BROKEN, 1.0, 0.0)
    assert node.admits(1.0)  # not opened for longer


def test_a_trial_whose_answer_breaks_off_fails_it_after_all() -> None:
    node = opened()
    trial = node.begin()
    node.succeeded(trial, 1.0)
    node.failed(trial, Failure.BROKEN, 1.1, 0.0)
    assert node.state(1.1) is Circuit.OPEN


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "succeed", "abandon", *Failure]),
        st.integers(0, 10),
        st.floats(-1.0, 40.0),  # clocks jump
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_there_is_one_trial_at_a_time_and_a_way_back(
    steps: list[tuple[str, int, float]],
) -> None:
    node, now_s = Breaker(), 0.0
    open_requests: list[int] = []
    for what, which, elapsed_s in steps:
        now_s += elapsed_s
        if what == "begin":
            if node.admits(now_s):
                half_open = node.state(now_s) is Circuit.HALF_OPEN
                open_requests.append(node.begin())
                assert node.admits(now_s) is not half_open
        elif open_requests:
            request = open_requests.pop(which % len(open_requests))
            if what == "succeed":
                node.succeeded(request, now_s)
            elif what == "abandon":
                node.abandoned(request)
            else:
                node.failed(request, Failure(what), now_s, 0.5)
    for request in open_requests:
        node.abandoned(request)
    now_s += 2 * breaker.LONGEST_OPEN_S
    for _ in range(breaker.SUCCESSES_TO_CLOSE):
        assert node.admits(now_s)
        node.succeeded(node.begin(), now_s)
    assert node.state(now_s) is Circuit.CLOSED

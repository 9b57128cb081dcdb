"""Rate limits over virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_router.keys import Key
from drift_router.limits import BURST_S, Bucket, Limits

DIGEST = "0" * 64


def test_a_bucket_holds_some_seconds_and_says_when_to_come_again() -> None:
    bucket = Bucket(60.0, now_s=100.0)  # one a second
    assert [bucket.take(1, 100.0) for _ in range(10)] == [0.0] * 10
    assert bucket.take(1, 100.0) == pytest.approx(1.0)
    assert bucket.take(1, 100.25) == pytest.approx(0.75)
    assert bucket.take(1, 101.0) == 0.0
    assert bucket.take(3, 101.0) == pytest.approx(3.0)


def test_a_slow_limit_lets_one_through_at_a_time() -> None:
    bucket = Bucket(1.0, now_s=0.0)
    assert bucket.take(1, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(60.0)
    assert bucket.take(1, 60.0) == 0.0


def test_one_request_above_the_burst_is_let_through_and_paid_for() -> None:
    bucket = Bucket(6000.0, now_s=0.0)  # 100 a second, 1000 at once
    assert bucket.take(5000, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(40.01)
    assert bucket.take(1, 40.1) == 0.0


def test_what_was_used_is_settled_afterwards() -> None:
    bucket = Bucket(6000.0, now_s=0.0)
    bucket.take(1000, 0.0)
    bucket.settle(-900, 0.0)
    assert bucket.take(900, 0.0) == 0.0
    bucket.settle(200, 0.0)
    assert bucket.take(100, 0.0) == pytest.approx(3.0)


@given(
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 1e4), st.floats(-1, 100)), max_size=50),
)
def test_over_any_time_no_more_is_granted_than_the_rate_and_two_bursts(
    per_minute: float, asks: list[tuple[float, float]]
) -> None:
    """One burst that the bucket holds, and one request that overdraws it; also when the clock jumps back."""
    bucket, now_s, latest_s, granted = Bucket(per_minute, 0.0), 0.0, 0.0, 0.0
    for cost, elapsed_s in asks:
        now_s += elapsed_s
        latest_s = max(latest_s, now_s)
        wait_s = bucket.take(cost, now_s)
        assert wait_s >= 0
        if wait_s == 0:
            granted += cost
            allowed = per_minute / 60 * (latest_s + BURST_S) + 1 + max(cost for cost, _ in asks)
            assert granted <= allowed * 1.001
        else:
            assert bucket.wait_s(cost, latest_s + wait_s) == pytest.approx(0.0, abs=1e-3)
            latest_s += wait_s
            now_s = latest_s


def test_a_key_has_a_bucket_for_requests_and_one_for_tokens() -> None:
    limits = Limits()
    key = Key("a", DIGEST, requests_per_minute=12, tokens_per_minute=6000)  # 2 and 1000 at once
    assert limits.take(key, 900, 0.0) == 0.0
    assert limits.take(key, 200, 0.0) == pytest.approx(
        1.0
    )  # waits for tokens; the request was not taken either
    assert limits.take(key, 50, 0.0) == 0.0
    assert limits.take(key, 1, 0.0) == pytest.approx(5.0)  # for requests
    limits.settle(key, 900, 2900, 0.0)
    assert limits.take(key, 1, 0.0) == pytest.approx(19.51, abs=0.02)


def test_a_key_without_limits_never_waits() -> None:
    limits, key = Limits(), Key("a", DIGEST)
    assert {limits.take(key, 10**9, 0.0) for _ in range(100)} == {0.0}
    limits.settle(key, 0, 10**9, 0.0)


def test_keys_do_not_share_and_workers_divide() -> None:
    one, other = (Key(name, DIGEST, requests_per_minute=60) for name in "ab")
    limits = Limits(share=0.5)
    assert [limits.take(one, 0, 0.0) == 0.0 for _ in range(6)] == [True] * 5 + [False]
    assert limits.take(other, 0, 0.0) == 0.0


def test_a_changed_limit_counts_from_now_on_and_forgotten_keys_start_anew() -> None:
    limits = Limits()
    slow = Key("a", DIGEST, requests_per_minute=1)
    assert limits.take(slow, 0, 0.0) == 0.0
    assert limits.take(slow, 0, 0.0) > 0.0
    assert limits.take(Key("a", DIGEST, requests_per_minute=600), 0, 0.0) == 0.0
    assert limits.take(slow, 0, 0.0) == 0.0
    limits.keep({"b"})
    assert limits.take(slow, 0, 0.0) == 0.0

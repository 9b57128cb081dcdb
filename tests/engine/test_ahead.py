"""What a node tells a router of the wait of a prompt that would come now."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.scheduling import ahead, order
from drift_engine.scheduling.ahead import LENGTHS_TOKENS, Queued

NOW_S = 100.0
TOKENS_PER_S = 10_000.0


def ttft_s(uncached_tokens: int) -> float:
    return 1.0 + 0.0002 * uncached_tokens


def queued(
    tokens: int,
    *,
    waited_s: float = 0.0,
    whole: int | None = None,
    under_way: bool = False,
    priority: int = 0,
) -> Queued:
    """`whole` is how long it was before some of it was computed."""
    arrival_s = NOW_S - waited_s
    return Queued(tokens, arrival_s, arrival_s + ttft_s(whole or tokens), priority, under_way)


def told(*prompts: Queued) -> dict[int, int]:
    found = ahead.told(prompts, ttft_s, TOKENS_PER_S, NOW_S)
    assert [one.prompt_tokens for one in found] == list(LENGTHS_TOKENS)
    return {one.prompt_tokens: one.queued_tokens for one in found}


def test_what_is_under_way_is_waited_for_where_there_is_time() -> None:
    assert told(queued(4000, under_way=True))[512] == 4000


def test_a_long_prompt_lets_a_short_one_pass_that_would_be_late_behind_it() -> None:
    """90,000 tokens take 9 s, and have 19 s; 512 have 1.1 s."""
    assert told(queued(90_000, under_way=True))[512] == 0


def test_one_without_a_moment_to_spare_lets_nobody_pass() -> None:
    """It has to be computed from now on without a pause."""
    assert told(queued(90_000, waited_s=9.99, under_way=True))[512] == 90_000


def test_late_long_ones_are_no_wait_for_a_short_one() -> None:
    late = queued(30_000, waited_s=10.0), queued(60_000, waited_s=14.0)
    found = told(queued(50_000, waited_s=12.0, under_way=True), *late)
    assert (found[512], found[32_768], found[65_536]) == (0, 30_000, 50_000)


def test_a_prompt_that_waits_without_haste_stands_behind_a_short_one() -> None:
    """It has 5 s before it must start."""
    found = told(queued(40_000))
    assert (found[512], found[65_536]) == (0, 40_000)


def test_who_has_waited_for_too_long_is_passed_by_nobody() -> None:
    assert set(told(queued(2000, waited_s=1.4 * order.FIRM_TARGETS)).values()) == {2000}


def test_priorities_go_first() -> None:
    found = told(queued(3000, priority=1), queued(500, priority=-1))
    assert set(found.values()) == {3000}


@pytest.mark.parametrize(
    ("tokens", "waited_s", "expected"),
    [(4000, 0.0, 4000), (90_000, 0.0, 0), (90_000, 9.99, 90_000)],
)
def test_one_of_less_priority_that_is_under_way_is_passed_like_any_other(
    tokens: int, waited_s: float, expected: int
) -> None:
    assert told(queued(tokens, waited_s=waited_s, under_way=True, priority=-1))[512] == expected


def test_who_would_be_late_alone_waits_for_all() -> None:
    """It steps back behind those that can be in time and behind those that came earlier."""
    some = queued(2000, waited_s=3.0), queued(300), queued(1500, under_way=True)
    found = {
        one.prompt_tokens: one.queued_tokens for one in ahead.told(some, lambda _: 0.4, TOKENS_PER_S, NOW_S)
    }
    assert found[65_536] == found[8192] == 3800
    assert found[512] < 3800


prompts = st.lists(
    st.builds(
        queued,
        st.integers(1, 200_000),
        waited_s=st.floats(0.0, 60.0),
        whole=st.integers(1, 300_000),
        under_way=st.booleans(),
        priority=st.sampled_from([-1, 0, 0, 0, 1]),
    ),
    max_size=8,
)


@given(prompts)
def test_no_more_goes_before_it_than_there_is_nor_less_than_what_is_firm(some: Sequence[Queued]) -> None:
    counted = [one for one in some if one.priority >= 0 or one.under_way]
    most = sum(one.tokens for one in counted)
    least = sum(
        one.tokens
        for one in counted
        if one.priority > 0 or order.firm_s(one.arrival_s, one.deadline_s) <= NOW_S
    )
    assert all(least <= tokens <= most for tokens in told(*some).values())


@given(prompts)
def test_it_depends_on_who_is_queued_and_not_in_which_order(some: Sequence[Queued]) -> None:
    assert told(*some) == told(*reversed(some))

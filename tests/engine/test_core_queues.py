"""What is kept between decisions is what would be found anew: the order of the line, what is cached of a prompt."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_engine import wire
from drift_engine.cache import KvCache, OutOfPages, Sequence
from drift_engine.core import pictures
from drift_engine.core.queues import AHEAD_S, Queues
from drift_engine.core.requests import Promise, Request
from drift_engine.scheduling import order, overtaking, views

PAGE_TOKENS = 2
LIMITS = views.Limits(8, None, 64, 4)


def request(
    name: str, arrival_s: float, token_ids: list[int], promise: Promise, priority: int = 0
) -> Request:
    sampling = wire.Sampling(max_tokens=8)
    submit = wire.Submit(name, token_ids, sampling, arrival_s, priority=priority)
    return Request(submit, promise, frozenset())


@settings(deadline=None)
@given(data=st.data())
def test_the_line_is_the_one_that_sorting_would_give(data: st.DataObject) -> None:
    queues, promise = Queues(), Promise(wire.Targets(400.0, 0.0, 80.0))
    now_s, rate = 0.0, 100.0
    for index in range(data.draw(st.integers(1, 15))):
        action = data.draw(st.sampled_from(["enqueue", "admit", "remove", "targets", "rate", "nothing"]))
        now_s += data.draw(st.sampled_from([0.0, 0.01, 0.3, 2.0]))
        if action == "enqueue":
            tokens = [1] * data.draw(st.integers(1, 60))
            queues.enqueue(request(f"r{index}", now_s, tokens, promise, data.draw(st.integers(0, 1))))
        elif action == "targets":
            promise.targets = wire.Targets(data.draw(st.sampled_from([100.0, 1000.0])), 0.0, 80.0)
            queues.settle()
        elif action == "rate":
            rate = data.draw(st.sampled_from([0.0, 50.0, 500.0]))
        elif action != "nothing" and queues.waiting:
            chosen = data.draw(st.sampled_from(queues.waiting))
            if action == "admit":
                queues.admit(chosen.request_id)
            else:
                queues.remove(chosen)
        assert list(queues.line(rate, now_s)) == order.line(queues.waiting, rate, now_s)[0]
        assert list(queues.line(None, now_s)) == queues.waiting


tokens = st.builds(lambda count, last: [0] * count + [last], st.integers(1, 11), st.integers(0, 1))


@settings(deadline=None)
@given(data=st.data())
def test_a_picture_shows_what_is_cached_now(data: st.DataObject) -> None:
    queues, cache = Queues(), KvCache(16, PAGE_TOKENS)
    promise = Promise(wire.Targets(400.0, 0.0, 80.0))
    for index in range(3):
        queues.enqueue(request(f"w{index}", float(index), data.draw(tokens), promise))
    opened: list[tuple[Sequence, list[int]]] = []
    for _ in range(data.draw(st.integers(1, 20))):
        action = data.draw(st.sampled_from(["open", "publish", "close", "flush"]))
        if action == "open":
            token_ids = data.draw(tokens)
            sequence = cache.open(token_ids, "")
            try:
                cache.reserve(sequence, len(token_ids))
                opened.append((sequence, token_ids))
            except OutOfPages:
                cache.close(sequence)
        elif action == "flush":
            cache.flush()
        elif opened:
            sequence, token_ids = data.draw(st.sampled_from(opened))
            if action == "publish":
                cache.publish(sequence, token_ids, len(token_ids))
            else:
                cache.close(sequence)
                opened = [one for one in opened if one[0] is not sequence]
        state = pictures.take(queues, cache, LIMITS, views.Lanes(1), frozenset(), None, 0.0)
        assert state.waiting
        for view in state.waiting:
            waiting = cast("Request", queues.find(view.request_id))
            found = cache.match(waiting.tokens, "")
            assert (view.cached_tokens, view.idle_pages) == (found.tokens, found.idle_pages)


def held(cache: KvCache, token_ids: list[int]) -> None:
    """The cache keeps these."""
    sequence = cache.open(token_ids, "")
    cache.reserve(sequence, len(token_ids))
    cache.publish(sequence, token_ids, len(token_ids))
    cache.close(sequence)


def test_a_first_token_is_due_by_what_is_not_cached() -> None:
    cache, promise = KvCache(256, PAGE_TOKENS), Promise(wire.Targets(400.0, 10.0, 80.0))
    one = request("one", 5.0, [1] * 60 + [2] * 40, promise)
    assert one.waiting_view(cache).deadline_s == pytest.approx(5.0 + 0.4 + 100 * 0.01)
    held(cache, [1] * 60)
    assert one.waiting_view(cache).deadline_s == pytest.approx(5.0 + 0.4 + 40 * 0.01)


def test_a_time_of_its_own_is_kept_whatever_is_cached() -> None:
    cache, promise = KvCache(256, PAGE_TOKENS), Promise(wire.Targets(400.0, 10.0, 80.0))
    held(cache, [1] * 60)
    submit = wire.Submit("one", [1] * 100, wire.Sampling(max_tokens=8), 5.0, slo=wire.Slo(ttft_ms=700.0))
    assert Request(submit, promise, frozenset()).waiting_view(cache).deadline_s == pytest.approx(5.7)


def test_a_prompt_that_got_cached_moves_up_in_the_line() -> None:
    queues, cache = Queues(), KvCache(256, PAGE_TOKENS)
    promise = Promise(wire.Targets(400.0, 10.0, 80.0))
    queues.enqueue(request("long", 0.0, [1] * 99 + [2], promise))
    queues.enqueue(request("short", 0.1, [3] * 20, promise))

    def seen() -> list[str]:
        state = pictures.take(queues, cache, LIMITS, views.Lanes(1), frozenset(), 1000.0, 0.2)
        return [one.request_id for one in state.waiting]

    assert seen() == ["short", "long"]
    held(cache, [1] * 99)
    seen()  # it is found to be cached
    assert seen() == ["long", "short"]


def test_who_a_lane_works_on_is_not_in_the_picture() -> None:
    queues, cache = Queues(), KvCache(16, PAGE_TOKENS)
    promise = Promise(wire.Targets(400.0, 0.0, 80.0))
    for index in range(3):
        queues.enqueue(request(f"r{index}", float(index), [1, 2, 3], promise))
        queues.admit(f"r{index}")
    state = pictures.take(queues, cache, LIMITS, views.Lanes(1), {"r1"}, None, 0.0)
    assert [running.request_id for running in state.running] == ["r0", "r2"]
    assert state.in_flight == 1


def test_behind_a_long_prompt_others_are_seen_where_one_is_under_way() -> None:
    """They may overtake it; where nothing is prefilled, the next pass is full with the first."""
    queues, cache = Queues(), KvCache(256, PAGE_TOKENS)
    promise = Promise(wire.Targets(400.0, 0.0, 80.0))
    queues.enqueue(request("under way", 0.0, [1] * 100, promise))
    queues.enqueue(request("long", 1.0, [2] * 100, promise))
    for index in range(2 * overtaking.OVERTAKERS):
        queues.enqueue(request(f"short{index:02}", 2.0 + index, [3, index], promise))

    def seen() -> int:
        return len(pictures.take(queues, cache, LIMITS, views.Lanes(1), frozenset(), None, 0.0).waiting)

    assert seen() == 1
    queues.admit("under way")
    assert seen() == overtaking.OVERTAKERS


# what goes before a new prompt


def test_what_goes_before_a_new_prompt_is_known_as_soon_as_somebody_comes() -> None:
    queues, promise = Queues(), Promise(wire.Targets(400.0, 0.0, 80.0))

    def shortest(now_s: float) -> int | None:
        found = queues.ahead_of_new(promise, 1000.0, now_s)
        return found[0].queued_tokens if found else None

    assert shortest(0.0) is None
    queues.enqueue(request("a", 0.0, [1] * 100, promise))
    assert shortest(0.01) == 100
    queues.enqueue(request("b", 0.02, [2] * 30, promise))
    assert shortest(0.02) == 130
    queues.admit("b").computed = 29  # its last token is computed soon
    assert shortest(0.02 + 2 * AHEAD_S) == 101
    queues.remove(queues.running["b"])
    queues.remove(queues.waiting[0])
    assert shortest(0.5) is None


def test_served_first_come_first_served_nothing_is_told_by_length() -> None:
    queues, promise = Queues(), Promise(wire.Targets(400.0, 0.0, 80.0))
    queues.enqueue(request("a", 0.0, [1] * 100, promise))
    assert queues.ahead_of_new(promise, None, 0.0) == ()

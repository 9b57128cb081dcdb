"""Tokens and rights are judged by the cluster, and its judgement is remembered for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_operator.doors.external_metrics import ROOT, Access, Refused
from drift_operator.doors.front_proxy import User
from drift_operator.doors.remembering import Memory
from drift_operator.doors.reviewing import REMEMBERED_S, Reviews
from scripted_cluster import ScriptedCluster

ANNA = User("anna", groups=("staff",), extra={"scopes": ("read",)})
READING = Access.of("GET", f"{ROOT}/namespaces/ns/drift_slo_pressure")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def judged(scenario: Callable[[Reviews, ScriptedCluster, Clock], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        api, clock = ScriptedCluster(), Clock()
        await scenario(Reviews(api, clock), api, clock)

    asyncio.run(run())


def test_the_cluster_is_asked_whether_this_user_may_do_this() -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, _: Clock) -> None:
        api.allowed.add("anna")
        await reviews.authorize(ANNA, READING)
        (review,) = api.reviews
        assert review["spec"] == {
            "user": "anna",
            "uid": "",
            "groups": ["staff"],
            "extra": {"scopes": ["read"]},
            "resourceAttributes": {
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "namespace": "ns",
                "resource": "drift_slo_pressure",
                "verb": "list",
            },
        }

    judged(scenario)


def test_who_may_not_is_told_what() -> None:
    async def scenario(reviews: Reviews, _: ScriptedCluster, __: Clock) -> None:
        with pytest.raises(Refused, match=r"'anna' may not list drift_slo_pressure .* 'ns'") as refused:
            await reviews.authorize(ANNA, READING)
        assert refused.value.code == 403

    judged(scenario)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_judgement_is_remembered_for_some_seconds(allowed: bool) -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, clock: Clock) -> None:
        api.allowed = {"anna"} if allowed else set()
        for clock.now_s in (0.0, REMEMBERED_S - 0.1):
            await asyncio.gather(reviews.authorize(ANNA, READING), return_exceptions=True)
        assert len(api.reviews) == 1
        clock.now_s = REMEMBERED_S
        await asyncio.gather(reviews.authorize(ANNA, READING), return_exceptions=True)
        assert len(api.reviews) == 2

    judged(scenario)


def test_one_user_s_right_is_not_another_s() -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, _: Clock) -> None:
        api.allowed.add("anna")
        await reviews.authorize(ANNA, READING)
        with pytest.raises(Refused):
            await reviews.authorize(User("bert", groups=("staff",)), READING)

    judged(scenario)


def test_a_right_to_one_thing_is_not_a_right_to_another() -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, _: Clock) -> None:
        api.allowed.add("anna")
        await reviews.authorize(ANNA, READING)
        api.allowed.clear()
        with pytest.raises(Refused):
            await reviews.authorize(ANNA, Access.of("GET", f"{ROOT}/namespaces/other/drift_slo_pressure"))

    judged(scenario)


def test_a_token_s_user_is_whom_the_cluster_knows_by_it() -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, _: Clock) -> None:
        api.tokens["secret"] = {
            "username": "anna",
            "uid": "7",
            "groups": ["staff"],
            "extra": {"scopes": ["read"]},
        }
        assert await reviews.user("secret") == User(
            "anna", "7", ("staff", "system:authenticated"), {"scopes": ("read",)}
        )
        await reviews.user("secret")
        assert len(api.reviews) == 1

    judged(scenario)


def test_a_token_that_the_cluster_does_not_know_is_nobody_s() -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, _: Clock) -> None:
        for _again in range(2):
            with pytest.raises(Refused) as refused:
                await reviews.user("made-up")
            assert refused.value.code == 401
        assert len(api.reviews) == 1

    judged(scenario)


def test_an_endless_token_is_not_passed_on() -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, _: Clock) -> None:
        with pytest.raises(Refused, match="maximum 16384"):
            await reviews.user("x" * 16385)
        assert not api.reviews

    judged(scenario)


def test_nobody_is_let_in_while_the_cluster_does_not_answer() -> None:
    async def scenario(reviews: Reviews, api: ScriptedCluster, _: Clock) -> None:
        api.down = True
        for asked in (reviews.user("secret"), reviews.authorize(ANNA, READING)):
            with pytest.raises(Refused) as refused:
                await asked
            assert refused.value.code == 503
        api.down = False
        api.allowed.add("anna")
        await reviews.authorize(ANNA, READING)

    judged(scenario)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3)), max_size=60))
def test_a_memory_is_bounded_and_never_older_than_it_may_be(steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    memory: Memory[int, float] = Memory(2.0, 4, clock)
    for key, pause_s in steps:
        clock.now_s += pause_s
        found = memory.recall(key)
        assert found is None or clock.now_s - found < 2.0
        memory.keep(key, clock.now_s)
        assert len(memory) <= 4
        assert memory.recall(key) == clock.now_s

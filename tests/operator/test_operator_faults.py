"""Whatever goes wrong, and whenever: the operator comes to the same objects as one that nothing happened to.

The real operator, from its watches to its passes, in a cluster of memory and virtual time: calls are refused, lost or
answered late, watches lag and die, the operator itself ends at any call, and users change their minds meanwhile.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

import field_owners
import model_cluster
import virtual_time
from drift_operator.cluster import kinds
from drift_operator.objects.kinds import CONFIG_MAP, DEPLOYMENT, ROLE, SECRET, SERVICE, Kind
from faulty_api import Fault, Mishap
from model_cluster import NAMESPACE, ModelCluster
from operator_bed import SPEC, condition

Object = dict[str, Any]
Change = Callable[[ModelCluster], None]

LAST = {
    **SPEC,
    "replicas": 2,
    "engine": {"device": "sim", "image": "drift-engine:last"},
    "slo": {"window": "10s", "ttft": {"targetMs": 700}},
    "routing": {"replicas": 2},
    "paused": False,
    "expose": {"ingress": None},
    "multiplexing": {"mode": "auto"},
}
"""What the user wants in the end, whatever it was before."""

SETTLED_S = 480
"""Without faults: a watch that died in silence is given up after 90 s, a call is tried again after a minute at most,
and a Secret that somebody deleted is missed after 300 s."""

LOOK_S = 15
QUIET_S = 45

CHILDREN: list[tuple[Kind, str]] = [
    (DEPLOYMENT, "chat-node"),
    (DEPLOYMENT, "chat-router"),
    (SERVICE, "chat-nodes"),
    (CONFIG_MAP, "chat-promise"),
    (ROLE, "chat-router"),
    (SECRET, "chat-control"),
]


def changed(**spec: Any) -> Change:
    return lambda cluster: cluster.apply(spec)


def deleted(child: tuple[Kind, str]) -> Change:
    kind, name = child

    def delete(cluster: ModelCluster) -> None:
        if cluster.api.find(kind, NAMESPACE, name) is not None:
            cluster.api.delete(kind, NAMESPACE, name)

    return delete


def edited(name: str, patch: Object) -> Change:
    """A Deployment, by hand."""

    def edit(cluster: ModelCluster) -> None:
        if cluster.api.find(DEPLOYMENT, NAMESPACE, name) is not None:
            cluster.api.merge(DEPLOYMENT, NAMESPACE, name, {"spec": patch}, "user")
            # Of a paused service that is the user's word; of others it is taken back.
            cluster.machines.fewest = min(cluster.machines.fewest, patch.get("replicas", math.inf))

    return edit


def made_anew(cluster: ModelCluster) -> None:
    """Another service of the same name."""
    cluster.api.delete(kinds.DRIFT_SERVICE, NAMESPACE, "chat")
    cluster.apply(SPEC | {"replicas": 2})


def pods(cluster: ModelCluster) -> list[Object]:
    return [pod for _, pod in cluster.api.all(kinds.POD)]


def pod_deleted(number: int) -> Change:
    def delete(cluster: ModelCluster) -> None:
        if found := pods(cluster):
            cluster.api.delete(kinds.POD, NAMESPACE, found[number % len(found)]["metadata"]["name"])

    return delete


def pod_broken(number: int) -> Change:
    """Not ready for a while."""

    def broken(cluster: ModelCluster) -> None:
        if found := pods(cluster):
            uid = found[number % len(found)]["metadata"]["uid"]
            cluster.machines.processes[uid].broken_until_s = cluster.now_s + 15

    return broken


def struck(mishap: Mishap) -> Change:
    return lambda cluster: cluster.way.strike(mishap)


def late(lag_s: float) -> Change:
    def lag(cluster: ModelCluster) -> None:
        cluster.way.lag_s = lag_s

    return lag


def slow(call_s: float) -> Change:
    def slowed(cluster: ModelCluster) -> None:
        cluster.way.slow_s = call_s

    return slowed


def silent(calls: int) -> Change:
    """So many calls to pods fail."""

    def silence(cluster: ModelCluster) -> None:
        cluster.silent = calls

    return silence


NUMBERS = st.integers(0, 7)

CHANGES = st.one_of(
    st.builds(changed, replicas=st.integers(1, 4)),
    st.builds(
        changed, engine=st.sampled_from([{"device": "sim", "image": f"drift-engine:{n}"} for n in "ab"])
    ),
    st.builds(changed, slo=st.sampled_from([{"ttft": {"targetMs": ms}} for ms in (300, 900)])),
    st.builds(changed, routing=st.sampled_from([{"replicas": count} for count in (1, 3)])),
    st.builds(changed, paused=st.booleans()),
    st.builds(
        changed, expose=st.sampled_from([{"ingress": {"host": "chat.example.com"}}, {"ingress": None}])
    ),
    st.builds(changed, multiplexing=st.sampled_from([{"mode": mode} for mode in ("disaggregated", "auto")])),
    st.builds(deleted, st.sampled_from(CHILDREN)),
    st.builds(edited, st.just("chat-node"), st.builds(lambda count: {"replicas": count}, st.integers(1, 5))),
    st.builds(edited, st.just("chat-router"), st.just({"revisionHistoryLimit": 9})),
    st.just(made_anew),
    st.builds(pod_deleted, NUMBERS),
    st.builds(pod_broken, NUMBERS),
    st.builds(struck, st.sampled_from(Mishap)),
    st.builds(late, st.sampled_from([0.0, 0.3, 2.0, 12.0])),
    st.builds(slow, st.sampled_from([0.0, 0.3, 1.2])),
    st.builds(silent, st.integers(1, 12)),
    st.just(ModelCluster.kill),
)

STEPS = st.tuples(CHANGES, st.sampled_from([0.0, 0.7, 2.0, 5.0, 11.0]))


async def settled(cluster: ModelCluster, shape: Object) -> None:
    """Nothing goes wrong any more. Returns early where all is as it will be."""
    cluster.way.mend()
    cluster.silent, cluster.machines.busy = 0, False
    for _ in range(SETTLED_S // LOOK_S):
        await cluster.wait(LOOK_S)
        status = cluster.status()
        done = condition(status, "Ready") == "True" and condition(status, "Progressing") == "False"
        if done and cluster.shape() == shape:
            break


@functools.cache
def undisturbed() -> Object:
    """The objects that nothing happened to."""

    async def scenario() -> Object:
        async with model_cluster.running() as cluster:
            cluster.apply(LAST)
            await cluster.wait(60)
            return cluster.shape()

    return virtual_time.run(scenario())


TAKEN: list[tuple[Change, float]] = [
    (changed(replicas=4), 11.0),
    (slow(0.3), 0.0),
    (changed(replicas=1), 30.0),
]
"""Several nodes leave at once, with more and less to do."""


@example(TAKEN, {}, 0.0, [0.0, 30.0])
@example(TAKEN, {}, 0.0, [30.0, 4.0, 0.0])
@settings(max_examples=40)
@given(
    steps=st.lists(STEPS, max_size=8),
    faults=st.dictionaries(st.integers(1, 160), st.sampled_from(Fault), max_size=10),
    faulty_s=st.sampled_from([0.0, 4.0, 30.0]),
    work_s=st.lists(st.sampled_from([0.0, 4.0, 12.0, 30.0]), min_size=1, max_size=4),
)
def test_whatever_happens_it_comes_to_the_same_objects_and_takes_no_work_away(
    steps: list[tuple[Change, float]], faults: dict[int, Fault], faulty_s: float, work_s: list[float]
) -> None:
    shape = undisturbed()

    async def scenario() -> None:
        async with model_cluster.running(faults) as cluster:
            cluster.machines.work_s = tuple(work_s)
            cluster.apply(SPEC | {"replicas": 2})
            await cluster.wait(12)
            for change, after_s in steps:
                change(cluster)
                await cluster.wait(after_s)
            cluster.apply(LAST)
            await cluster.wait(faulty_s)
            await settled(cluster, shape)
            assert field_owners.differences(cluster.shape(), shape) == {}, cluster.warnings
            assert condition(cluster.status(), "Ready") == "True", cluster.status()
            assert condition(cluster.status(), "Progressing") == "False", cluster.status()
            assert cluster.machines.faults == []
            assert cluster.errors == []
            version = cluster.api.version
            await cluster.wait(QUIET_S)
            assert list(cluster.api.since(version)) == [], "written at rest"

    virtual_time.run(scenario())


def test_a_look_that_fails_is_no_news_and_silence_is() -> None:
    pods = 4

    async def scenario() -> None:
        async with model_cluster.running() as cluster:
            cluster.apply(LAST)
            await cluster.wait(60)
            version = cluster.api.version
            silent(pods + 1)(cluster)
            await cluster.wait(QUIET_S)
            assert list(cluster.api.since(version)) == [], "written for one answer that did not come"
            silent(1000)(cluster)
            await cluster.wait(20)
            assert condition(cluster.status(), "RouterReady") == "False"

    virtual_time.run(scenario())

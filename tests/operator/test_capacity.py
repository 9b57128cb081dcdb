"""How many nodes: the search, and what a plan says."""

from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_cli import capacity, plan_page
from drift_cli.capacity import Choice, Outlook, Plan, Tried
from drift_cli.plan_page import Course
from drift_engine.bench.results import Percentiles, Slo, Workload


@given(need=st.integers(1, 300), most=st.integers(1, 200), first=st.integers(1, 250))
def test_the_fewest_nodes_are_found_in_few_runs(need: int, most: int, first: int) -> None:
    nodes, tried = capacity.least(lambda count: (min(1.0, count / need), count >= need), most, first)
    assert nodes == (need if need <= most else None)
    assert [one.nodes for one in tried] == sorted({one.nodes for one in tried})
    assert len(tried) <= 2 * most.bit_length() + 1
    for one in tried:
        assert one.kept == (one.nodes >= need)


def outlook(nodes: int | None, p99_ms: float = 500.0) -> Outlook:
    tried = (Tried(1, 0.4, kept=False), Tried(nodes or 9, 0.97, kept=nodes is not None))
    if nodes is None:
        return Outlook(nodes=None, tried=tried)
    return Outlook(
        nodes=nodes,
        tried=tried,
        attainment=0.97,
        ttft_ms=Percentiles(p99=p99_ms),
        worst_gap_p99_ms=24.0,
        cached_share=0.2,
        gpu_s=80.0,
        gpu_s_per_good=1.5,
        window_s=30.0,
    )


def plan(*choices: Choice) -> Plan:
    return Plan(
        date="2026-01-01",
        command="drift plan --trace <odd>&.jsonl",
        drift_version="0",
        model="llama-8b",
        hardware="h200",
        gpus=1,
        workload=Workload(trace="<odd>&.jsonl", format="mooncake"),
        requests=100,
        rate_rps=3.0,
        slo=Slo(ttft_ms=1000, tbt_ms=25),
        levers="off",
        max_nodes=9,
        loss_at_s=10.0,
        choices=choices,
    )


def choice(whole: int | None, bereft: int | None, mode: str = "auto", p99_ms: float = 500.0) -> Choice:
    return Choice(
        mode=mode, policy="cache-aware", whole=outlook(whole, p99_ms), bereft=outlook(bereft, p99_ms)
    )


def test_the_best_way_needs_the_fewest_nodes_when_one_dies_and_of_equals_is_the_quickest() -> None:
    found = plan(choice(2, 5, "fused"), choice(3, 4, "auto"), choice(3, 4, "mux", 400.0), choice(2, None))
    assert found.best is found.choices[2]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            (choice(3, 4),),
            "4 nodes (auto, cache-aware) keep the promise when one of them dies; 3 would do while none does.",
        ),
        (
            (choice(3, 3),),
            "3 nodes (auto, cache-aware) keep the promise, also when one of them dies.",
        ),
        (
            (msgspec.structs.replace(choice(1, 1), bereft=None),),
            "1 node (auto, cache-aware) keeps the promise.",
        ),
        (
            (choice(4, None),),
            "Not even 9 nodes keep the promise, in any of the ways that were tried.",
        ),
    ],
)
def test_what_to_do_is_one_sentence(choices: tuple[Choice, ...], said: str) -> None:
    assert capacity.sentence(plan(*choices)) == said


def test_few_requests_tell_little() -> None:
    few = plan(choice(3, 4))
    assert capacity.caution(few) == (
        "With 100 requests 1 may miss the promise, so that one more or less decides: "
        "1,000 requests or more tell it from chance."
    )
    assert "1,000 requests or more" in plan_page.page(few)
    assert capacity.caution(msgspec.structs.replace(few, requests=1000)) is None
    whole = msgspec.structs.replace(few.slo, attainment_target=1.0)
    assert capacity.caution(msgspec.structs.replace(few, slo=whole)) is None


def test_a_plan_is_read_back_as_it_was_written() -> None:
    written = plan(choice(3, 4), choice(None, None))
    assert msgspec.json.decode(capacity.dump(written), type=Plan) == written


@pytest.mark.parametrize("choices", [(choice(3, 4), choice(2, None, "fused")), (choice(None, None),)])
def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(choices: tuple[Choice, ...]) -> None:
    courses = [Course(name, [0.0, 10.0, 20.0], [True, False, True]) for name in ("no node lost", "one dies")]
    page = plan_page.page(plan(*choices), courses if choices[0].needed else ())
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            assert not {"src", "href", "onclick", "onload"} & {name for name, _ in attrs}

    Reader().feed(page)
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert "prefers-color-scheme: dark" in page
    assert "&lt;odd&gt;&amp;.jsonl" in page
    assert "<odd>" not in page
    pictures = page.split("<svg")[1:]
    assert len(pictures) == (3 if choices[0].needed else 1)
    for picture in pictures:
        ElementTree.fromstring("<svg" + picture.partition("</svg>")[0] + "</svg>")

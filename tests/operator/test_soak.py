"""What a soak concludes from its log, what it asks and in which order it does harm; the soak itself takes an hour."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from benchmarks.soak import faults, report, summary, traffic, watch
from benchmarks.soak.__main__ import Log, read
from benchmarks.soak.asking import Answer, BrokenError, Reading, RefusedError
from benchmarks.soak.looks import Claim, Injected, Line, Look, Memory, Pressure, Request
from hypothesis import given
from hypothesis import strategies as st

from drift_engine.bench import traces

TRACES = Path(__file__).parents[1] / "support" / "traces"
MIB = 2**20

WELL = Claim(3, 2, ("Degraded=False:AsExpected", "Ready=True:Serving"))
TOLD = Claim(2, 2, ("Degraded=True:NodeUnready", "Ready=True:Serving"))


def look(at_s: float, nodes: int = 3, routers: int = 2, claim: Claim | None = WELL) -> Look:
    return Look(at_s, nodes, routers, 1, claim)


def request(at_s: float, *troubles: str, lost: bool = False, wrong: bool = False) -> Request:
    return Request(at_s, 1.0, 0, troubles, lost=lost, wrong=wrong, ttft_s=0.1)


def summarized(*lines: Line, end_s: float = 120.0) -> summary.Summary:
    return summary.summarize(lines, 3, 2, end_s)


def episode(*lines: Line) -> summary.Episode:
    return summarized(Injected(10.0, "node-killed", "n", 10.0), *lines).episodes[0]


def test_fault_is_told_when_the_status_first_says_that_something_is_missing() -> None:
    found = episode(look(0.0), look(10.0, nodes=2), look(13.5, nodes=2, claim=TOLD), look(40.0))
    assert found.told_s == 3.5
    assert found.untrue_s == 3.5
    assert found.well_s == 30.0


def test_fault_that_nobody_saw_was_well_at_once() -> None:
    found = episode(look(0.0))
    assert (found.told_s, found.untrue_s, found.well_s) == (None, 0.0, 0.0)


def test_fault_that_is_not_over_before_the_next_was_never_well() -> None:
    assert episode(look(0.0), look(10.0, nodes=2)).well_s is None


def test_status_that_still_names_a_lost_node_after_its_return_is_untrue() -> None:
    found = episode(look(0.0), look(10.0, nodes=2, claim=TOLD), look(20.0, claim=TOLD), look(29.0))
    assert found.untrue_s == 9.0


def test_status_that_nobody_can_read_is_counted_apart() -> None:
    found = episode(look(0.0), look(10.0, claim=None), look(16.0))
    assert (found.untrue_s, found.unread_s, found.well_s) == (0.0, 6.0, 6.0)


def test_ready_without_a_router_is_untrue() -> None:
    assert not look(0.0, routers=0, claim=Claim(3, 0, WELL.conditions)).true


def test_requests_count_for_the_fault_in_whose_time_they_ended() -> None:
    found = summarized(
        Injected(10.0, "a", "", 10.0),
        Injected(50.0, "b", "", 50.0),
        look(0.0),
        request(9.5, "broken: x"),
        request(49.5, "refused: 503: y", lost=True),
        request(60.0, wrong=True),
        request(5.0),
    )
    assert [(each.requests, each.troubled, each.lost, each.wrong) for each in found.episodes] == [
        (1, 1, 0, 0),
        (2, 1, 1, 1),
    ]
    assert (found.requests, found.lost, found.wrong, found.troubled) == (4, 1, 1, 2)
    assert found.troubles == {"broken: x": 1, "refused: 503": 1}


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=1, max_size=20))
def test_spans_cover_the_time_once(marks: list[tuple[float, bool]]) -> None:
    looks = [look(at_s, nodes=3 if well else 2) for at_s, well in sorted(marks)]
    spans = list(summary.spanned(looks, 20.0, 120.0))
    assert sum(end - begin for begin, end, _ in spans) == pytest.approx(120.0 - max(20.0, looks[0].at_s))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def life(container: str, begin_s: float, mib: list[float]) -> list[Memory]:
    return [
        Memory(begin_s + 60.0 * place, "node", container, int(held * MIB)) for place, held in enumerate(mib)
    ]


def test_slope_is_that_of_the_lives_and_not_of_the_steps_between_them() -> None:
    lives = life("a", 0.0, [500.0 + place for place in range(20)]) + life(
        "b", 600.0, [900.0 + place for place in range(20)]
    )
    (found,) = summary.slopes(lives)
    assert found.mib_per_hour == pytest.approx(60.0, abs=0.1)
    assert (found.containers, found.judged) == (2, 2)
    assert found.most_mib == 919.0


def test_slope_leaves_out_the_beginning_of_a_life() -> None:
    (found,) = summary.slopes(life("a", 0.0, [100.0 * place for place in range(5)] + [700.0] * 15))
    assert found.mib_per_hour == 0.0
    assert found.first_mib == 700.0


def test_short_lives_have_no_slope() -> None:
    (found,) = summary.slopes(life("a", 0.0, [500.0] * 7))
    assert (found.judged, found.mib_per_hour) == (0, None)


def test_every_fault_comes_before_any_comes_twice() -> None:
    drawn = faults.order(faults.FAULTS, 2 * len(faults.FAULTS) + 3, random.Random(1))
    first = drawn[: len(faults.FAULTS)]
    assert {fault.name for fault in first} == {fault.name for fault in faults.FAULTS}
    assert set(Counter(fault.name for fault in drawn).values()) == {2, 3}


def test_order_is_the_seeds() -> None:
    orders = {tuple(each.name for each in faults.order(faults.FAULTS, 9, random.Random(7))) for _ in range(3)}
    assert len(orders) == 1


def test_questions_are_of_both_traces_and_sessions_grow() -> None:
    asked = traffic.questions(
        traces.read(TRACES / "agent_sessions_piece.jsonl.gz"),
        traces.read(TRACES / "azure2023_conversation_piece.csv"),
        24,
    )
    turns = [each for each in asked if each.session is not None]
    assert len(asked) == 24
    assert len(turns) == 8
    assert [each.index for each in asked] == list(range(24))
    texts: dict[str | None, str] = {}
    for turn in turns:
        assert turn.text is not None
        assert turn.text.startswith(texts.get(turn.session, ""))
        texts[turn.session] = turn.text


def test_times_are_bounded_and_go_round() -> None:
    drawn = list(traffic.times(10, 5.0, 600.0, seed=3))
    assert [question for _, question in drawn[:12]] == [*range(10), 0, 1]
    assert all(before < after < 600.0 for (before, _), (after, _) in itertools.pairwise(drawn))
    assert len(drawn) == pytest.approx(3000, rel=0.1)


def event(**fields: object) -> bytes:
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def test_answer_is_read_whole() -> None:
    reading = Reading()
    reading.feed(event(choices=[{"text": "a"}]), 0.5)
    reading.feed(event(choices=[{"text": "b", "finish_reason": "length"}]), 0.6)
    reading.feed(event(choices=[], usage={"completion_tokens": 2}) + b"data: [DONE]\n\n", 0.7)
    assert reading.whole() == Answer("ab", "length", 2)
    assert reading.ttft_s == 0.5


def test_answer_without_its_end_is_broken() -> None:
    reading = Reading()
    reading.feed(event(choices=[{"text": "a"}]), 0.5)
    with pytest.raises(BrokenError, match="before the answer did"):
        reading.whole()


def test_error_in_a_stream_breaks_the_answer() -> None:
    with pytest.raises(BrokenError, match="lost"):
        Reading().feed(event(error={"message": "lost"}), 0.5)


def test_stream_without_an_answer_was_refused() -> None:
    with pytest.raises(RefusedError, match="empty"):
        Reading().whole()


def test_claim_is_what_the_status_says() -> None:
    status = {
        "readyReplicas": 2,
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Serving", "message": ""},
            {
                "type": "RouterReady",
                "status": "True",
                "reason": "Available",
                "message": "1 of 2 routers are available",
            },
        ],
    }
    assert watch.claimed(status) == Claim(2, 1, ("Ready=True:Serving", "RouterReady=True:Available"))


def test_what_else_the_machine_did_is_told_with_each_fault() -> None:
    pressures = [Pressure(5.0, 0.1), Pressure(20.0, 0.9), Pressure(30.0, 0.7)]
    assert episode(look(0.0), *pressures).cpu_pressure == 0.8


def test_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    lines: list[Line] = [look(0.0), request(1.0, "broken: x"), *life("a", 0.0, [5.0]), Pressure(1.0, 0.5)]
    log = Log(tmp_path / "soak.jsonl")
    for line in lines:
        log.add(line)
    log.close()
    assert read(tmp_path / "soak.jsonl") == lines


def test_report_has_a_row_for_each_fault_and_a_picture(tmp_path: Path) -> None:
    lines: list[Line] = [
        look(0.0),
        look(20.0, nodes=2),
        look(30.0),
        request(15.0),
        *life("a", 0.0, [500.0] * 2),
    ]
    lines.insert(0, Injected(10.0, "node-killed", "n-1", 10.0))
    found = summarized(*lines)
    report.write(found, lines, tmp_path / "soak.md", tmp_path / "soak.svg")
    text = (tmp_path / "soak.md").read_text()
    assert text.count("`node-killed`") == 1
    assert "1 requests" in text
    assert (tmp_path / "soak.svg").read_text().count("node-killed") >= 1

"""Who is prefilled before whom that is under way: decisions from pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drift_engine import wire
from drift_engine.latency.loads import Load
from drift_engine.scheduling import admission, order, overtaking, planner
from drift_engine.scheduling.plans import Plan
from drift_engine.scheduling.views import NOTHING, Cut, Flight, Lanes, Running, State, Waiting
from planner_pictures import SPLITS, Speeds, Unknown, decoding, lanes, new, state

SPEEDS = Speeds(0.02, 0.002)
"""1,000 prompt tokens take 250 ms on the 8 SMs, a decode step 20 ms on any."""

OVERTAKING = [wire.Mode.FUSED, wire.Mode.MUX, wire.Mode.AUTO, wire.Mode.OVERLAP]
NEVER = [mode for mode in wire.Mode if mode not in OVERTAKING and mode is not wire.Mode.MUXWISE]
"""First come, first served; `muxwise` is too, but for the interruption that its paper allows."""


def served(plan: Plan) -> list[str]:
    return [chunk.request_id for chunk in plan.prefill + plan.begin]


# between layers ---------------------------------------------------------------------------------------------


def cut(
    *, rest: Load = NOTHING, split: wire.Split | None = None, deadline_s: float = 2.0, firm_s: float = 8.0
) -> Cut:
    """A pass of 1,600 tokens, 400 ms on 8 SMs, of which a quarter is left."""
    return Cut(Load.prefill([(1600, 0)]), deadline_s, firm_s, split, 8, launched=6, done=6, rest=rest)


REST = Load.prefill([(3200, 1600)])
"""800 ms more of the same prompt."""


@pytest.mark.parametrize(
    ("tokens", "deadline_s", "rest", "expected"),
    [
        (100, 0.2, NOTHING, False),  # makes its target behind the pass
        (100, 0.2, REST, True),  # not behind the prompt, of which the pass is a part
        (100, 1.3, REST, False),  # behind the prompt too
        (400, 0.02, REST, False),  # not even before it
        (100, 0.02, REST, True),  # but takes next to nothing of what is left
        (600, 0.2, NOTHING, False),  # longer than what is left of the pass
        (600, 0.2, REST, True),  # not than what is left of the prompt
        (4000, 1.5, REST, False),
    ],
)
def test_what_is_left_is_all_of_the_prompt(
    tokens: int, deadline_s: float, rest: Load, expected: bool
) -> None:
    picture = state(waiting=(new("p", tokens, deadline_s=deadline_s),), lanes=lanes(cut=cut()), in_flight=1)
    assert (overtaking.between_layers(picture, cut(rest=rest), SPEEDS, 0.0) is not None) is expected


@pytest.mark.parametrize(
    ("deadline_s", "firm_s", "expected"),
    [
        (1.0, 8.0, True),  # 900 ms are left, 25 for the short one
        (0.91, 8.0, False),  # it would be late for the short one
        (0.89, 8.0, True),  # it is late anyway
        (0.89, 0.0, False),  # and is firm
    ],
)
def test_the_prompt_under_way_is_not_made_late(deadline_s: float, firm_s: float, expected: bool) -> None:
    long = cut(rest=REST, deadline_s=deadline_s, firm_s=firm_s)
    picture = state(waiting=(new("p", 100, deadline_s=0.2),), lanes=lanes(cut=long), in_flight=1)
    assert (overtaking.between_layers(picture, long, SPEEDS, 0.0) is not None) is expected


def test_a_part_of_the_device_takes_longer() -> None:
    picture = state(waiting=(new("p", 100, deadline_s=0.2),), lanes=lanes(cut=cut()), in_flight=1)
    assert not overtaking.between_layers(picture, cut(), SPEEDS, 0.0)
    on_four = cut(split=wire.Split(4, 4))  # 200 ms are left, and the short one takes 50
    assert overtaking.between_layers(picture, on_four, SPEEDS, 0.0)


def test_what_is_cached_needs_no_time() -> None:
    long = cut(rest=REST)
    for cached, expected in ((0, False), (800, True)):
        short = new("p", 1000, cached=cached, deadline_s=0.2)
        picture = state(waiting=(short,), lanes=lanes(cut=long), in_flight=1)
        assert (overtaking.between_layers(picture, long, SPEEDS, 0.0) is not None) is expected


def test_only_so_many_prefills_are_interrupted() -> None:
    long = cut(rest=REST)
    for cuts, expected in ((overtaking.MAX_INTERRUPTED, True), (overtaking.MAX_INTERRUPTED + 1, False)):
        picture = state(
            waiting=(new("p", 100, deadline_s=0.2),),
            lanes=Lanes(8, SPLITS, None, (long,) * cuts),
            in_flight=cuts,
        )
        assert (overtaking.between_layers(picture, long, SPEEDS, 0.0) is not None) is expected


def test_nobody_overtakes_where_nothing_is_known() -> None:
    long, short = cut(rest=REST), new("p", 100, deadline_s=0.2)
    picture = state(waiting=(short,), lanes=lanes(cut=long), in_flight=1)
    assert not overtaking.between_layers(picture, long, Unknown(), 0.0)
    picture = state(waiting=(short,), running=(under_way(),), free=2000, lanes=lanes())
    assert not overtaking.between_passes(picture, admission.make_room(picture), Unknown(), 0.0)


# between passes ---------------------------------------------------------------------------------------------


def under_way(
    *, remaining: int = 3600, deadline_s: float = 2.0, arrival_s: float = 0.0, name: str = "long"
) -> Running:
    """A prompt with 400 tokens computed and, on 8 SMs, 900 ms to go."""
    return Running(name, 400, remaining, arrival_s, 0.08, 0.08, deadline_s=deadline_s)


def between(short_tokens: int, short_deadline_s: float, long: Running) -> State:
    return state(
        waiting=(new("p", short_tokens, deadline_s=short_deadline_s),),
        running=(long,),
        free=2000,
        lanes=lanes(),
    )


@pytest.mark.parametrize("mode", OVERTAKING)
@pytest.mark.parametrize(
    ("tokens", "deadline_s", "long_deadline_s", "now_s", "expected"),
    [
        (100, 0.2, 2.0, 0.0, "p"),  # late behind all that is left of the long one
        (100, 1.3, 2.0, 0.0, "long"),  # makes its target behind it
        (100, 1.1, 2.0, 0.0, "p"),  # by less than what the long one may be late
        (400, 0.02, 2.0, 0.0, "long"),  # does not make it before it
        (100, 0.02, 2.0, 0.0, "p"),  # but takes next to nothing of what is left,
        (100, 0.02, 0.91, 0.0, "long"),  # with which the long one would be late
        (400, 0.20, 2.65, 1.5, "long"),  # is late and is not firm after 1.5 s,
        (400, 0.20, 2.65, 1.7, "p"),  # but after 1.6, whatever becomes of the long one
        (4000, 1.5, 2.0, 0.0, "long"),  # is the longer one
        (100, 0.2, 0.91, 0.0, "long"),  # would make it late
        (100, 0.2, 0.80, 0.0, "p"),  # which is late anyway
        (100, 6.5, 0.80, 6.3, "p"),  # and is not firm after 6.3 s,
        (100, 6.7, 0.80, order.firm_s(0.0, 0.80) + 0.1, "long"),  # but after 6.4
    ],
)
def test_a_short_prompt_goes_before_the_next_pass_of_a_long_one(
    mode: wire.Mode, tokens: int, deadline_s: float, long_deadline_s: float, now_s: float, expected: str
) -> None:
    picture = between(tokens, deadline_s, under_way(deadline_s=long_deadline_s))
    plan = planner.plan(mode, picture, SPEEDS, now_s)
    assert served(plan)[0] == expected
    if expected == "p":
        assert served(plan) == ["p"] == list(plan.admit)


@pytest.mark.parametrize("mode", NEVER)
def test_first_come_modes_finish_what_is_under_way(mode: wire.Mode) -> None:
    assert served(planner.plan(mode, between(100, 0.2, under_way()), SPEEDS, 0.0))[0] == "long"


@pytest.mark.parametrize("mode", wire.Mode)
def test_who_was_let_in_last_is_computed_first_where_prompts_overtake(mode: wire.Mode) -> None:
    late, long = under_way(name="late", remaining=200, arrival_s=0.1), under_way()
    picture = state(running=(long, late), free=2000, lanes=lanes())
    plan = planner.plan(mode, picture, SPEEDS, 0.0)
    assert served(plan)[0] == ("long" if mode in NEVER else "late")


def test_of_two_under_way_the_newest_is_the_one_that_is_overtaken() -> None:
    medium = under_way(name="medium", remaining=800)  # 200 ms
    for deadline_s, expected in ((0.5, False), (0.2, True)):
        picture = replace(between(100, deadline_s, under_way()), running=(under_way(), medium))
        assert (
            overtaking.between_passes(picture, admission.make_room(picture), SPEEDS, 0.0) is not None
        ) is expected


def test_beside_decode_a_prefill_has_its_part_of_the_device() -> None:
    picture = between(100, 1.3, under_way())
    for rows, expected in (((), False), ((decoding("d", 9),), True)):
        beside = replace(picture, running=(under_way(), *rows), lanes=lanes(split=wire.Split(4, 4)))
        assert (
            overtaking.between_passes(beside, admission.make_room(beside), SPEEDS, 0.0) is not None
        ) is expected


def test_where_rows_share_the_passes_a_prefill_takes_longer() -> None:
    """Ten chunks of 90 ms each with 20 ms for the rows: 1.1 s."""
    for rows, expected in (((), False), ((decoding("d", 9),), True)):
        picture = replace(between(100, 1.3, under_way()), running=(under_way(), *rows))
        room = admission.make_room(picture)
        assert (
            overtaking.between_passes(picture, room, SPEEDS, 0.0, chunk_tokens=360) is not None
        ) is expected


class Reusing(Speeds):
    """A prompt's tokens take the longer the more is before them: behind 10,000 that are cached, six times as long."""

    def pass_s(self, load: Load, sms: int) -> float | None:
        return (super().pass_s(load, sms) or 0.0) + 1e-6 * load.new_times_reused / sms


def test_who_overtakes_beside_rows_gets_the_chunk_that_its_own_context_allows() -> None:
    """The rows have 80 ms; 100 tokens behind 10,000 would take 170 beside their step."""
    row, speeds = decoding("d", 9), Reusing(0.02, 0.002)
    late = new("p", 10_100, cached=10_000, idle=0, deadline_s=0.6)
    running = (under_way(deadline_s=9.0), row)
    picture = state(waiting=(late,), running=running, free=2000, lanes=lanes())
    plan = planner.plan(wire.Mode.FUSED, picture, speeds, 0.0)
    assert served(plan)[0] == "p"
    load = Load.prefill([(chunk.tokens, chunk.reused_tokens) for chunk in plan.prefill])
    step_s = speeds.pass_s(admission.make_room(picture).decode + load, 8)
    assert step_s is not None
    assert step_s <= row.tbt_target_s


@pytest.mark.parametrize(
    ("deadline_s", "expected"),
    [
        (0.2, ["p", "long"]),
        (0.05, ["p"]),  # would be late at the end of a full pass
    ],
)
def test_a_pass_that_rows_share_is_filled_up_behind_who_overtakes(
    deadline_s: float, expected: list[str]
) -> None:
    picture = replace(between(40, deadline_s, under_way()), running=(under_way(), decoding("d", 9)))
    plan = planner.plan(wire.Mode.FUSED, picture, SPEEDS, 0.0)
    assert served(plan) == expected
    assert plan.prefill[0].tokens == 40
    if len(expected) > 1:
        (usual,) = planner.plan(wire.Mode.FUSED, replace(picture, waiting=()), SPEEDS, 0.0).prefill
        assert sum(chunk.tokens for chunk in plan.prefill) == usual.tokens


def test_of_a_pass_without_rows_who_overtakes_has_all() -> None:
    assert served(planner.plan(wire.Mode.FUSED, between(40, 0.2, under_way()), SPEEDS, 0.0)) == ["p"]


class Contended(Speeds):
    """Beside another lane everything takes half as long again."""

    def beside_s(self, load: Load, sms: int, neighbour: Load) -> float | None:
        return 1.5 * (self.pass_s(load, sms) or 0.0)


def test_beside_a_decode_step_a_prefill_takes_longer() -> None:
    """100 ms of the pass and 800 of the prompt are left on 8 SMs."""
    speeds, part = Contended(0.02, 0.002), wire.Split(4, 8)
    for flight, expected in ((None, False), (Flight(Load.decode(1, 9), part, 0.02, 0.08), True)):
        picture = state(
            waiting=(new("p", 100, deadline_s=1.3),), lanes=lanes(flight=flight, cut=cut()), in_flight=1
        )
        assert (
            overtaking.between_layers(picture, cut(rest=REST, split=part), speeds, 0.0) is not None
        ) is expected
    for rows, expected in (((), False), ((decoding("d", 9),), True)):
        picture = replace(between(100, 1.3, under_way()), running=(under_way(), *rows))
        picture = replace(picture, lanes=lanes(split=part, mode=wire.Mode.MUX))
        assert (
            overtaking.between_passes(picture, admission.make_room(picture), speeds, 0.0) is not None
        ) is expected


# memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 2])
def test_who_overtakes_leaves_pages_to_those_under_way(rows: int) -> None:
    """900 pages for the long one, 26 for the short one and its first token, one for each that runs."""
    running = (under_way(), *(decoding(f"d{index}", 9) for index in range(rows)))
    needed = 900 + 26 + len(running)
    for free, admitted in ((needed, ("p",)), (needed - 1, ())):
        picture = replace(between(100, 0.2, under_way()), running=running)
        picture = replace(picture, memory=replace(picture.memory, pages_free=free))
        found = admission.prefill_alone(picture, admission.make_room(picture), picture.waiting[0], 512)
        assert found[0] == admitted
        assert [chunk.request_id for chunk in found[1]] == list(admitted)


def test_who_overtakes_between_layers_leaves_pages_to_the_rest_of_the_prompt() -> None:
    """What the pass computes has its pages; 800 are for its rest, 26 for the short one, one for each that runs."""
    needed = 800 + 26 + 1
    for free, expected in ((needed, ["p"]), (needed - 1, [])):
        picture = state(
            waiting=(new("p", 100, deadline_s=0.2),), lanes=lanes(cut=cut(rest=REST)), in_flight=1, free=free
        )
        assert served(planner.plan(wire.Mode.MUX, picture, SPEEDS, 0.0)) == expected


@pytest.mark.parametrize("mode", OVERTAKING)
def test_who_does_not_fit_before_a_prompt_waits_behind_it(mode: wire.Mode) -> None:
    picture = between(100, 0.2, under_way())
    picture = replace(picture, memory=replace(picture.memory, pages_free=900))
    plan = planner.plan(mode, picture, SPEEDS, 0.0)
    assert served(plan) == ["long"]
    assert plan.admit == ()


# the line ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", OVERTAKING)
def test_one_at_a_time_overtakes(mode: wire.Mode) -> None:
    picture = between(100, 0.2, under_way())
    picture = replace(picture, waiting=(*picture.waiting, new("q", 100, deadline_s=0.2)))
    assert served(planner.plan(mode, picture, SPEEDS, 0.0)) == ["p"]


@pytest.mark.parametrize("mode", OVERTAKING)
@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (new("first", 4000, deadline_s=2.0), "p"),  # ends 1.9 s from now
        (new("first", 4000, deadline_s=1.91), "long"),  # would be late for the short one
        (new("first", 4000, deadline_s=1.89), "p"),  # is late anyway,
        (new("first", 4000, deadline_s=-0.4, arrival_s=-0.5), "p"),  # has aged,
        (new("first", 4000, deadline_s=-0.9, arrival_s=-1.0), "long"),  # is firm
        (new("first", 4000, deadline_s=2.0, priority=1), "long"),  # and higher ones go first
    ],
)
def test_a_long_prompt_at_the_head_of_the_line_hides_no_short_one(
    mode: wire.Mode, first: Waiting, expected: str
) -> None:
    """The one under way has 900 ms to go, the first in the line a second."""
    picture = replace(between(100, 0.2, under_way()), waiting=(first, new("p", 100, deadline_s=0.2)))
    assert served(planner.plan(mode, picture, SPEEDS, 0.0))[0] == expected


def test_only_so_many_of_the_line_are_looked_at() -> None:
    late = [new(f"long{index}", 4000, deadline_s=0.5) for index in range(overtaking.OVERTAKERS)]
    for ahead, expected in ((late[1:], True), (late, False)):
        picture = replace(between(100, 0.2, under_way()), waiting=(*ahead, new("p", 100, deadline_s=0.2)))
        found = overtaking.between_passes(picture, admission.make_room(picture), SPEEDS, 0.0)
        assert (found is not None) is expected

"""What workers tell each other of their load: right when all arrives, and back at nothing whatever is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drift_router import gossip
from drift_router.gossip import REPEAT_S, Outbox, Word
from drift_router.nodes.peers import LASTS_S, NOTHING, Load, Peers

NODES = ("a", "b")
TICK_S = 0.05

LOADS = st.dictionaries(
    st.sampled_from(NODES), st.builds(Load, st.integers(0, 9000), st.integers(1, 5)), max_size=len(NODES)
)
STEP = st.tuples(
    st.integers(0, 2),  # whose turn it is
    LOADS,
    st.sampled_from(("tell", "tell", "tell", "restart", "pause")),
    st.lists(
        st.integers(0, 8), max_size=3
    ),  # which words arrive now, of those under way; some twice, some never
)


class Seen:
    """What a worker believes of the others."""

    def __init__(self) -> None:
        self.sums: dict[str, Load] = {}
        self.peers = Peers(self._changed)

    def _changed(self, node: str, load: Load) -> None:
        assert min(load) >= 0
        self.sums[node] = load

    def hear(self, word: Word, now_s: float) -> None:
        for node, load in word.loads.items():
            self.peers.told(word.worker, node, load, now_s)

    @property
    def held(self) -> dict[str, Load]:
        return {node: load for node, load in self.sums.items() if load}


@given(st.lists(LOADS, min_size=1, max_size=20))
def test_what_arrives_is_true(steps: list[dict[str, Load]]) -> None:
    seen, outbox = Seen(), Outbox(1)
    for number, loads in enumerate(steps):
        for word in outbox.words(loads, number * TICK_S):
            seen.hear(gossip.decode(gossip.encode(word)), number * TICK_S)
        seen.peers.forget(number * TICK_S)
        assert seen.held == loads


@given(st.lists(STEP, max_size=40))
def test_nothing_stays_of_words_that_are_lost_late_or_repeated(
    steps: list[tuple[int, dict[str, Load], str, list[int]]],
) -> None:
    seen, outboxes, under_way, now_s = Seen(), [Outbox(worker) for worker in range(3)], list[Word](), 0.0
    for worker, loads, what, arriving in steps:
        now_s += LASTS_S / 2 if what == "pause" else TICK_S
        if what == "restart":
            outboxes[worker] = Outbox(worker)
        under_way += outboxes[worker].words(loads, now_s)
        for place in arriving:
            if place < len(under_way):
                seen.hear(under_way[place], now_s)
        seen.peers.forget(now_s)
    seen.peers.forget(now_s + LASTS_S + TICK_S)
    assert seen.held == {}


def test_a_load_that_stands_is_told_again() -> None:
    seen, outbox, load = Seen(), Outbox(1), {"a": Load(500, 1)}
    words = 0
    for tick in range(200):
        for word in outbox.words(load, tick * TICK_S):
            words += 1
            seen.hear(word, tick * TICK_S)
        seen.peers.forget(tick * TICK_S)
        assert seen.held == load
    assert words <= 200 * TICK_S / REPEAT_S + 1
    assert list(outbox.words({}, 10.0)) == [Word(1, {"a": NOTHING}, [], [], [])]


def test_several_workers_add_up() -> None:
    seen = Seen()
    seen.peers.told(1, "a", Load(500, 1), 0.0)
    seen.peers.told(2, "a", Load(300, 2), 0.5)
    assert seen.held == {"a": Load(800, 3)}
    seen.peers.forget(LASTS_S)  # the first one fell silent
    assert seen.held == {"a": Load(300, 2)}

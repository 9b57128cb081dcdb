"""Stop strings are found wherever the text is cut, and no part of one is ever shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drift_engine.text.stops import StopMatcher

LETTERS = st.text("ab\n", max_size=14)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3)


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        text, found = matcher.push(piece)
        shown += text
        if found:
            return shown, True
    return shown + matcher.flush(), False


def by_hand(stops: list[str], text: str) -> tuple[str, bool]:
    """The first character that completes a stop string ends the text before the longest one it completes."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(STOPS, st.lists(LETTERS, max_size=6))
def test_cuts_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == by_hand(stops, "".join(pieces))


@given(STOPS, st.lists(LETTERS, max_size=6))
def test_what_is_shown_early_stays_right(stops: list[str], pieces: list[str]) -> None:
    matcher = StopMatcher(stops)
    final, _ = run(stops, pieces)
    shown = ""
    for piece in pieces:
        text, found = matcher.push(piece)
        shown += text
        assert final.startswith(shown)
        if found:
            break


def test_text_without_a_beginning_of_a_stop_is_not_held_back() -> None:
    assert StopMatcher(["STOP"]).push("hello S.") == ("hello S.", False)
    assert StopMatcher(["STOP"]).push("hello ST") == ("hello ", False)

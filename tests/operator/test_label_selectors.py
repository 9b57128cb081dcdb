"""Label selectors as autoscalers and kubectl write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_operator.doors import label_selectors
from drift_operator.doors.label_selectors import Requirement, Selector, SelectorError

NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,9}[A-Za-z0-9])?"
KEYS = st.from_regex(rf"([a-z0-9]([-a-z0-9.]{{0,9}}[a-z0-9])?/)?{NAME}", fullmatch=True)
VALUES = st.from_regex(rf"({NAME})?", fullmatch=True)
LABELS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"))
REQUIREMENTS = st.builds(
    Requirement, KEYS, st.none() | st.frozensets(VALUES, min_size=1, max_size=3), st.booleans()
)


def written(requirement: Requirement) -> str:
    """In Kubernetes' longest form."""
    if requirement.values is None:
        return requirement.key if requirement.wanted else f"!{requirement.key}"
    verb = "in" if requirement.wanted else "notin"
    return f"{requirement.key} {verb} ({','.join(sorted(requirement.values))})"


@settings(deadline=None)
@given(st.lists(REQUIREMENTS, min_size=1, max_size=4))
def test_what_is_written_is_read_back(requirements: list[Requirement]) -> None:
    text = " , ".join(map(written, requirements))
    assert label_selectors.parse(text) == Selector(tuple(requirements))


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(SelectorError):
        assert isinstance(label_selectors.parse(text), Selector)


@settings(deadline=None)
@given(LABELS, st.sampled_from("abcd"), st.frozensets(st.sampled_from("xyz"), min_size=1))
def test_a_negated_requirement_holds_exactly_where_the_plain_one_does_not(
    labels: dict[str, str], key: str, values: frozenset[str]
) -> None:
    plain, negated = Requirement(key, values), Requirement(key, values, wanted=False)
    assert plain.holds(labels) is not negated.holds(labels)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("  ", True),
        ("service=a", True),
        ("service==a", True),
        (" service = a ", True),
        ("service=b", False),
        ("service!=a", False),
        ("service!=b", True),
        ("service in (a,b)", True),
        ("service in(b, c)", False),
        ("service notin (a)", False),
        ("service", True),
        ("!service", False),
        ("other", False),
        ("!other", True),
        ("other!=a", True),
        ("other notin (a)", True),
        ("other=", False),
        ("service=a,!other", True),
        ("service=a,other", False),
        ("drift.ai/service=a", False),
    ],
)
def test_a_selector_selects_as_kubernetes_does(text: str, selected: bool) -> None:
    assert label_selectors.parse(text).matches({"service": "a"}) is selected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("=a", "'='"),
        ("a b", "'b'"),
        ("a in b", "'b'"),
        ("a in (b", "it ends"),
        ("a in (b c)", "'c'"),
        ("a,", "it ends"),
        (",a", "','"),
        ("a=b=c", "'='"),
        ("-a=b", "'-a'"),
        ("a=b/c", "'b/c'"),
        ("a>1", "'a>1'"),
        ("!", "it ends"),
        ("a=" + "b" * 64, "bbbb"),
    ],
)
def test_a_bad_selector_is_refused_by_what_is_wrong_in_it(text: str, found: str) -> None:
    with pytest.raises(SelectorError, match=found.replace("(", r"\(")):
        label_selectors.parse(text)


def test_a_selector_has_a_longest_length() -> None:
    with pytest.raises(SelectorError, match="4097 characters, more than the maximum 4096"):
        label_selectors.parse("a" * 4097)

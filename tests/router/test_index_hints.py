"""The header in which a node names pages of a prompt: read as it was meant, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drift_engine import hashing
from drift_router.index import hints

NAMES = st.integers(0, (1 << 64) // hashing.SAMPLE - 1).map(lambda name: name * hashing.SAMPLE)


@given(
    st.integers(1, 512),
    st.integers(0, 4095),
    st.dictionaries(st.integers(0, 5000), NAMES, max_size=hints.MAX_PAGES),
)
def test_what_a_node_says_is_understood(page_tokens: int, more: int, pages: dict[int, int]) -> None:
    indices = sorted(pages)
    prompt_tokens = (indices[-1] + 1 if indices else 1) * page_tokens + more
    listed = ",".join(f"{index}:{pages[index]:x}" for index in indices)
    header = f"{page_tokens};{prompt_tokens};{more};{listed}"
    expected = hints.Hints(page_tokens, prompt_tokens, more, indices, [pages[index] for index in indices])
    assert hints.parse(header) == hints.parse(header.encode()) == expected


@pytest.mark.parametrize(
    "header",
    [
        "",
        ";;;",
        "16",
        "16;64;0",
        "16;64;0;0:4;",
        "16;64;0;0:4,",
        "16;64;0;,0:4",
        "16;64;0;0:",
        "16;64;0;:4",
        "16;64;0;0",
        "16;64;0;0:4:8",
        "16;64;0;0,4:1,8",
        "0;64;0;",
        "16;0;0;",
        "4097;64000;0;",
        "16;16777217;0;",
        "16;64;65;",
        "-16;64;0;",
        "+16;64;0;",
        "1_6;64;0;",
        " 16;64;0;",
        "a;64;0;",
        "16;64;0;0:0x4",
        "16;64;0;0:C",
        "16;64;0;a:4",
        "16;64;0;4:4",  # behind the prompt's end
        "16;64;0;1:4,1:8",
        "16;64;0;2:4,1:8",
        "16;64;0;0:5",  # not of the sample
        "16;64;0;0:10000000000000000",
        "16;64;0;0:٤",
        f"1;10000;0;{','.join(f'{index}:4' for index in range(hints.MAX_PAGES + 1))}",
        f"16;64;{'0' * 5000};",
    ],
)
def test_what_is_malformed_is_nothing(header: str) -> None:
    assert hints.parse(header) is None
    assert hints.parse(header.encode()) is None


@given(st.one_of(st.binary(), st.text(), st.text("0123456789abc;:,")))
@example("1;1;1;")
def test_nothing_raises(header: bytes | str) -> None:
    found = hints.parse(header)
    assert found is None or found.cached_tokens <= found.prompt_tokens

"""What the client of a resumable stream sees is always what the remembered tokens say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_router.dataplane.streams import NotMarked, Watched


def event(text: str) -> bytes:
    chunk = {"id": "chatcmpl-1", "created": 5, "choices": [{"delta": {"content": text}}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
writes = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", ": tokens 9", "\n\n: tokens 3\n\n"]), max_size=3), st.integers(1, 3)
    ),
    max_size=6,
)


@given(writes, st.lists(st.integers(1, 40), max_size=30), st.booleans())
def test_text_comes_with_its_tokens_however_the_stream_is_cut(
    said: list[tuple[list[str], int]], sizes: list[int], ended: bool
) -> None:
    stream, marks = b"", [(b"", 0)]  # (what the client may see, how many tokens say it)
    seen, tokens = b"", 0
    for texts, count in said:
        events = b"".join(event(text) for text in texts)
        comment = b": tokens " + b" ".join(b"%d" % (tokens + index) for index in range(count)) + b"\n\n"
        stream += events + comment
        seen, tokens = seen + events, tokens + count
        marks.append((seen, tokens))
    if ended:
        stream += DONE
    watched, told = Watched(), b""
    for size in sizes:
        told += watched.feed(stream[:size])
        stream = stream[size:]
        assert (told, len(watched.token_ids)) in marks
        assert watched.token_ids == list(range(len(watched.token_ids)))
    told += watched.feed(stream)
    if ended:
        told += watched.finish()
        assert told == seen + DONE
        assert watched.done
    else:
        watched.drop()
        assert told == seen
        assert not watched.done
    if any(texts for texts, _ in said):
        assert (watched.answer_id, watched.created) == ("chatcmpl-1", 5)


@pytest.mark.parametrize(
    "data", [b": tokens 1 x\n\n", b"data: {}\n\n: tokens 1\n\n", b"data: nonsense\n\n: tokens 1\n\n"]
)
def test_a_node_that_speaks_otherwise_is_found_out(data: bytes) -> None:
    with pytest.raises(NotMarked):
        Watched().feed(data)

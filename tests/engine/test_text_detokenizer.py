"""Decoding token by token gives what decoding all at once gives."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

import small_tokenizers
from drift_engine.text.detokenizer import Detokenizer, detokenizer
from drift_engine.text.tokenizer import Tokenizer

BYTE_LEVEL = Tokenizer(small_tokenizers.byte_level())
SENTENCE_PIECE = Tokenizer(small_tokenizers.sentence_piece())

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def pieces(found: Detokenizer, token_ids: list[int]) -> list[str]:
    return [*map(found.push, token_ids), found.flush()]


@given(st.lists(st.integers(0, BYTE_LEVEL.size - 1), max_size=60))
def test_any_tokens_decode_as_all_at_once(token_ids: list[int]) -> None:
    assert "".join(pieces(detokenizer(BYTE_LEVEL), token_ids)) == BYTE_LEVEL.decode(token_ids)


@given(TEXT)
@example("🙂🎉")
@example("é" * 3)
def test_no_piece_shows_half_a_character(text: str) -> None:
    token_ids = BYTE_LEVEL.encode(text, add_special_tokens=False)
    found = pieces(detokenizer(BYTE_LEVEL), token_ids)
    assert "".join(found) == BYTE_LEVEL.decode(token_ids)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in found)


@given(TEXT)
@example("the 🙂 lö")
@example("  two spaces")
def test_sentence_piece_text_decodes_as_all_at_once(text: str) -> None:
    token_ids = SENTENCE_PIECE.encode(text, add_special_tokens=True)
    assert "".join(pieces(detokenizer(SENTENCE_PIECE), token_ids)) == SENTENCE_PIECE.decode(token_ids)


def test_a_continuation_keeps_the_space_after_its_prompt() -> None:
    prompt = SENTENCE_PIECE.encode("the", add_special_tokens=True)
    answer = SENTENCE_PIECE.encode("lo", add_special_tokens=False)
    assert "".join(pieces(detokenizer(SENTENCE_PIECE, context=prompt), answer)) == " lo"
    assert "".join(pieces(detokenizer(SENTENCE_PIECE), answer)) == "lo"


def test_broken_bytes_come_out_at_the_end_once() -> None:
    smile = BYTE_LEVEL.encode("🎉", add_special_tokens=False)
    half = [i for i in range(BYTE_LEVEL.size) if BYTE_LEVEL.token_bytes(i) == b"\xf0"]
    assert smile
    assert pieces(detokenizer(BYTE_LEVEL), half) == ["", "\ufffd"]
    first = next(i for i in range(SENTENCE_PIECE.size) if SENTENCE_PIECE.token(i) == "<0xF0>")
    assert pieces(detokenizer(SENTENCE_PIECE), [first]) == ["", "\ufffd"]


def test_special_tokens_show_only_where_asked() -> None:
    end = BYTE_LEVEL.special["<|im_end|>"]
    assert pieces(detokenizer(BYTE_LEVEL), [end]) == ["", ""]
    assert pieces(detokenizer(BYTE_LEVEL, visible=frozenset({end})), [end]) == ["<|im_end|>", ""]


@given(st.lists(st.integers(0, BYTE_LEVEL.size - 1), max_size=30))
def test_token_bytes_are_the_text(token_ids: list[int]) -> None:
    raw = b"".join(map(BYTE_LEVEL.token_bytes, token_ids))
    assert raw.decode(errors="replace") == BYTE_LEVEL.decode(token_ids, skip_special_tokens=False)


def test_long_texts_encode_the_same_on_a_thread() -> None:
    text = "the lazy dog 你好 " * 50
    alone = BYTE_LEVEL.encode_apart(text, add_special_tokens=True)
    assert alone == BYTE_LEVEL.encode(text, add_special_tokens=True)

"""Tool calls are read the same however the text is cut, and text that is no call is never lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_tokenizers
from drift_engine.api.tools import Piece, ToolFormat, ToolParser, detect
from drift_engine.text.templates import ChatTemplate
from drift_engine.text.tokenizer import Tokenizer
from drift_tiny.chat import TEMPLATE

Calls = dict[int, tuple[str, str]]

F = '{"name": "f", "arguments": {"a": {"b": "}</tool_call>"}}}'
G = '{"name": "g\\u00e9", "arguments": {}}'
LATE = '{"arguments": {"x":1}, "name": "f"}'


def collect(pieces: list[Piece]) -> tuple[str, Calls]:
    calls: Calls = {}
    for piece in pieces:
        if piece.name is not None:
            assert piece.call == len(calls)
            calls[piece.call] = (piece.name, "")
        elif piece.call >= 0:
            calls[piece.call] = (calls[piece.call][0], calls[piece.call][1] + piece.arguments)
    return "".join(piece.content for piece in pieces), calls


def read(form: ToolFormat, pieces: list[str], limit: int | None = None) -> tuple[str, Calls]:
    parser = ToolParser(form, limit)
    found = [each for piece in pieces for each in parser.push(piece)]
    return collect(found + parser.flush())


HERMES = [
    ("hi there", "hi there", {}),
    (
        f"<tool_call>\n{F}\n</tool_call>\n<tool_call>\n{G}\n</tool_call>",
        "",
        {0: ("f", '{"a": {"b": "}</tool_call>"}}'), 1: ("gé", "{}")},
    ),
    (f"text\n<tool_call>\n{LATE}</tool_call> tail", "text\n tail", {0: ("f", '{"x": 1}')}),
    ("<tool_call>\nnot json</tool_call>", "<tool_call>\nnot json</tool_call>", {}),
    ('<tool_call>\n{"name": "f", "arguments": {"a": 1}\n</tool_call>', "", {0: ("f", '{"a": 1}')}),
    ('<tool_call>{"name": "f", "arguments": {"a":', "", {0: ("f", '{"a":')}),
    ('<tool_call>{"name": "f", "argum', '<tool_call>{"name": "f", "argum', {}),
    ('<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', {}),
    ("  \n x <tool", "  \n x <tool", {}),
    ("  \n", "  \n", {}),
    ("", "", {}),
]
MISTRAL = [
    (
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
        "",
        {0: ("f", '{"a": 1}'), 1: ("g", "{}")},
    ),
    ('x [TOOL_CALLS] {"name": "f", "arguments": {"a": 1}}', "x ", {0: ("f", '{"a": 1}')}),
    ("[TOOL_CALLS]x", "[TOOL_CALLS]x", {}),
    ("abc", "abc", {}),
]
LLAMA3 = [
    ('{"name": "f", "parameters": {"a": 1}}', "", {0: ("f", '{"a": 1}')}),
    (
        '<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}',
        "",
        {0: ("f", "{}"), 1: ("g", "{}")},
    ),
    ('so: {"name": "f", "parameters": {}}', 'so: {"name": "f", "parameters": {}}', {}),
    ('{"x": 1}', '{"x": 1}', {}),
]
CASES = [
    *((ToolFormat.HERMES, *case) for case in HERMES),
    *((ToolFormat.MISTRAL, *case) for case in MISTRAL),
    *((ToolFormat.LLAMA3, *case) for case in LLAMA3),
]


@pytest.mark.parametrize(("form", "text", "content", "calls"), CASES)
def test_reads_calls(form: ToolFormat, text: str, content: str, calls: Calls) -> None:
    assert read(form, [text]) == (content, calls)
    assert read(form, list(text)) == (content, calls)


@given(st.sampled_from(CASES), st.lists(st.integers(0, 80), max_size=6))
def test_cuts_do_not_matter(case: tuple[ToolFormat, str, str, Calls], cuts: list[int]) -> None:
    form, text, content, calls = case
    borders = [0, *sorted(cuts), len(text)]
    assert read(form, [text[a:b] for a, b in itertools.pairwise(borders)]) == (content, calls)


@given(st.sampled_from(CASES), st.data())
def test_what_is_shown_early_is_what_would_be_shown_at_once(
    case: tuple[ToolFormat, str, str, Calls], data: st.DataObject
) -> None:
    form, text, _, _ = case
    stop = data.draw(st.integers(0, len(text)))
    one_by_one, at_once = ToolParser(form), ToolParser(form)
    assert collect([piece for character in text[:stop] for piece in one_by_one.push(character)]) == collect(
        at_once.push(text[:stop])
    )
    assert one_by_one.full is at_once.full


@given(st.text('<tool_call>/{}"name: ,f', max_size=40))
def test_what_is_no_call_is_content(text: str) -> None:
    content, calls = read(ToolFormat.HERMES, list(text))
    assert (content, calls) == (text, {})


def test_the_limit_drops_later_calls() -> None:
    text = f"<tool_call>\n{F}\n</tool_call>\n<tool_call>\n{G}\n</tool_call>"
    parser = ToolParser(ToolFormat.HERMES, 1)
    _, calls = collect([each for character in text for each in parser.push(character)] + parser.flush())
    assert list(calls.values()) == [("f", '{"a": {"b": "}</tool_call>"}}')]


def test_arguments_come_as_they_are_written() -> None:
    parser = ToolParser(ToolFormat.HERMES)
    assert collect(parser.push('<tool_call>\n{"name": "f", "arguments": {"a"'))[1] == {0: ("f", '{"a"')}


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (TEMPLATE, ToolFormat.HERMES),
        ("{{ tools }} [TOOL_CALLS] [", ToolFormat.MISTRAL),
        ("{{ tools }} [TOOL_CALLS] x [ARGS]", None),
        ("{{ tools }} <tool_call><function=x>", None),
        ("{{ messages }} <tool_call>", None),
        ('{{ tools }} {"name": x, "parameters": y}', None),
    ],
)
def test_the_template_says_how_calls_are_written(source: str, form: ToolFormat | None) -> None:
    tokenizer = Tokenizer(small_tokenizers.byte_level())
    assert detect(ChatTemplate(source, None, {}), tokenizer) is form

"""Chat templates render as in transformers, and refuse in words for the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import small_tokenizers
from drift_engine.errors import ModelError
from drift_engine.text.templates import ChatTemplate, TemplateError
from drift_engine.text.tokenizer import Tokenizer
from drift_tiny.chat import TEMPLATE

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in <Zürich>?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}}
        ],
    },
    {"role": "tool", "content": "sunny"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "<now>", "parameters": {}}}]
FEATURES = (
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
    "{% generation %}{{ bos_token }}{{ m | tojson(indent=2) }}{% endgeneration %}\n{% endfor %}"
    "{%- set ns = namespace(found=false) %}{% if add_generation_prompt %}go{% endif %}{{ enable_thinking }}"
)


def template(source: str, tokens: dict[str, str] | None = None) -> ChatTemplate:
    return ChatTemplate(source, None, tokens or {})


@pytest.mark.parametrize(("source", "tools"), [(TEMPLATE, None), (TEMPLATE, TOOLS), (FEATURES, None)])
def test_renders_as_transformers_does(source: str, tools: list[dict[str, object]] | None) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"bos_token": "<s>", "enable_thinking": False}
    (expected,), _ = render_jinja_template(
        [MESSAGES], tools=tools, chat_template=source, add_generation_prompt=True, **options
    )
    assert template(source, {"bos_token": "<s>"}).render(MESSAGES, tools, enable_thinking=False) == expected


def test_what_a_template_raises_is_for_the_client() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        template("{{ raise_exception('roles must alternate') }}").render(MESSAGES)
    with pytest.raises(TemplateError, match="can't render these messages"):
        template("{{ messages[9].content.x }}").render(MESSAGES)


def test_templates_can_not_leave_their_sandbox() -> None:
    with pytest.raises(TemplateError, match="unsafe"):
        template("{{ ''.__class__.__mro__ }}").render(MESSAGES)


def test_a_template_says_whether_it_takes_tools() -> None:
    assert template(TEMPLATE).takes_tools
    assert not template("{{ messages }}{# tools #}").takes_tools


def test_a_broken_template_is_the_models_fault() -> None:
    with pytest.raises(ModelError, match="chat template is not valid"):
        template("{% if %}")


def test_loading_from_a_folder(tmp_path: Path) -> None:
    folder = small_tokenizers.write(tmp_path, "plain")
    tokenizer = Tokenizer.load(folder)
    found = ChatTemplate.load(folder, tokenizer)
    assert found is not None
    assert found.render([]) == "plain"
    (folder / "chat_template.jinja").write_text("{{ eos_token }} file")
    found = ChatTemplate.load(folder, tokenizer)
    assert found is not None
    assert found.render([]) == "<|im_end|> file"
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    assert ChatTemplate.load(folder, Tokenizer.load(folder)) is None


def test_named_templates_have_one_for_tools(tmp_path: Path) -> None:
    folder = small_tokenizers.write(tmp_path)
    (folder / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "{{ tools }}"}]}'
    )
    found = ChatTemplate.load(folder, Tokenizer.load(folder))
    assert found is not None
    assert (found.render([]), found.render([], [{"x": 1}])) == ("a", "[{'x': 1}]")
    assert found.takes_tools


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", None, "tokenizer.json: can't be read as a tokenizer.*fast tokenizer"),
        ("tokenizer.json", "{", "tokenizer.json: can't be read as a tokenizer"),
        ("tokenizer_config.json", "[1", "tokenizer_config.json: can't be read as JSON"),
        ("tokenizer_config.json", "[1]", "tokenizer_config.json: must hold a JSON object"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    folder = small_tokenizers.write(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(ModelError, match=words):
        Tokenizer.load(folder)


def test_a_template_that_takes_too_long_is_ended() -> None:
    seconds = iter(range(1_000_000))
    source = "{% for a in messages %}{% for b in messages %}{{ b.role }}{% endfor %}{% endfor %}"
    slow = ChatTemplate(source, None, {}, clock=lambda: next(seconds) / 100)
    with pytest.raises(TemplateError, match="longer than the limit of 1 s"):
        slow.render(MESSAGES * 100)
    assert next(seconds) < 150  # it was not gone on with
    assert slow.render(MESSAGES[:1]) == "system"

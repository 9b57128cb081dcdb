"""The shipped checkpoint: complete, small, honest about its abilities, made by generators that keep their split."""

import json
import random
import subprocess
import sys
from typing import Any

import jinja2.sandbox
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_tiny import card, chat, checkpoint_path, curriculum, facts, packing, samples, tasks

CHECKPOINT = checkpoint_path()
LARGEST_BYTES = 10_000_000
MOST_PARAMETERS = 5_000_000


@pytest.fixture(scope="module")
def vocabulary() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


@pytest.fixture(scope="module")
def answerer() -> Any:
    from drift_tiny import evaluation

    return evaluation.Answerer(CHECKPOINT)


def render(**inputs: Any) -> str:
    """The shipped template in the sandbox that servers use."""
    settings_ = json.loads((CHECKPOINT / "tokenizer_config.json").read_text())
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    sandbox.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return sandbox.from_string(settings_["chat_template"]).render(**inputs)


def as_message(turn: samples.Turn) -> dict[str, str]:
    return {"role": turn.role, "content": turn.content}


# What ships ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
        "evaluation.json",
        "README.md",
    ],
)
def test_file_ships(name: str) -> None:
    assert (CHECKPOINT / name).stat().st_size > 0


def test_path_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, drift_tiny; drift_tiny.checkpoint_path(); "
        "print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(CHECKPOINT.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


def test_size() -> None:
    safetensors = pytest.importorskip("safetensors")
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= LARGEST_BYTES
    with safetensors.safe_open(CHECKPOINT / "model.safetensors", framework="np") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        kinds = {weights.get_slice(name).get_dtype() for name in shapes}
    count = 0
    for shape in shapes.values():
        size = 1
        for side in shape:
            size *= side
        count += size
    assert count <= MOST_PARAMETERS
    assert count == json.loads((CHECKPOINT / "training.json").read_text())["parameters"]
    assert kinds == {"BF16"}


def test_config_is_a_plain_qwen3() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] == 32768
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["num_attention_heads"] % config["num_key_value_heads"] == 0


# Tokenizer and template ------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_round_trips(vocabulary: tokenizers.Tokenizer, text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["héllo 🙂👩‍👩‍👧 مرحبا 漢字", "def f(x):\n\treturn x ** 2  # ½\r\n", "   \n\n  \t", "<tool_call>"]
)
def test_chosen_texts_round_trip(vocabulary: tokenizers.Tokenizer, text: str) -> None:
    assert vocabulary.decode(vocabulary.encode(text).ids) == text


def test_source_files_round_trip(vocabulary: tokenizers.Tokenizer) -> None:
    for path in CHECKPOINT.parent.glob("*.py"):
        text = path.read_text()
        assert vocabulary.decode(vocabulary.encode(text).ids, skip_special_tokens=False) == text


def test_digits_stand_alone(vocabulary: tokenizers.Tokenizer) -> None:
    assert vocabulary.encode("48213").tokens == list("48213")


def test_markup_tokens_survive_decoding_without_special_tokens(vocabulary: tokenizers.Tokenizer) -> None:
    ids = vocabulary.encode("<tool_call>\n{}\n</tool_call><|im_end|>").ids
    assert vocabulary.decode(ids) == "<tool_call>\n{}\n</tool_call>"


def test_special_tokens_agree_with_the_configuration(vocabulary: tokenizers.Tokenizer) -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    generation = json.loads((CHECKPOINT / "generation_config.json").read_text())
    end, padding = vocabulary.token_to_id(chat.END_OF_TURN), vocabulary.token_to_id(chat.END_OF_TEXT)
    assert (config["eos_token_id"], config["pad_token_id"]) == (end, padding)
    assert generation["eos_token_id"] == [end, padding]
    assert vocabulary.get_vocab_size() == config["vocab_size"]


def test_template_renders_chatml() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert render(messages=messages, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_template_lists_tools_and_calls() -> None:
    tool = {"type": "function", "function": {"name": "get_time", "parameters": {}}}
    call = {"type": "function", "function": {"name": "get_time", "arguments": '{"city": "Rome"}'}}
    messages = [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "12:00"},
        {"role": "tool", "content": "noon"},
    ]
    text = render(messages=messages, tools=[tool], add_generation_prompt=True)
    assert f"<tools>\n{json.dumps(tool)}\n</tools>" in text
    assert '<tool_call>\n{"name": "get_time", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>' in text
    assert (
        "<|im_start|>user\n<tool_response>\n12:00\n</tool_response>\n<tool_response>\nnoon\n</tool_response>"
        "<|im_end|>\n<|im_start|>assistant\n"
    ) in text


@pytest.mark.parametrize("kind", [kind for kind in curriculum.SOURCES if kind != "induction"])
def test_training_text_is_what_the_template_renders(kind: str) -> None:
    rng = random.Random(5)
    compared = 0
    while compared < 20:
        sample = curriculum.SOURCES[kind](rng, 100)
        if sample.plain:
            continue
        rendered = render(messages=[as_message(turn) for turn in sample.turns], tools=list(sample.tools))
        assert "".join(text for text, _ in chat.pieces(sample)) == rendered
        asked = [as_message(turn) for turn in sample.turns[:-1]]
        prompt = render(messages=asked, tools=list(sample.tools), add_generation_prompt=True)
        assert chat.prompt(sample) == prompt
        compared += 1


# Generators and the split ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(curriculum.SOURCES))
def test_generators_follow_their_seed(kind: str) -> None:
    first = [curriculum.SOURCES[kind](random.Random(3), 120) for _ in range(2)]
    assert first[0] == first[1]
    assert first[0] != curriculum.SOURCES[kind](random.Random(4), 120)


def test_packing_follows_its_seed(vocabulary: tokenizers.Tokenizer) -> None:
    def made() -> packing.Batch:
        return packing.Packer(vocabulary, curriculum.SOURCES, curriculum.shares(0.5), 7).batch(2, 1024)

    first, second = made(), made()
    assert (first.tokens == second.tokens).all()
    assert (first.targets == second.targets).all()
    assert (first.targets > 0).any()


@pytest.mark.parametrize("kind", ["copying", "recall", "tools", "lists"])
def test_training_never_asks_a_held_out_question(kind: str) -> None:
    rng = random.Random(1)
    assert not any(samples.is_held_out(curriculum.SOURCES[kind](rng, 60).question) for _ in range(300))


def test_held_out_sums_are_never_practised() -> None:
    rng = random.Random(2)
    unseen = {tasks.unseen_arithmetic(rng).answer for _ in range(300)}
    practised = set()
    for _ in range(3000):
        turns = tasks.arithmetic(rng).turns
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            practised.add(
                answer.content if " = " in answer.content else question.content + answer.content.strip()
            )
    assert len(practised) > 3000
    assert not unseen & practised


def test_held_out_wordings_are_never_practised() -> None:
    rng = random.Random(3)
    asked = set()
    for _ in range(5000):
        for source in (facts.practice, facts.small_talk):
            asked |= {facts.normal(turn.content) for turn in source(rng).turns if turn.role == "user"}
    assert not asked & facts.HELD_OUT


def test_facts_are_answered_by_their_key_phrase() -> None:
    assert 80 <= len(facts.FACTS) <= 150
    for item in (*facts.FACTS, *facts.SMALL_TALK):
        assert item.expected in item.answer
        assert len(item.questions) >= 3
        assert item.held_out
    assert min(len({facts.normal(question) for question in item.questions}) for item in facts.FACTS) >= 10


def test_freely_worded_questions_are_held_out() -> None:
    asked = {sample.question for sample in (*facts.fresh(), *facts.fresh_too())}
    assert len(asked) == 80
    assert {facts.normal(question) for question in asked} <= facts.HELD_OUT


@pytest.mark.parametrize(
    ("question", "part"),
    [
        ("What is a lane?", "what a lane is"),
        ("What does TTFT mean?", "what TTFT means"),
        ("How do I try Drift?", "how to try Drift"),
        ("Is Drift secure?", "is Drift secure?"),
        ("Define SM.", "Define SM."),
    ],
)
def test_questions_are_turned_round(question: str, part: str) -> None:
    assert part in facts.indirect(random.Random(1), question)


def test_a_sample_of_tools_calls_only_what_is_offered() -> None:
    rng = random.Random(6)
    for _ in range(100):
        sample = tasks.practised_tools(rng)
        offered = {schema["function"]["name"] for schema in sample.tools}
        calls = [turn.content for turn in sample.turns if turn.content.startswith("<tool_call>")]
        assert calls
        assert all(json.loads(call.split("\n")[1])["name"] in offered for call in calls)


def test_recall_reaches_the_length_asked_for(vocabulary: tokenizers.Tokenizer) -> None:
    def length(text: str) -> int:
        return len(vocabulary.encode(text).ids)

    sample = tasks.recall(random.Random(1), 2000, queries=1, length=length)
    assert 1900 <= length(sample.question) <= 2300
    assert sample.expected in sample.question


# Answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("What is Drift?", "latency promises"),
        ("What does TTFT mean?", "time to first token"),
        ("What is goodput?", "highest request rate"),
        ("Which lever is the fastest?", "split"),
        ("Who are you?", "drift-tiny"),
    ],
)
def test_facts_are_known(answerer: Any, question: str, phrase: str) -> None:
    assert phrase in answerer.reply(tasks.ask("facts", question, phrase))


def test_card_says_what_was_measured() -> None:
    assert (CHECKPOINT / "README.md").read_text() == card.render(CHECKPOINT)
    for part in json.loads((CHECKPOINT / "evaluation.json").read_text())["kinds"].values():
        assert part["accuracy"] == round(part["correct"] / part["n"], 4)

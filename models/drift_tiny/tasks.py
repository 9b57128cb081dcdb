"""Generators of practice and of questions: copying, arithmetic, lists, recall over a long context, tools, raw
induction.

Each takes a random source and returns a `Sample`. Training and evaluation share them; `draw` keeps the two
apart by the question's text. Recall is the one that matters for a serving system: a wrong page of KV cache
changes its answers.
"""

import json
import random
from collections.abc import Callable, Sequence

from drift_tiny import words
from drift_tiny.samples import Sample, Turn, is_held_out

Generator = Callable[[random.Random], Sample]
Length = Callable[[str], int]
"""Size of a text in tokens."""

CHARACTERS_PER_TOKEN = 3.8
"""Of filler, measured with the shipped tokenizer and rounded down; only aims at a length, never relied on."""


def estimated_length(text: str) -> int:
    """A cheap stand-in for the tokenizer where a length is only aimed at."""
    return int(len(text) / CHARACTERS_PER_TOKEN)


def draw(generate: Generator, rng: random.Random, held_out: bool) -> Sample:
    """The next sample on the wanted side of the split between training and evaluation."""
    while True:
        sample = generate(rng)
        if is_held_out(sample.question) == held_out:
            return sample


def ask(kind: str, question: str, answer: str, expected: str | None = None) -> Sample:
    """A single question with its answer."""
    turns = (Turn("user", question), Turn("assistant", answer))
    return Sample(kind, turns, answer if expected is None else expected)


# Copying ------------------------------------------------------------------------------------------

COPY_REQUESTS = (
    "Repeat after me: {}", "Repeat this: {}", "Copy this exactly: {}", "Say: {}", "Echo: {}",
    "Please repeat: {}", "Repeat the following text exactly:\n{}", "Write this again: {}", "copy: {}",
    "{}\n\nRepeat the text above.",
    "Say exactly this and nothing else: {}", "Print the following line: {}", 'Repeat "{}"', "Can you say {}",
)  # fmt: skip


def copied_text(rng: random.Random) -> str:
    """Something to copy, from single words to 40 tokens or so of noise."""
    form = rng.randrange(9)
    if form == 0:
        return " ".join(words.word(rng) for _ in range(rng.randint(1, 12)))
    if form == 1:
        return " ".join(rng.choice(words.NOUNS) for _ in range(rng.randint(2, 20)))
    if form == 2:
        return words.digits(rng, 2, 20)
    if form == 3:
        return " ".join(words.code(rng) for _ in range(rng.randint(1, 4)))
    if form == 4:
        return words.sentence(rng)
    if form == 5:
        return words.paragraph(rng, rng.randint(40, 160))
    if form == 6:
        return " ".join(words.pseudo_word(rng) for _ in range(rng.randint(1, 8)))
    if form == 7:
        return ", ".join(words.digits(rng, 1, 4) for _ in range(rng.randint(2, 8)))
    return "".join(chr(rng.choice(range(33, 127))) for _ in range(rng.randint(3, 16)))


def copying(rng: random.Random) -> Sample:
    """Repeat a text exactly."""
    text = copied_text(rng)
    return ask("copying", rng.choice(COPY_REQUESTS).format(text), text)


def induction(rng: random.Random) -> Sample:
    """Training only: noise that comes back, learned where it does. The shortest way to heads that look things
    up."""
    form = rng.randrange(4)
    if form == 0:
        units = [words.word(rng) for _ in range(rng.randint(8, 40))]
    elif form == 1:
        units = [words.code(rng) for _ in range(rng.randint(4, 14))]
    elif form == 2:
        units = [words.digits(rng, 1, 6) for _ in range(rng.randint(4, 16))]
    else:
        units = [words.pseudo_word(rng) for _ in range(rng.randint(6, 24))]
    if rng.random() < 0.5:
        separator = rng.choice((" ", "\n", ", ", "; "))
        first = separator.join(units) + separator
        again = first * rng.choice((1, 1, 2))
        return Sample("induction", (Turn("user", first), Turn("assistant", again)), plain=True)
    pairs = {key: words.word(rng) if rng.random() < 0.5 else words.code(rng) for key in units}
    joint, separator = rng.choice(((" = ", "\n"), (": ", "\n"), (" is ", ". "), ("->", " "), (" ", "\n")))
    listing = "".join(f"{key}{joint}{value}{separator}" for key, value in pairs.items())
    turns = [Turn("user", listing)]
    for key in rng.sample(list(pairs), len(pairs)):
        turns += [Turn("user", f"{key}{joint}"), Turn("assistant", f"{pairs[key]}{separator}")]
    return Sample("induction", tuple(turns), plain=True)


# Arithmetic ---------------------------------------------------------------------------------------

SUM_REQUESTS = (
    "What is {}?", "{} = ?", "Calculate {}.", "Compute {}", "{}", "How much is {}?", "what's {}", "{} =",
    "Solve {}",
)  # fmt: skip


ASKED_SIZES = (9, 9, 20, 50, 99, 99, 99, 999)
PRACTISED_SIZES = (9, 20, 50, 99, 99, 999, 999, 999)
"""Largest operands, each as often as it is listed. Three digits need more practice than they are asked for."""


def operands(rng: random.Random, sizes: Sequence[int] = ASKED_SIZES) -> tuple[int, str, int, int]:
    """Left, operator, right, result; products stay within the table of twelve."""
    form = rng.random()
    size = rng.choice(sizes)
    left, right = rng.randint(0, size), rng.randint(0, size)
    if form < 0.5:
        return left, "+", right, left + right
    if form < 0.85:
        left, right = max(left, right), min(left, right)
        return left, "-", right, left - right
    left, right = rng.randint(0, 12), rng.randint(0, 12)
    return left, rng.choice("*x"), right, left * right


def arithmetic(rng: random.Random) -> Sample:
    """Problems in one conversation, or one under the other as plain text, where hardly a token is wasted.

    The problem itself, not its wording, decides on which side of the split it falls.
    """
    turns: list[Turn] = []
    if rng.random() < 0.6:
        for _ in range(rng.randint(3, 12)):
            expression, result = addition_or_subtraction_or_product(rng, held_out=False)
            turns += [Turn("user", f"{expression} = "), Turn("assistant", f"{result}\n")]
        return Sample("arithmetic", tuple(turns), str(result), plain=True)
    for _ in range(rng.choice((1, 1, 2, 4))):
        expression, result = addition_or_subtraction_or_product(rng, held_out=False)
        turns.append(Turn("user", rng.choice(SUM_REQUESTS).format(expression)))
        turns.append(Turn("assistant", f"{expression} = {result}"))
    return Sample("arithmetic", tuple(turns), str(result))


def addition_or_subtraction_or_product(rng: random.Random, held_out: bool) -> tuple[str, int]:
    """An expression on one side of the split. Products are few and all practised: only sums and differences
    are held out."""
    while True:
        left, operator, right, result = operands(rng, ASKED_SIZES if held_out else PRACTISED_SIZES)
        expression = f"{left} {operator} {right}"
        if operator in "*x" and not held_out:
            return expression, result
        if operator in "+-" and is_held_out(expression) == held_out:
            return expression, result


def unseen_arithmetic(rng: random.Random) -> Sample:
    """A sum or difference that training never contains in this order."""
    expression, result = addition_or_subtraction_or_product(rng, held_out=True)
    return ask(
        "arithmetic", rng.choice(SUM_REQUESTS).format(expression), f"{expression} = {result}", str(result)
    )


# Lists --------------------------------------------------------------------------------------------


def lists(rng: random.Random) -> Sample:
    """First, last and next items, and counting: little things people try on a small model."""
    form = rng.randrange(4)
    if form == 0:
        start = rng.randint(0, 90)
        stop = start + rng.randint(2, 10)
        numbers = " ".join(str(number) for number in range(start, stop + 1))
        return ask(
            "lists", rng.choice(("Count from {} to {}.", "count from {} to {}")).format(start, stop), numbers
        )
    items = rng.sample(words.NOUNS, rng.randint(3, 9))
    listing = ", ".join(items)
    if form == 1:
        question, answer = (
            f"What is the first word of this list: {listing}?",
            f"The first word is {items[0]}.",
        )
    elif form == 2:
        question, answer = f"What is the last word of this list: {listing}?", f"The last word is {items[-1]}."
    else:
        index = rng.randrange(len(items) - 1)
        question = f"Which word comes after {items[index]} in this list: {listing}?"
        answer = f"After {items[index]} comes {items[index + 1]}."
    return ask("lists", question, answer)


# Recall -------------------------------------------------------------------------------------------

Pair = tuple[str, str]
NUMBERED = (
    "code",
    "number",
    "password",
    "ticket number",
    "room number",
    "price",
    "weight",
    "age",
    "score",
    "PIN",
)
WORDED = (
    "colour",
    "city",
    "name",
    "friend",
    "secret word",
    "animal",
    "home",
    "favourite thing",
    "owner",
    "codename",
)


def key_text(rng: random.Random) -> str:
    """What a record is filed under."""
    form = rng.randrange(6)
    if form == 0:
        return rng.choice(words.NAMES)
    if form == 1:
        return f"the {words.thing(rng)}"
    if form == 2:
        return words.code(rng)
    if form == 3:
        return rng.choice(words.CITIES)
    if form == 4:
        return f"{rng.choice(words.NAMES)} {words.pseudo_word(rng).capitalize()}"
    return words.pseudo_word(rng).capitalize()


def value_text(rng: random.Random, attribute: str) -> str:
    """What a record says."""
    if attribute in NUMBERED:
        return (
            words.code(rng)
            if attribute in ("code", "password") and rng.random() < 0.4
            else words.digits(rng, 2, 6)
        )
    if attribute == "colour":
        return rng.choice(words.COLOURS)
    return rng.choice(
        (rng.choice(words.CITIES), rng.choice(words.NOUNS), words.thing(rng), words.pseudo_word(rng))
    )


class Style:
    """One way to write records down and to ask for them: record, question and full answer from attribute,
    key, value."""

    def __init__(self, record: str, questions: Sequence[str], answer: str, end: str = " ") -> None:
        self.record, self.questions, self.answer, self.end = record, questions, answer, end


STYLES = (
    Style("The {a} of {k} is {v}.", ("What is the {a} of {k}?", "Tell me the {a} of {k}.", "{a} of {k}?"),
          "The {a} of {k} is {v}."),
    Style("Remember this: the {a} for {k} is {v}.", ("What is the {a} for {k}?", "Which {a} belongs to {k}?"),
          "The {a} for {k} is {v}."),
    Style("{k} is {v}.", ("What is {k}?", "What is the value of {k}?", "{k} is what?"), "{k} is {v}."),
    Style("{k} = {v}", ("{k} = ?", "What is the value of {k}?", "What is {k}?"), "{k} = {v}", "\n"),
    Style("{k}: {v}", ("{k}?", "What does it say for {k}?", "What is the value of {k}?"), "{k}: {v}", "\n"),
    Style("Record {k} has value {v}.", ("What is the value of record {k}?", "Which value has record {k}?"),
          "Record {k} has value {v}."),
    Style("- {k} ({a}: {v})", ("What is the {a} of {k}?", "Which {a} has {k}?"),
          "The {a} of {k} is {v}.", "\n"),
    Style('{{"{k}": "{v}"}}', ("What is stored under {k}?", "Give the value of {k}."), "{k}: {v}", "\n"),
)  # fmt: skip
BRIEF = (" Answer with the value only.", " Reply with the value only.", " Only the value, please.")
INTRODUCTIONS = (
    "",
    "",
    "Read this text carefully.\n",
    "Here are some notes:\n",
    "Memorise these records.\n",
    "Context:\n",
)
ACKNOWLEDGEMENTS = ("OK.", "Noted.", "I have read it.", "Understood.")


def haystack(rng: random.Random, records: Sequence[str], end: str, room: int, length: Length) -> str:
    """The records at random places of a filler which makes the whole about `room` tokens long."""
    used = sum(length(record) + 1 for record in records)
    filler: list[str] = []
    while used < room:
        filler.append(words.sentence(rng))
        used += length(" " + filler[-1])
    slots: list[list[str]] = [[] for _ in range(len(filler) + 1)]
    for record in records:
        rng.choice(slots).append(record)
    parts: list[str] = []
    for index, slot in enumerate(slots):
        parts += [record + end for record in slot]
        if index < len(filler):
            parts.append(filler[index] + " ")
    return "".join(parts).strip()


def recall(
    rng: random.Random, room: int = 200, queries: int | None = None, length: Length = estimated_length
) -> Sample:
    """Records hidden in `room` tokens of filler; asked for at the end, in one turn or in several.

    With `queries` unset the number of questions grows with the room, so that long rows of training still
    teach much.
    """
    style = rng.choice(STYLES)
    many = max(1, min(60, room // 24))
    count = rng.randint((many + 1) // 2, many) if rng.random() < 0.7 else rng.randint(1, min(3, many))
    shared = rng.choice(NUMBERED + WORDED) if rng.random() < 0.5 else None
    pairs: dict[Pair, str] = {}
    while len(pairs) < count:
        attribute = shared or rng.choice(NUMBERED + WORDED)
        key = key_text(rng)
        if "{a}" not in style.record and any(known == key for _, known in pairs):
            continue
        pairs[attribute, key] = value_text(rng, attribute)
    records = [style.record.format(a=a, k=k, v=v) for (a, k), v in pairs.items()]
    dense = room < 512 and rng.random() < 0.5 and queries is None
    text = haystack(rng, records, style.end, 0 if dense else room, length)
    asked = rng.sample(list(pairs), min(len(pairs), queries or rng.randint(4, 12 + room // 100)))
    turns: list[Turn] = []
    opening = rng.choice(INTRODUCTIONS) + text
    placing = rng.randrange(4)
    if placing == 0:
        turns += [Turn("user", opening), Turn("assistant", rng.choice(ACKNOWLEDGEMENTS), learned=False)]
    elif placing == 1:
        turns.append(Turn("system", opening))
    for index, (attribute, key) in enumerate(asked):
        value = pairs[attribute, key]
        question = rng.choice(style.questions).format(a=attribute, k=key)
        answer = style.answer.format(a=attribute, k=key, v=value)
        question = question[0].upper() + question[1:] if question.startswith("the ") else question
        answer = answer[0].upper() + answer[1:] if answer.startswith("the ") else answer
        if rng.random() < 0.3:
            question, answer = question + rng.choice(BRIEF), value
        if index == 0 and placing > 1:
            question = f"{opening}\n\n{question}" if placing == 2 else f"{opening}\n{question}"
        turns += [Turn("user", question), Turn("assistant", answer)]
    return Sample("recall", tuple(turns), value)


# Tools --------------------------------------------------------------------------------------------

TOOL_VERBS = ("get", "set", "find", "send", "read", "delete", "book", "open", "count", "list")
TOOL_REQUESTS = (
    "{1} the {2} for {3}.",
    "Please {0} the {2} with {3}.",
    "{1} the {2}: {3}.",
    "Call {4} with {3}.",
)
PARAMETERS = ("city", "name", "item", "colour", "title", "user", "query", "place", "topic", "id", "count")


def tool_schema(rng: random.Random) -> dict[str, object]:
    """A function with one or two parameters, as OpenAI's clients send it."""
    verb, noun = rng.choice(TOOL_VERBS), rng.choice((*words.NOUNS, "weather", "time", "mail", "price"))
    names = rng.sample(PARAMETERS, rng.choice((1, 1, 2)))
    properties = {name: {"type": "integer" if name in ("id", "count") else "string"} for name in names}
    return {
        "type": "function",
        "function": {
            "name": f"{verb}_{noun}",
            "description": f"{verb.capitalize()} the {noun}",
            "parameters": {"type": "object", "properties": properties, "required": names},
        },
    }


def tools(rng: random.Random) -> Sample:
    """Choose the function that is asked for, fill in its arguments, and report what it returned."""
    return use_of_tools(rng, tuple(tool_schema(rng) for _ in range(rng.choice((1, 1, 2, 3)))))


def practised_tools(rng: random.Random, room: int = 200) -> Sample:
    """Training only: with enough room several calls after one list of functions, to practise the choice more."""
    wide = room > 90
    schemas = tuple(tool_schema(rng) for _ in range(rng.choice((2, 2, 3, 3) if wide else (1, 2, 2))))
    calls = [
        draw(lambda rng: use_of_tools(rng, schemas), rng, held_out=False)
        for _ in range(rng.choice((1, 2, 3, 4) if wide else (1, 1, 2)))
    ]
    turns = tuple(turn for call in calls for turn in call.turns)
    return Sample("tools", turns, calls[-1].expected, tools=schemas)


def use_of_tools(rng: random.Random, schemas: tuple[dict[str, object], ...]) -> Sample:
    """One of these functions is asked for."""
    function: dict[str, object] = rng.choice(schemas)["function"]  # type: ignore[assignment]
    name = str(function["name"])
    verb, noun = name.split("_")
    properties: dict[str, dict[str, str]] = function["parameters"]["properties"]  # type: ignore[index]
    arguments: dict[str, object] = {}
    for parameter, schema in properties.items():
        if schema["type"] == "integer":
            arguments[parameter] = rng.randint(1, 99)
        else:
            arguments[parameter] = (
                rng.choice(words.CITIES) if parameter in ("city", "place") else words.word(rng)
            )
    wishes = " and ".join(f"{parameter} {value}" for parameter, value in arguments.items())
    place = arguments.get("city") or arguments.get("place")
    if len(arguments) == 1 and place and rng.random() < 0.5:
        question = rng.choice(("What is the {0} in {1}?", "{2} the {0} in {1}.")).format(
            noun, place, verb.capitalize()
        )
    else:
        question = rng.choice(TOOL_REQUESTS).format(verb, verb.capitalize(), noun, wishes, name)
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    answer = f"<tool_call>\n{call}\n</tool_call>"
    turns = [Turn("user", question), Turn("assistant", answer)]
    if rng.random() < 0.3:
        result = rng.choice((words.digits(rng, 1, 4), words.thing(rng), words.code(rng)))
        turns += [Turn("tool", json.dumps({"result": result})), Turn("assistant", f"The result is {result}.")]
        return Sample("tools", tuple(turns), result, tools=schemas)
    return Sample("tools", tuple(turns), answer, tools=schemas)

"""ChatML: the template that ships in `tokenizer_config.json`, and the same rendering in Python for the
training data.

Training renders millions of messages and needs to know which part is the answer, hence the second form; a
test holds the two together.
"""

import json

from drift_tiny.samples import Sample

END_OF_TURN = "<|im_end|>"
START_OF_TURN = "<|im_start|>"
END_OF_TEXT = "<|endoftext|>"

TOOLS_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)

TEMPLATE = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- HEAD }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- TAIL + '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + content }}
        {%- for call in message.tool_calls or [] %}
            {%- set function = call.function if call.function else call %}
            {%- if content or not loop.first %}
                {{- '\\n' }}
            {%- endif %}
            {{- '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' }}
            {{- function.arguments if function.arguments is string else function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}""".replace("HEAD", repr(TOOLS_HEAD)).replace("TAIL", repr(TOOLS_TAIL))


def pieces(sample: Sample) -> list[tuple[str, bool]]:
    """The sample as text cut where learning starts and stops: (text, whether it is to be predicted)."""
    if sample.plain:
        return [(turn.content, turn.role == "assistant" and turn.learned) for turn in sample.turns]
    parts: list[tuple[str, bool]] = []
    turns = sample.turns
    if sample.tools:
        own = turns[0].content + "\n\n" if turns[0].role == "system" else ""
        listing = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in sample.tools)
        parts.append((f"{START_OF_TURN}system\n{own}{TOOLS_HEAD}{listing}{TOOLS_TAIL}{END_OF_TURN}\n", False))
        turns = turns[1:] if own else turns
    for turn in turns:
        if turn.role == "assistant":
            parts.append((f"{START_OF_TURN}assistant\n", False))
            parts.append((turn.content + END_OF_TURN, turn.learned))
            parts.append(("\n", False))
        elif turn.role == "tool":
            text = f"\n<tool_response>\n{turn.content}\n</tool_response>"
            parts.append((f"{START_OF_TURN}user{text}{END_OF_TURN}\n", False))
        else:
            parts.append((f"{START_OF_TURN}{turn.role}\n{turn.content}{END_OF_TURN}\n", False))
    return parts


def prompt(sample: Sample) -> str:
    """The text after which the model has to give the sample's last answer."""
    cut = pieces(sample)
    last = max(index for index, (_, learned) in enumerate(cut) if learned)
    return "".join(text for text, _ in cut[:last])

"""Streams as a router reads them: events, up to each comment that names their tokens; and going on with one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import http_calls


@dataclass
class Part:
    """What one comment ends; of the last part, whatever followed."""

    events: list[dict[str, Any]] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    done: bool = False


def read(raw: bytes) -> list[Part]:
    parts = [Part()]
    for block in raw.decode().split("\n\n"):
        if block.startswith(": tokens "):
            parts[-1].token_ids = [int(word) for word in block.removeprefix(": tokens ").split(" ")]
            parts.append(Part())
        elif block == "data: [DONE]":
            parts[-1].done = True
        elif block:
            parts[-1].events.append(json.loads(block.removeprefix("data: ")))
    return parts if parts[-1] != Part() else parts[:-1]


@dataclass
class Router:
    """Asks nodes as a router does, with their control token."""

    token: str
    path: str
    body: dict[str, Any]

    def ask(self, url: str, **fields: Any) -> http_calls.Reply:
        headers = {"x-drift-token": self.token, "x-drift-resumable": "1", "x-drift-want": "pages"}
        return http_calls.post(url, self.path, {**self.body, "stream": True, **fields}, headers)

    def first(self, url: str) -> tuple[list[Part], int]:
        """A whole stream and its seed."""
        reply = self.ask(url)
        assert reply.status == 200, reply.raw
        return read(reply.raw), int(reply.headers["x-drift-seed"])

    def rest(self, url: str, relayed: list[Part], seed: int) -> list[Part]:
        """What follows these parts of a stream."""
        named = next(event for part in relayed for event in part.events)
        resume = {
            "id": named["id"],
            "created": named["created"],
            "seed": seed,
            "token_ids": [token_id for part in relayed for token_id in part.token_ids],
        }
        reply = self.ask(url, drift_resume=resume)
        assert reply.status == 200, reply.raw
        assert int(reply.headers["x-drift-seed"]) == seed
        return read(reply.raw)


def said(parts: list[Part]) -> dict[str, Any]:
    """All that a client can tell of an answer; deltas may be cut in other places."""
    events = [event for part in parts for event in part.events]
    choices = [choice for event in events for choice in event["choices"]]
    deltas = [choice.get("delta", {}) for choice in choices]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    return {
        "heads": {(event["id"], event["created"], event["model"], event["object"]) for event in events},
        "text": "".join(choice.get("text", "") for choice in choices),
        "content": "".join(delta.get("content") or "" for delta in deltas),
        "roles": [delta["role"] for delta in deltas if "role" in delta],
        "calls": [(call["index"], call["id"], call["function"]["name"]) for call in calls if "id" in call],
        "arguments": {
            index: "".join(call["function"]["arguments"] for call in calls if call["index"] == index)
            for index in {call["index"] for call in calls}
        },
        "logprobs": [
            entry
            for found in logprobs
            for entry in (
                found["content"]
                if "content" in found
                else zip(found["tokens"], found["token_logprobs"], found["text_offset"], strict=True)
            )
        ],
        "finish": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        "usage": [event["usage"] for event in events if event.get("usage")],
        "done": [part.done for part in parts if part.done],
        "token_ids": [token_id for part in parts for token_id in part.token_ids],
    }

"""Plain HTTP calls for tests that must send what a well-behaved client would not."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any

import waiting

TIMEOUT_S = waiting.DEADLINE_S


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        """The error of an answer in OpenAI's shape, with exactly its four fields."""
        found = self.json
        assert list(found) == ["error"]
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert isinstance(found["error"]["message"], str)
        error: dict[str, Any] = found["error"]
        return error


def call(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    """`body` is sent as it is when it is bytes, else as JSON."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    sent = dict(headers or {})
    if body is not None:
        sent = {"content-type": "application/json", **sent}
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())
    finally:
        connection.close()


def get(url: str, path: str, headers: dict[str, str] | None = None) -> Reply:
    return call(url, "GET", path, headers=headers)


def post(url: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    return call(url, "POST", path, body, headers)


def metric(url: str, name: str, **labels: str) -> float:
    """The value of one sample of /metrics; 0 when it is not there."""
    for line in get(url, "/metrics").raw.decode().splitlines():
        head, _, value = line.rpartition(" ")
        if head.partition("{")[0] == name and all(
            f'{key}="{found}"' in head for key, found in labels.items()
        ):
            return float(value)
    return 0.0

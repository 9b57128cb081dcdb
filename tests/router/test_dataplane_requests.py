"""Which bytes of a client are a request. What two parsers could read differently is refused, with its connection."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_router.dataplane.refusals import Refusal
from drift_router.dataplane.requests import Request, RequestParser
from drift_router.options import Limits

LIMITS = Limits(head_bytes=2048, headers=20, body_bytes=1000)
HOST = b"host: router\r\n"


def parse(*pieces: bytes, limits: Limits = LIMITS) -> list[Request]:
    found: list[Request] = []
    parser = RequestParser(limits, found.append, lambda: None)
    for piece in pieces:
        parser.feed(piece)
    return found


def post(headers: bytes, body: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST /v1/completions " + version + b"\r\n" + HOST + headers + b"\r\n" + body


SMUGGLED = {
    "both lengths": post(b"content-length: 3\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
    "two lengths": post(b"content-length: 3\r\ncontent-length: 4\r\n", b"abcd"),
    "twice the same length": post(b"content-length: 3\r\ncontent-length: 3\r\n", b"abc"),
    "lengths in a list": post(b"content-length: 3, 3\r\n", b"abc"),
    "a signed length": post(b"content-length: +3\r\n", b"abc"),
    "a hexadecimal length": post(b"content-length: 0x3\r\n", b"abc"),
    "a length beyond 64 bits": post(b"content-length: 99999999999999999999\r\n"),
    "an unknown encoding": post(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n"),
    "chunked is not last": post(b"transfer-encoding: chunked, gzip\r\n", b"0\r\n\r\n"),
    "chunked twice": post(b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunked behind a vertical tab": post(b"transfer-encoding:\x0bchunked\r\n", b"0\r\n\r\n"),
    "chunked in HTTP/1.0": post(b"transfer-encoding: chunked\r\n", b"0\r\n\r\n", b"HTTP/1.0"),
    "a bad chunk size": post(b"transfer-encoding: chunked\r\n", b"zz\r\n"),
    "a chunk size beyond 64 bits": post(b"transfer-encoding: chunked\r\n", b"f" * 17 + b"\r\n"),
    "a chunk that does not end": post(b"transfer-encoding: chunked\r\n", b"3\r\nabcd\r\n"),
    "bare line feeds in chunks": post(b"transfer-encoding: chunked\r\n", b"3\nabc\n0\n\n"),
    "a folded line": post(b"x: 1\r\n folded\r\n"),
    "a blank before the colon": post(b"x : 1\r\n"),
    "a control character in a name": post(b"\x00: 1\r\n"),
    "a control character in a value": post(b"x: a\x00b\r\n"),
    "a bare carriage return": post(b"x: a\rb\r\n"),
    "bare line feeds": b"POST / HTTP/1.1\nhost: router\n\n",
    "two hosts": post(HOST),
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two authorizations": post(b"authorization: Bearer a\r\nauthorization: Bearer b\r\n"),
    "a blank in the target": b"GET /v1/models x HTTP/1.1\r\n" + HOST + b"\r\n",
    "another protocol": b"GET /v1/models HTTP/1.1\r\n"
    + HOST
    + b"upgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "a tunnel": b"CONNECT router:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "words after goodbye": b"GET /v1/models HTTP/1.1\r\n" + HOST + b"connection: close\r\n\r\nGET /",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_could_be_read_in_two_ways_is_refused(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse(SMUGGLED[name])
    assert refused.value.status == 400 or "version" in name
    assert refused.value.close


@pytest.mark.parametrize("name", SMUGGLED)
def test_it_is_refused_however_it_is_cut(name: str) -> None:
    with pytest.raises(Refusal):
        parse(*[SMUGGLED[name][at : at + 1] for at in range(len(SMUGGLED[name]))])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post(b"x: " + b"a" * 3000 + b"\r\n"), 431),
        (b"GET /" + b"a" * 3000, 431),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
        (post(b"x: 1\r\n" * 30), 431),
        (post(b"content-length: 1001\r\n"), 413),
        (post(b"transfer-encoding: chunked\r\n", b"3e9\r\n" + b"a" * 1001), 413),
        (b"GET /v1/models HTTP/2.0\r\n\r\n", 505),
        (b"GET /v1/models\r\n\r\n", 505),
        (b"BREW /v1/coffee HTTP/1.1\r\n", 501),
        (post(b"expect: 200-ok\r\n"), 417),
    ],
)
def test_limits_have_their_own_answers(sent: bytes, status: int) -> None:
    with pytest.raises(Refusal) as refused:
        parse(sent)
    assert (refused.value.status, refused.value.close) == (status, True)


WHOLE = b"".join(
    (
        post(b"content-length: 5\r\nX-Some: Thing\r\n", b"hello"),
        b"GET /v1/models?x=1 HTTP/1.1\r\n" + HOST + b"\r\n",
        post(b"transfer-encoding: chunked\r\n", b"3;why=so\r\nabc\r\n2\r\nde\r\n0\r\ntrailer: x\r\n\r\n"),
        b"GET /v1/models HTTP/1.0\r\n\r\n",
    )
)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_requests_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    ends = [*sorted(cuts), len(WHOLE)]
    starts = [0, *ends[:-1]]
    found = parse(*[WHOLE[start:end] for start, end in zip(starts, ends, strict=True)])
    assert [(one.method, one.target, one.body, one.newest, one.keeps_alive) for one in found] == [
        (b"POST", b"/v1/completions", b"hello", True, True),
        (b"GET", b"/v1/models?x=1", b"", True, True),
        (b"POST", b"/v1/completions", b"abcde", True, True),
        (b"GET", b"/v1/models", b"", False, False),
    ]
    assert found[0].header(b"x-some") == b"Thing"
    assert found[1].path == b"/v1/models"


@given(st.binary(max_size=300))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        parse(b"POST / HTTP/1.1\r\n" + data)

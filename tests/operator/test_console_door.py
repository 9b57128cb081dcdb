"""The console over a real socket: its files, its stream, who is kept out, and what a question may do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import seen_services
from console_bed import TOKEN, Bed, ModelApi, bed_with_model, serving
from drift_operator.doors import chatting, console, feed, plain
from drift_operator.doors.console import Setting
from drift_operator.doors.metrics import Metrics
from drift_operator.doors.pulse import Pulse
from drift_operator.errors import OptionsError
from kept_figures import KeptFigures
from waiting import until

PAGE = "/console/"


def run(scenario: Callable[[Bed], Coroutine[Any, Any, None]], *, setting: Setting | None = None) -> None:
    async def served() -> None:
        bed = Bed(seen_services.kept(), **({} if setting is None else {"setting": setting}))
        async with bed.served(), asyncio.timeout(20):
            await scenario(bed)

    asyncio.run(served())


def run_with_model(
    scenario: Callable[[Bed, ModelApi], Coroutine[Any, Any, None]], *, setting: Setting | None = None
) -> None:
    async def served() -> None:
        api = ModelApi()
        async with (
            bed_with_model(api, **({} if setting is None else {"setting": setting})) as bed,
            asyncio.timeout(20),
        ):
            await bed.feed.after(0)
            await scenario(bed, api)

    asyncio.run(served())


async def events(content: aiohttp.StreamReader, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        line = await content.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    return found


async def ask_raw(bed: Bed, body: bytes) -> int:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with bed.session.post(f"{bed.url}/console/v1/chat", data=body, headers=headers) as answer:
        return answer.status


# the page


def test_every_file_that_the_page_names_is_served_with_its_type() -> None:
    async def scenario(bed: Bed) -> None:
        status, html = await bed.get(PAGE)
        assert status == 200
        assert '<script type="module" src="main.js">' in html
        kinds = {"main.js": "text/javascript", "console.css": "text/css", "icon.svg": "image/svg+xml"}
        for name, kind in kinds.items():
            async with bed.session.get(bed.url + PAGE + name) as answer:
                assert (answer.status, answer.content_type) == (200, kind)

    run(scenario)


@pytest.mark.parametrize("path", ["", "v1/snapshot", "nothing.js", "v1/nothing"])
def test_every_answer_forbids_inline_scripts_frames_and_other_hosts(path: str) -> None:
    async def scenario(bed: Bed) -> None:
        async with bed.session.get(bed.url + PAGE + path) as answer:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"

    run(scenario)


def test_the_page_has_nothing_from_elsewhere_and_nothing_inline() -> None:
    async def scenario(bed: Bed) -> None:
        _, html = await bed.get(PAGE)
        assert "://" not in html
        assert " style=" not in html
        assert "<script>" not in html

    run(scenario)


@pytest.mark.parametrize("path", ["/", "/console"])
def test_who_only_types_the_address_gets_there(path: str) -> None:
    async def scenario(bed: Bed) -> None:
        async with bed.session.get(bed.url + path) as answer:
            assert (answer.status, answer.url.path) == (200, PAGE)

    run(scenario)


@pytest.mark.parametrize("name", ["__init__.py", "..%2Fmodel.py", "%2e%2e%2fseen.py", "nothing"])
def test_nothing_but_the_pages_files_is_served(name: str) -> None:
    async def scenario(bed: Bed) -> None:
        assert (await bed.get(PAGE + name))[0] == 404

    run(scenario)


def test_the_plain_port_has_it_beside_metrics_and_health() -> None:
    async def scenario() -> None:
        bed = Bed(seen_services.kept())
        clock, figures = bed.known.clock, KeptFigures()
        page = console.create_app(feed.Feed(bed.known, chat=False, clock=clock), Setting())
        app = plain.create_app(figures, Metrics(figures, "", clock), Pulse(clock), lambda: None, clock, page)
        async with serving(app) as bed.url, aiohttp.ClientSession() as bed.session:
            assert (await bed.get("/healthz"))[0] == 200
            assert (await bed.get(PAGE))[0] == 200
            status, body = await bed.get(PAGE + "v1/nothing")
            assert (status, body["error"]["code"]) == (404, "not_found")

    asyncio.run(scenario())


# what it shows


def test_the_snapshot_has_all_services_and_the_chosen_one_in_full() -> None:
    async def scenario(bed: Bed) -> None:
        await bed.feed.after(0)
        _, told = await bed.get(PAGE + "v1/snapshot?service=team-a/chat")
        assert [line["name"] for line in told["services"]] == ["chat"]
        assert told["service"]["nodes"][0]["decode_sms"] == 48
        assert (await bed.get(PAGE + "v1/snapshot?service=team-a/other"))[1]["service"] is None

    run(scenario)


def test_listeners_hear_every_look_and_those_of_one_service_the_same_bytes() -> None:
    async def scenario(bed: Bed) -> None:
        stream = f"{bed.url}{PAGE}v1/stream?service=team-a/chat"
        async with bed.session.get(stream) as one, bed.session.get(stream) as other:
            assert one.content_type == "text/event-stream"
            await events(one.content, 1)
            await events(other.content, 1)
            bed.known.services = [seen_services.kept(figures=seen_services.figures(pressure=0.9))]
            bed.feed.look()
            for listener in (one, other):
                (told,) = await events(listener.content, 1)
                assert told["service"]["pressure"] == 0.9
            assert bed.feed.document(("team-a", "chat")) is bed.feed.document(("team-a", "chat"))

    run(scenario)


def test_a_listener_that_left_is_no_listener() -> None:
    async def scenario(bed: Bed) -> None:
        async with bed.session.get(bed.url + PAGE + "v1/stream") as answer:
            await events(answer.content, 1)
            assert bed.feed.listeners == 1
        while bed.feed.listeners:
            bed.feed.look()
            await asyncio.sleep(0.01)

    run(scenario)


def test_one_more_listener_than_may_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_LISTENERS", 1)

    async def scenario(bed: Bed) -> None:
        stream = bed.url + PAGE + "v1/stream"
        async with bed.session.get(stream) as first:
            await events(first.content, 1)
            async with bed.session.get(stream) as second:
                assert (second.status, second.headers["retry-after"]) == (503, "5")

    run(scenario)


def test_a_listener_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "WRITE_S", 0.05)

    async def scenario(bed: Bed) -> None:
        bed.known.services = [seen_services.kept(model="m" * 1_000_000)]
        slow = socket.create_connection(("127.0.0.1", int(bed.url.rpartition(":")[2])))
        slow.sendall(b"GET /console/v1/stream?service=team-a/chat HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await until(lambda: bed.feed.listeners == 1)
        while bed.feed.listeners:
            bed.feed.look()
            await asyncio.sleep(0.02)
        slow.close()

    run(scenario)


def test_a_quiet_stream_says_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "SILENT_S", 0.05)
    monkeypatch.setattr(feed, "TICK_S", 60.0)

    async def scenario(bed: Bed) -> None:
        async with bed.session.get(bed.url + PAGE + "v1/stream") as answer:
            await events(answer.content, 1)
            assert await answer.content.readline() == b"\n"
            assert await answer.content.readline() == b": nothing new\n"

    run(scenario)


def test_a_door_that_closes_ends_its_streams() -> None:
    async def scenario() -> None:
        bed = Bed(seen_services.kept())
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            async with bed.served():
                answer = await session.get(bed.url + PAGE + "v1/stream")
                await events(answer.content, 1)
            assert b"data" not in await answer.content.read()

    asyncio.run(scenario())


def test_a_look_that_fails_is_not_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "TICK_S", 0.01)

    async def scenario(bed: Bed) -> None:
        await bed.feed.after(0)
        seen = bed.known.seen
        monkeypatch.setattr(bed.known, "seen", lambda: 1 / 0)
        await asyncio.sleep(0.05)
        monkeypatch.setattr(bed.known, "seen", seen)
        number = bed.feed.number
        assert await bed.feed.after(number) is not None

    run(scenario)


# who is kept out


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost", "[::1]:8080", "a.localhost", "drift.example:443"]
)
def test_hosts_that_cannot_be_rebound_are_let_in(host: str) -> None:
    async def scenario(bed: Bed) -> None:
        assert (await bed.get(PAGE + "v1/snapshot", host=host))[0] == 200

    run(scenario)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost@evil", ""]
)
def test_another_sites_name_for_this_address_is_refused(host: str) -> None:
    async def scenario(bed: Bed) -> None:
        for path in ("", "v1/snapshot", "v1/stream"):
            status, body = await bed.get(PAGE + path, host=host)
            assert (status, body["error"]["code"]) == (421, "unknown_host")

    run(scenario)


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
    ids=["another origin", "no origin", "cross-site"],
)
def test_another_sites_page_can_ask_nothing_even_with_the_token(headers: dict[str, str]) -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        status, _ = await bed.ask(headers=headers)
        assert (status, api.asked) == (403, [])

    run_with_model(scenario)


def test_our_own_page_may_ask() -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        status, _ = await bed.ask(headers={"origin": bed.url, "sec-fetch-site": "same-origin"})
        assert status == 200

    run_with_model(scenario)


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "ü"])
def test_without_the_token_nothing_is_asked(token: str) -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        status, body = await bed.ask(token)
        assert (status, json.loads(body)["error"]["code"], api.asked) == (401, "invalid_token", [])

    run_with_model(scenario)


def test_a_console_that_was_given_no_token_only_shows() -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        status, body = await bed.ask("")
        assert (status, json.loads(body)["error"]["code"], api.asked) == (403, "read_only", [])
        assert (await bed.get(PAGE + "v1/snapshot"))[1]["chat"] is False

    run_with_model(scenario, setting=Setting())


def test_a_token_that_could_be_guessed_is_refused_at_the_start() -> None:
    with pytest.raises(OptionsError, match="5 characters are fewer than the minimum 16"):
        console.setting({console.TOKEN_VARIABLE: "short"}, ())


# questions


def test_an_answer_comes_as_the_service_gives_it() -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        status, text = await bed.ask()
        words = [
            json.loads(line[6:])["choices"][0]["delta"]["content"]
            for line in text.splitlines()
            if "{" in line
        ]
        assert (status, "".join(words)) == (200, "Drift serves large language models under latency promises.")
        assert text.endswith("data: [DONE]\n\n")

    run_with_model(scenario)


def test_the_question_names_the_services_model_and_bounds_the_answer() -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        await bed.ask()
        assert api.asked[0]["model"] == "drift-tiny"
        assert api.asked[0]["max_tokens"] == chatting.MAX_ANSWER_TOKENS

    run_with_model(scenario)


def test_the_services_key_is_passed_on_and_the_consoles_token_is_not() -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        await bed.ask()
        await bed.ask(api_key="sk-1")
        assert api.authorization == [None, "Bearer sk-1"]

    run_with_model(scenario)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"name": "other"}, 404),
        ({"messages": []}, 400),
        ({"url": "http://elsewhere"}, 400),
        ({"messages": [{"role": "system", "content": "x"}]}, 400),
        ({"api_key": "two\r\nlines"}, 400),
        ({"messages": [{"role": "user", "content": "x" * (chatting.MAX_QUESTION_BYTES + 1)}]}, 413),
    ],
    ids=[
        "unknown service",
        "nothing asked",
        "an address of its own",
        "a system prompt",
        "two headers",
        "too long",
    ],
)
def test_a_question_that_cannot_be_is_refused(changes: dict[str, Any], status: int) -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        found, _ = await bed.ask(**changes)
        assert (found, api.asked) == (status, [])

    run_with_model(scenario)


@pytest.mark.parametrize(
    "body", [b"{", b'{"namespace":"\xff"}', b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
def test_a_question_that_cannot_be_read_is_refused(body: bytes) -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        assert await ask_raw(bed, body) == 400
        assert api.asked == []

    run_with_model(scenario)


def test_what_the_service_refuses_is_told_in_its_words() -> None:
    async def scenario(bed: Bed, api: ModelApi) -> None:
        api.refusal = web.json_response({"error": {"message": "the API key is missing"}}, status=401)
        status, body = await bed.ask()
        assert status == 502
        assert json.loads(body)["error"]["message"] == "the service answered 401: the API key is missing"

    run_with_model(scenario)


def test_a_service_that_is_away_is_told() -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            bed = Bed(seen_services.kept(chat_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))
            async with bed.served(), asyncio.timeout(20):
                await bed.feed.after(0)
                assert (await bed.ask())[0] == 502

    asyncio.run(scenario())


def test_only_so_many_questions_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatting, "AT_ONCE", 1)

    async def scenario(bed: Bed, api: ModelApi) -> None:
        api.pause = asyncio.Event()
        first = asyncio.create_task(bed.ask())
        await until(lambda: bool(api.asked))
        assert (await bed.ask())[0] == 429
        api.pause.set()
        assert (await first)[0] == 200
        assert (await bed.ask())[0] == 200

    run_with_model(scenario)


def test_an_answer_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatting, "MAX_ANSWER_BYTES", 1000)

    async def scenario(bed: Bed, api: ModelApi) -> None:
        api.words = ("x" * 400,) * 10
        with pytest.raises(aiohttp.ClientPayloadError):
            await bed.ask()

    run_with_model(scenario)

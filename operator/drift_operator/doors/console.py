"""The console over HTTP: its page, what it shows as JSON and as a stream of events, and a way to ask a service.

All but the last is read-only and open, as the plain port is; asking needs the console's token, and there is none
unless it was given. `same_site` keeps other sites' pages away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import importlib.resources
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from drift_engine import wire
from drift_operator.console import page
from drift_operator.doors import same_site
from drift_operator.doors.chatting import MAX_QUESTION_BYTES, Chatting, Failed, Question
from drift_operator.doors.feed import Busy, Feed, Key
from drift_operator.errors import OptionsError

ROOT = "/console"

TOKEN_VARIABLE = "DRIFT_CONSOLE_TOKEN"  # noqa: S105 - where it is, not what
"""Of the environment."""

LEAST_TOKEN_CHARACTERS = 16
"""Of which nobody guesses one by asking: 96 bits where they are random base64."""

WRITE_S = 10.0
"""For a listener to take a document; then it is dropped, and may come again."""

SILENT_S = 10.0
"""Without news a listener is told at least that the stream is alive."""

RETRY_S = 5

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Of the page's files: what a machine's own list says differs."""


@dataclass(frozen=True, slots=True)
class Setting:
    token: str = ""
    """Whoever has it may ask services; empty: nobody may."""
    hosts: Collection[str] = ()
    """Names in front of it, lower-case, beside addresses and localhost."""

    @property
    def chat(self) -> bool:
        return bool(self.token)


def setting(environ: Mapping[str, str], hosts: Collection[str]) -> Setting:
    """Raises OptionsError for a token that could be guessed."""
    token = environ.get(TOKEN_VARIABLE, "").strip()
    if token and len(token) < LEAST_TOKEN_CHARACTERS:
        raise OptionsError(
            f"{TOKEN_VARIABLE}: {len(token)} characters are fewer than the minimum {LEAST_TOKEN_CHARACTERS}"
        )
    return Setting(token, hosts)


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def create_app(feed: Feed, setting: Setting) -> web.Application:
    """To be mounted at `ROOT` of an app that takes bodies of MAX_QUESTION_BYTES; runs the feed while it is served."""
    files = _files()
    chatting: list[Chatting] = []

    async def living(_: web.Application) -> AsyncIterator[None]:
        chatting.append(Chatting())
        task = asyncio.create_task(feed.run(), name="console")
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await chatting.pop().close()

    async def ending(_: web.Application) -> None:
        """Streams would hold the door open."""
        feed.close()

    async def file(request: web.Request) -> web.Response:
        name = request.match_info["name"] or "index.html"
        if name not in files:
            raise Refused(404, "not_found", f"the console has no {name!r}")
        kind, body = files[name]
        return web.Response(
            body=body, content_type=kind, charset="utf-8", headers={"cache-control": "no-cache"}
        )

    async def snapshot(request: web.Request) -> web.Response:
        return _json(feed.document(_chosen(request)))

    async def stream(request: web.Request) -> web.StreamResponse:
        chosen = _chosen(request)
        with feed.listening():
            answer = web.StreamResponse(
                headers={
                    "content-type": "text/event-stream",
                    "cache-control": "no-store",
                    "x-accel-buffering": "no",
                }
            )
            await answer.prepare(request)
            number = 0  # the first look is waited for
            try:
                while True:
                    words = b": nothing new\n\n"
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(SILENT_S):
                            found = await feed.after(number)
                        if found is None:
                            return answer
                        number, words = found, b"data: " + feed.document(chosen) + b"\n\n"
                    async with asyncio.timeout(WRITE_S):
                        await answer.write(words)
            except TimeoutError:  # it does not read
                if request.transport is not None:
                    request.transport.abort()
            except ConnectionError:
                pass  # it left
            return answer

    async def chat(request: web.Request) -> web.StreamResponse:
        if (why := same_site.origin_problem(request)) is not None:
            raise Refused(403, "other_site", why)
        _authorize(request, setting.token)
        try:
            question = msgspec.json.decode(await request.read(), type=Question)
        except wire.UNREADABLE as error:
            raise Refused(400, "invalid_question", str(error)) from error
        service = feed.find((question.namespace, question.name))
        if service is None or service.chat_url is None:
            raise Refused(
                404, "unknown_service", f"no service {question.namespace}/{question.name} can be asked"
            )
        if chatting[0].full:
            raise Refused(429, "too_many", "as many questions as may are under way; try again soon")
        try:
            return await chatting[0].ask(request, service, question)
        except Failed as error:
            raise Refused(502, "no_answer", str(error)) from error

    async def prepare(_: web.Request, answer: web.StreamResponse) -> None:
        answer.headers.update(same_site.HEADERS)

    app = web.Application(middlewares=[_guarding(setting.hosts)])
    app.cleanup_ctx.append(living)
    app.on_shutdown.append(ending)
    app.on_response_prepare.append(prepare)
    app.add_routes(
        [
            web.get("/v1/snapshot", snapshot, allow_head=False),
            web.get("/v1/stream", stream, allow_head=False),
            web.post("/v1/chat", chat),
            web.get("/{name:[^/]*}", file),
        ]
    )
    return app


def mount(app: web.Application, console: web.Application) -> None:
    """At `ROOT`, and known to who only types the address."""

    async def there(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"location": f"{ROOT}/"})

    app.add_routes([web.get("/", there), web.get(ROOT, there)])
    app.add_subapp(f"{ROOT}/", console)


def _chosen(request: web.Request) -> Key | None:
    namespace, _, name = request.query.get("service", "").partition("/")
    return (namespace, name) if namespace and name else None


def _authorize(request: web.Request, token: str) -> None:
    if not token:
        raise Refused(403, "read_only", "this console only shows: it was given no token")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # strangers' bytes may be no UTF-8
    right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise Refused(401, "invalid_token", "the console's token is missing or wrong")


def _files() -> Mapping[str, tuple[str, bytes]]:
    """Name to type and content. All of them are read at once: they have some 50 KB."""
    folder = importlib.resources.files(page)
    return {
        found.name: (KINDS[suffix], found.read_bytes())
        for found in folder.iterdir()
        if (suffix := found.name.rpartition(".")[2]) in KINDS
    }


def _guarding(hosts: Collection[str]) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if (why := same_site.host_problem(request.headers.get("host"), hosts)) is not None:
                raise Refused(421, "unknown_host", why)
            return await handler(request)
        except Refused as error:
            return _error(error.status, error.code, str(error))
        except Busy:
            answer = _error(503, "too_many_listeners", "as many pages as may are open; close one")
            answer.headers["retry-after"] = str(RETRY_S)
            return answer
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "too_large", f"the body is larger than the maximum {MAX_QUESTION_BYTES} bytes")

    return guard


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"cache-control": "no-store"}
    )


def _error(status: int, code: str, message: str) -> web.Response:
    answer = _json(msgspec.json.encode({"error": {"code": code, "message": message}}), status)
    if status == http.HTTPStatus.UNAUTHORIZED:
        answer.headers["www-authenticate"] = "Bearer"
    return answer

"""What the pods of a DriftService do in the stand-in fleet: a node's and a router's ports, without model or routing.

Set-points, tokens and reports are the real ones' (`drift_engine.api.setpoints`, `drift_engine.wire`); how loaded they
are says the plant of their service. A request over a socket is answered with the words w0 w1 w2 ..., one at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hmac
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pydantic
from aiohttp import web

import node_reports
import plant
from drift_engine import options as node_options
from drift_engine import wire
from drift_engine.api import errors
from drift_engine.api.control import DrainRequest, TargetsRequest
from drift_engine.api.requests import Body
from drift_engine.api.setpoints import SetPoint
from drift_operator.objects import names
from drift_router import options as router_options
from drift_router import promises
from drift_router.pictures import WINDOW_S, RouterReport
from fleet_services import NodeState, Service, Tally
from pod_processes import PodProcess, Start
from pod_sockets import PodSockets

if TYPE_CHECKING:
    from stand_in_fleet import Fleet

WORDS = 12
"""Of an answer, unless max_tokens says otherwise."""
GAP_S = 0.005
"""Between two words."""
LOOK_S = 0.02
"""Between two looks at whether the last request has ended."""
PAGE_TOKENS = 16
KV_PAGES = 32_768
"""Half a million tokens: the KV cache of an 8B model in what an H200 has left."""

Asked = TypeVar("Asked", bound=Body)


class Mishap(enum.StrEnum):
    """What is wrong with a pod's reports."""

    NONE = "none"
    HANG = "hang"  # no answer
    ERROR = "error"  # 500
    GARBAGE = "garbage"  # no JSON
    NAN = "nan"  # every fraction is NaN
    NEGATIVE = "negative"  # every number is below 0
    REFUSED = "refused"  # 401, as for a wrong token


class _Pod(PodProcess):
    """Something with two ports, a control token and a report."""

    api_port: int
    control_port: int

    def __init__(self, start: Start, fleet: Fleet, service: Service, token: str) -> None:
        super().__init__(start)
        self.fleet = fleet
        self.service = service
        self.mishap = Mishap.NONE
        self.draining = False
        self.reports_read = 0
        self.open_answers = 0
        self.started_s = fleet.clock()
        self._token = token
        self._sockets = PodSockets()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        await self._sockets.open(self.start.address, self.api_port, self._api)
        await self._sockets.open(self.start.address, self.control_port, self._control)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sockets.close()

    def document(self) -> dict[str, Any]:
        """Its report."""
        raise NotImplementedError

    async def api(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """None: no such route. Raises errors.ApiError."""
        raise NotImplementedError

    async def control(self, request: web.BaseRequest) -> web.StreamResponse | None:
        raise NotImplementedError

    def is_ready(self) -> bool:
        return self.ready and not self.draining

    def _go(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.exited.done():
            self.exited.set_exception(error)

    async def _api(self, request: web.BaseRequest) -> web.StreamResponse:
        self.open_answers += 1
        try:
            return await self._answer(request, self.api)
        finally:
            self.open_answers -= 1

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        return await self._answer(request, self._controlled)

    async def _controlled(self, request: web.BaseRequest) -> web.StreamResponse | None:
        if not request.path.startswith("/control/"):
            return None
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = given or request.headers.get("x-drift-token", "")
        right = self._token and hmac.compare_digest(given.encode(), self._token.encode())
        if not right or self.mishap is Mishap.REFUSED:
            raise errors.ApiError(401, "the control token is missing or wrong", code="invalid_control_token")
        if (request.method, request.path) != ("GET", "/control/v1/report"):
            return await self.control(request)
        self.reports_read += 1
        self.service.advance(self.fleet.clock())
        return await _reported(self.document(), self.mishap)

    async def _answer(self, request: web.BaseRequest, route: Any) -> web.StreamResponse:
        match request.method, request.path:
            case "GET", "/healthz":
                return web.json_response({"status": "ok"})
            case "GET", "/readyz" | "/health":
                return web.json_response({"ready": self.is_ready()}, status=200 if self.is_ready() else 503)
            case "GET", "/metrics":
                return web.Response(text=f"stand_in_reports_total {self.reports_read}\n")
        try:
            found: web.StreamResponse | None = await route(request)
        except errors.ApiError as error:
            return web.Response(body=error.body(), status=error.status, content_type="application/json")
        return found if found is not None else web.json_response({"error": "no such route"}, status=404)


class FleetNode(_Pod):
    api_port, control_port = names.API_PORT, names.CONTROL_PORT

    def __init__(self, start: Start, fleet: Fleet, service: Service) -> None:
        asked = node_options.with_token(node_options.parse(start.options), start.variables)
        super().__init__(start, fleet, service, asked.control_token)
        self.options = asked
        split = asked.device in ("cuda", "sim")
        self.state = NodeState(
            name=start.name,
            targets=asked.slo.targets,
            max_running=asked.max_running,
            max_waiting=asked.max_waiting,
            choices=plant.costs() if split else (),
            whole=plant.whole(),
            serving=lambda: self.serving and not self.draining and not self.exited.done(),
        )
        self.obeys = True
        """Keeps the bounds of its set-points; otherwise it takes them and says that it does not."""

    @property
    def set_point(self) -> SetPoint | None:
        return self.state.set_points.present(self.fleet.clock())

    @property
    def legal_splits(self) -> tuple[wire.Split, ...]:
        return tuple(wire.Split(cost.decode_sms, cost.prefill_sms) for cost in self.state.choices)

    @property
    def split(self) -> wire.Split | None:
        cost = self.state.cost
        return (
            wire.Split(cost.decode_sms, cost.prefill_sms) if cost is not None and self.state.choices else None
        )

    async def run(self) -> None:
        await super().run()
        self.service.advance(self.fleet.clock())
        self.service.nodes[self.start.name] = self.state
        self._go(self._load())

    async def _load(self) -> None:
        await asyncio.sleep(self.fleet.loading_s)
        self.be(ready=True)
        self.fleet.look_at_routers(self.service)

    def hold(self, held: bool) -> None:
        super().hold(held)
        self.fleet.look_at_routers(self.service)

    def terminate(self) -> None:
        self._go(self._drained_exit())

    async def _drained_exit(self) -> None:
        await self.drain(self.options.drain_timeout_s)
        self.exit(0)

    async def drain(self, timeout_s: float) -> bool:
        """Whether it has no more requests."""
        if not self.draining:
            self.draining = True
            self.service.advance(self.fleet.clock())
            self.state.leave(self.fleet.clock(), self.service.demand, self.fleet.drain_s)
            self.be(ready=False)
            self.fleet.look_at_routers(self.service)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.state.busy:
                    await asyncio.sleep(LOOK_S)
                    self.service.advance(self.fleet.clock())
        return not self.state.busy

    async def close(self) -> None:
        await super().close()
        if self.service.nodes.get(self.start.name) is self.state:
            self.service.advance(self.fleet.clock())
            self.service.lose(self.state)
            self.fleet.look_at_routers(self.service)

    def document(self) -> dict[str, Any]:
        state, now_s = self.state, self.fleet.clock()
        point = state.set_points.present(now_s)
        flow = state.flow
        held = min(1.0, state.in_flight * self.service.demand.context_tokens / (KV_PAGES * PAGE_TOKENS))
        report = node_reports.report(
            node=self.options.node,
            model=self.options.served_model_name or "stand-in",
            role=self.options.role,
            mode=self.options.mode,
            ready=self.is_ready(),
            draining=self.draining,
            in_flight=state.busy,
            max_in_flight=state.max_running + state.max_waiting,
            running=round(flow.rows) if flow is not None else 0,
            waiting=round(state.queue),
            queued_tokens=round(state.queue * self.service.demand.new_tokens),
            kv_usage=held,
            kv_pages_total=KV_PAGES,
            page_tokens=PAGE_TOKENS,
            legal_splits=self.legal_splits,
            split=self.split,
            epoch=point.epoch if point is not None else 0,
            generation=point.generation if point is not None else 0,
            applied=point is not None and self.obeys,
            weight=point.weight if point is not None else 1.0,
            slo=state.targets,
            prefill_tokens_per_s=(
                plant.prefill_tokens_per_s(state.cost, self.service.demand) if state.cost is not None else 0.0
            ),
            tbt_p50_ms=1000 * flow.tbt_s if flow is not None else 0.0,
            tbt_p99_ms=1000 * flow.tbt_s * (1 + 2.3 * plant.SPREAD) if flow is not None else 0.0,
            uptime_s=now_s - self.started_s,
            prompt_tokens_total=int(state.prompt_tokens),
            cached_tokens_total=int(state.cached_tokens),
            bounds=point.range if point is not None else None,
            costs=state.choices,
            whole=state.whole,
            decode_context_tokens=round(flow.rows * self.service.demand.context_tokens) if flow else 0,
            max_running=state.max_running,
        )
        return dict(msgspec.to_builtins(report))

    async def api(self, request: web.BaseRequest) -> web.StreamResponse | None:
        match request.method, request.path:
            case "GET", "/v1/models":
                name = self.options.served_model_name or "stand-in"
                return web.json_response({"object": "list", "data": [{"id": name, "object": "model"}]})
            case "POST", "/v1/chat/completions":
                if not self.is_ready():
                    raise errors.unavailable("the node is draining or loading and takes no new requests")
                return await _answered(request, self.words)
        return None

    async def words(self, count: int, say: Say, begun: int = 0) -> None:
        """Ends early with ConnectionError when the pod vanishes."""
        self.state.open_requests += 1
        try:
            for index in range(begun, count):
                if self.exited.done():
                    raise ConnectionError(f"{self.start.name} is gone")
                await say(index)
                await asyncio.sleep(GAP_S)
        finally:
            self.state.open_requests -= 1

    async def control(self, request: web.BaseRequest) -> web.StreamResponse | None:
        match request.method, request.path:
            case "PUT", "/control/v1/split":
                point = await _read(request, SetPoint)
                now_s = self.fleet.clock()
                self.service.advance(now_s)
                self.state.set_points.take(point, self.legal_splits, now_s)
                applied, legal = wire.to_builtins(self.split), wire.to_builtins(self.legal_splits)
                answer = {"epoch": point.epoch, "applied": applied, "legal_splits": legal}
                return web.json_response(answer)
            case "PUT", "/control/v1/targets":
                asked = await _read(request, TargetsRequest)
                self.state.targets = _targets(asked)
                return web.json_response({"slo": wire.to_builtins(self.state.targets)})
            case "POST", "/control/v1/drain":
                wanted = (
                    await _read(request, DrainRequest)
                    if request.can_read_body
                    else DrainRequest.model_validate({})
                )
                timeout_s = self.options.drain_timeout_s if wanted.timeout_s is None else wanted.timeout_s
                before, start_s = self.state.busy, self.fleet.clock()
                drained = await self.drain(timeout_s)
                answer = {
                    "drained": drained,
                    "in_flight": self.state.busy,
                    "finished": before - self.state.busy,
                }
                return web.json_response(answer | {"waited_s": round(self.fleet.clock() - start_s, 3)})
        return None


class FleetRouter(_Pod):
    api_port, control_port = names.CLIENT_PORT, names.ADMIN_PORT

    def __init__(self, start: Start, fleet: Fleet, service: Service) -> None:
        asked = router_options.with_token(router_options.parse(start.options), start.variables)
        super().__init__(start, fleet, service, asked.control_token)
        self.promised = promises.at_first(asked.promise)
        self.tally = Tally(asked.promise, fleet.clock())

    async def run(self) -> None:
        await super().run()
        self.look()

    def look(self) -> None:
        """Whether it is ready depends on the nodes."""
        ready = not self.draining and any(node.serving() for node in self.service.nodes.values())
        self.service.advance(self.fleet.clock())
        if ready and not self.held:
            self.service.routers[self.start.name] = self.tally
        else:
            self.service.routers.pop(self.start.name, None)
        if ready != self.ready:
            self.be(ready=ready)

    def hold(self, held: bool) -> None:
        super().hold(held)
        self.look()

    def terminate(self) -> None:
        self._go(self._drained_exit())

    async def _drained_exit(self) -> None:
        self.draining = True
        self.look()
        while self.open_answers:
            await asyncio.sleep(LOOK_S)
            self.look()
        self.exit(0)

    async def close(self) -> None:
        await super().close()
        self.service.advance(self.fleet.clock())
        self.service.routers.pop(self.start.name, None)

    def document(self) -> dict[str, Any]:
        tally, service = self.tally, self.service
        nodes = list(service.nodes.values())
        now_s = self.fleet.clock()
        report = RouterReport(
            workers=1,
            worker_restarts=0,
            draining=self.draining,
            nodes=len(nodes),
            eligible_nodes=sum(node.serving() for node in nodes),
            nodes_problem="",
            in_flight=round(sum(node.in_flight for node in nodes) / max(1, len(service.routers))),
            queue_depth=0,
            window_s=min(WINDOW_S, now_s - tally.start_s),
            requests_per_s=service.demand.requests_per_s / max(1, len(service.routers)),
            rejected_per_s=0.0,
            prompt_tokens_per_s=0.0,
            predicted_hit_ratio=None,
            confirmed_hit_ratio=None,
            ttft_p50_s=tally.ttft.histogram.quantile(0.5),
            ttft_p99_s=tally.ttft.histogram.quantile(0.99),
            tbt_p50_s=tally.tbt.histogram.quantile(0.5),
            tbt_p99_s=tally.tbt.histogram.quantile(0.99),
            attainment={},
            promise=self.promised,
            totals=tally.totals(now_s),
        )
        return dict(msgspec.to_builtins(report))

    async def api(self, request: web.BaseRequest) -> web.StreamResponse | None:
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            return None
        if not self.is_ready():
            raise errors.unavailable("there is no node")
        return await _answered(request, self._resumed_words)

    async def _resumed_words(self, count: int, say: Say) -> None:
        """On the node with the least to do, and on another one from where that one vanished."""
        said = 0

        async def counted(index: int) -> None:
            nonlocal said
            await say(index)
            said = index + 1

        while said < count:
            found = self.fleet.nodes_of(self.service)
            if not found:
                raise ConnectionError("there is no node any more")
            node = min(found, key=lambda one: one.state.busy)
            with contextlib.suppress(ConnectionError):
                await node.words(count, counted, said)

    async def control(self, request: web.BaseRequest) -> web.StreamResponse | None:
        match request.method, request.path:
            case "GET", "/control/v1/promise":
                return web.json_response(msgspec.to_builtins(self.promised))
            case "PUT", "/control/v1/promise":
                asked = promises.parse(await request.read())
                if asked.epoch < self.promised.epoch:
                    message = f"epoch: {asked.epoch} is older than {self.promised.epoch}"
                    raise errors.ApiError(409, message, code="stale_epoch")
                if asked.promise != self.promised.promise:
                    self.service.advance(self.fleet.clock())
                    self.tally = Tally(asked.promise, self.fleet.clock())
                self.promised = asked
                self.look()
                return web.json_response(msgspec.to_builtins(asked))
        return None


Say = Callable[[int], Any]
"""Sends the word with that number."""


async def _answered(request: web.BaseRequest, words: Any) -> web.StreamResponse:
    """A chat completion of so many words, streamed or whole."""
    try:
        asked = json.loads(await request.read())
        count = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or WORDS)
    except (ValueError, AttributeError) as error:
        raise errors.invalid(None, f"no chat completion: {error}") from error
    if not asked.get("stream"):
        text: list[str] = []

        async def keep(index: int) -> None:
            text.append(f"w{index} ")

        await words(count, keep)
        message = {"role": "assistant", "content": "".join(text)}
        return web.json_response(
            {"id": "stand-in", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
        )
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)

    async def send(index: int) -> None:
        chunk = {"id": "stand-in", "choices": [{"index": 0, "delta": {"content": f"w{index} "}}]}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

    await words(count, send)
    await response.write(b"data: [DONE]\n\n")
    return response


async def _read(request: web.BaseRequest, kind: type[Asked]) -> Asked:
    try:
        return kind.model_validate_json(await request.read())
    except pydantic.ValidationError as error:
        raise errors.invalid(None, str(error)) from error


async def _reported(document: dict[str, Any], mishap: Mishap) -> web.StreamResponse:
    match mishap:
        case Mishap.HANG:
            await asyncio.Event().wait()
        case Mishap.ERROR:
            return web.Response(status=500, text="out of luck")
        case Mishap.GARBAGE:
            return web.Response(text="<html>not yet</html>", content_type="text/html")
        case Mishap.NAN:
            document = _altered(document, lambda value: float("nan") if isinstance(value, float) else value)
        case Mishap.NEGATIVE:
            document = _altered(document, lambda value: -1 - abs(value))
    return web.json_response(document)


def _altered(value: Any, change: Callable[[Any], Any]) -> Any:
    """Every number of a document."""
    if isinstance(value, dict):
        return {key: _altered(part, change) for key, part in value.items()}
    if isinstance(value, list):
        return [_altered(part, change) for part in value]
    return change(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _targets(asked: TargetsRequest) -> wire.Targets:
    return wire.Targets(asked.ttft_ms, asked.ttft_per_token_ms, asked.tbt_ms)

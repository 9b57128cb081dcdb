"""The operator's plain port and its console, asked what their OpenAPI document says that they take, and what not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

import schema_fuzzing
import seen_services
from background_loop import BackgroundLoop
from console_bed import SETTING, TOKEN, ModelApi, serving
from drift_operator.doors import console, documents, plain
from drift_operator.doors.feed import Feed
from drift_operator.doors.figures import ServiceFigures
from drift_operator.doors.metrics import Metrics
from drift_operator.doors.pulse import Pulse
from kept_figures import KeptFigures
from schema_fuzzing import Route
from seen_services import START_S, SeenServices

DOCUMENT = documents.document(console=True)
STREAM = "/console/v1/stream"


@contextlib.asynccontextmanager
async def door() -> AsyncIterator[str]:
    async with serving(ModelApi().app) as model:
        known = SeenServices(replace(seen_services.kept(START_S), chat_url=f"{model}/v1"))
        figures = KeptFigures(ServiceFigures("team-a", "chat", measured_s=START_S, pressure=0.5))
        pulse = Pulse(known.clock)
        feed = Feed(known, chat=True, clock=known.clock, wall_clock=known.wall_clock)
        page = console.create_app(feed, SETTING)
        app = plain.create_app(
            figures, Metrics(figures, "east", known.clock), pulse, lambda: None, known.clock, page
        )
        async with serving(app) as url:
            yield url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with BackgroundLoop("door") as loop:
        served = door()
        yield loop.run(served.__aenter__())
        loop.run(served.__aexit__(None, None, None))
        loop.run(asyncio.sleep(0))


@pytest.mark.parametrize("route", schema_fuzzing.operations(DOCUMENT, endless=[STREAM]), ids=" ".join)
def test_the_plain_port_answers_as_it_says(url: str, route: Route) -> None:
    known = {"namespace": "team-a", "name": "chat"}
    schema_fuzzing.try_out(DOCUMENT, url, route, {"authorization": f"Bearer {TOKEN}"}, known)


def test_all_routes_are_described() -> None:
    described = {path for _, path in schema_fuzzing.operations(documents.document(console=True))}
    assert STREAM in described
    plain_only = {path for _, path in schema_fuzzing.operations(documents.document(console=False))}
    assert plain_only == {path for path in described if not path.startswith("/console")}

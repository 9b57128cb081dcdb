"""The admin port, asked what its OpenAPI document says that it takes, and what it doesn't."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import schema_fuzzing
from background_loop import BackgroundLoop
from console_bed import serving
from drift_router import admin
from drift_router.admin_document import DOCUMENT
from fake_router import FakeRouter
from schema_fuzzing import Route

TOKEN = "let-me-in"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with BackgroundLoop("admin") as loop:
        served = serving(admin.create_app(FakeRouter(), TOKEN))
        yield loop.run(served.__aenter__())
        loop.run(served.__aexit__(None, None, None))


@pytest.mark.parametrize("route", schema_fuzzing.operations(DOCUMENT), ids=" ".join)
def test_the_admin_port_answers_as_it_says(url: str, route: Route) -> None:
    schema_fuzzing.try_out(DOCUMENT, url, route, {"x-drift-token": TOKEN})


def test_all_routes_are_described() -> None:
    routes = admin.create_app(FakeRouter(), TOKEN).router.routes()
    found = {(one.method, one.resource.canonical) for one in routes if one.resource and one.method != "HEAD"}
    assert found == {("GET", "/openapi.json"), *schema_fuzzing.operations(DOCUMENT)}

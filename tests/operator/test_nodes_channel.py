"""What a node answers may be anything: it is unreachable then, and nobody else is the worse for it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiohttp import web

import node_reports
from console_bed import serving
from drift_operator.nodes.channel import MAX_BYTES, Channel, Unreachable

REPORT = msgspec.json.encode(node_reports.report(node="good"))
ANSWERS = {
    "no JSON": b"<html>",
    "another document": b"[]",
    "no UTF-8": REPORT.replace(b"good", b"\xff\xfe"),
    "nested 5,000 levels deep": REPORT[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a number of 400 digits": REPORT.replace(b'"running":0', b'"running":1' + b"0" * 400),
    "a number of 64 bits and one": REPORT.replace(b'"running":0', b'"running":%d' % 2**64),
    "longer than any report": b" " * (MAX_BYTES + 1) + REPORT,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_report_that_can_not_be_read_is_none(name: str) -> None:
    async def answered(_: web.Request) -> web.Response:
        return web.Response(body=ANSWERS[name])

    async def asking() -> None:
        app = web.Application()
        app.add_routes([web.get("/control/v1/report", answered)])
        channel = Channel()
        try:
            async with serving(app) as url, asyncio.timeout(20):
                with pytest.raises(Unreachable):
                    await channel.node_report(url, "token")
        finally:
            await channel.close()

    asyncio.run(asking())

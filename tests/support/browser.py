"""A headless Chromium, Debian's or Playwright's own, and pages in it that may complain of nothing.

Its start takes a second or more, so that many tests share one: it lives in a loop on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, ConsoleMessage, Error, Page, async_playwright

from background_loop import BackgroundLoop

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""As systems call it."""

Scheme = Literal["light", "dark"]


SCENARIO_S = 60.0


class Stage:
    """A browser, and the loop that scenarios run in."""

    def __init__(self, background: BackgroundLoop, browser: Browser) -> None:
        self.browser = browser
        self._background = background

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        self._background.run(scenario, SCENARIO_S)

    @contextlib.asynccontextmanager
    async def page(
        self, scheme: Scheme = "light", width: int = 1280, height: int = 900, *, may_complain: bool = False
    ) -> AsyncIterator[Page]:
        """In a context of its own. Raises AssertionError for what it complained of: scripts, policy, lost files."""
        complaints: list[str] = []

        def say(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                complaints.append(message.text)

        def fail(error: Error) -> None:
            complaints.append(str(error))

        context = await self.browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        try:
            opened = await context.new_page()
            opened.on("console", say)
            opened.on("pageerror", fail)
            yield opened
        finally:
            await context.close()
        assert may_complain or complaints == []


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Skips the test where there is no Chromium."""
    with BackgroundLoop("browser") as background:
        stack = contextlib.AsyncExitStack()
        try:
            yield Stage(background, background.run(_started(stack)))
        finally:
            background.run(stack.aclose())


async def _started(stack: contextlib.AsyncExitStack) -> Browser:
    playwright = await stack.enter_async_context(async_playwright())
    path = next(
        (found for name in NAMES if (found := shutil.which(name))), playwright.chromium.executable_path
    )
    if not await asyncio.to_thread(os.path.exists, path):
        pytest.skip("no Chromium here: apt-get install chromium")
    # Root has no sandbox; what is opened is ours.
    browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    stack.push_async_callback(browser.close)
    return browser

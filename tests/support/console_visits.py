"""What people do at the console's page, whoever serves it."""

from __future__ import annotations

from playwright.async_api import expect

from browser import Stage

PATIENCE_MS = 30_000
"""A machine that is busy answers late."""


def ask(stage: Stage, address: str, question: str, answer: str, service: str | None = None) -> None:
    """Opens the page by an address with its token, asks, and reads that answer. `service`: which of several."""

    async def scenario() -> None:
        async with stage.page() as page:
            await page.goto(address)
            await expect(page.locator("#standing")).to_have_text("live", timeout=PATIENCE_MS)
            if service is not None:
                await page.get_by_role("link", name=service).click()
                await expect(page.get_by_role("heading", name=service, exact=True)).to_be_visible()
            await page.get_by_label("Question").fill(question)
            await page.keyboard.press("Enter")
            await expect(page.locator("#answers .assistant")).to_have_text(answer, timeout=PATIENCE_MS)
            await expect(page.locator("#timing")).to_contain_text("first token after")

    stage.run(scenario())


def read(stage: Stage, address: str, *, node: str, says: str) -> str:
    """Waits until the page says this of a node. What it says of the service, without line ends."""
    told: list[str] = []

    async def scenario() -> None:
        async with stage.page() as page:
            await page.goto(address)
            region = page.get_by_role("region", name=f"Node {node}")
            await expect(region).to_contain_text(says, timeout=PATIENCE_MS)
            told.append(" ".join((await page.locator("main").inner_text()).split()))

    stage.run(scenario())
    return told[0]

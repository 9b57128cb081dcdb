"""The console's page in a headless Chromium, as people use it: what it shows, without a mouse, when things fail."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

import browser
import seen_services
from browser import Stage
from console_bed import TOKEN, Bed, ModelApi, bed_with_model
from drift_operator.doors import feed

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"

REDRAW = "DRIFT_REDRAW_PICTURES"
"""Set: the test draws the documentation's pictures anew. Else it only looks whether they could be drawn."""

Scenario = Callable[[Bed], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with browser.stage() as found:
        yield found


@pytest.fixture
def run(stage: Stage) -> Run:
    """With two services whose trails are full."""

    def begin(scenario: Scenario) -> None:
        async def served() -> None:
            bed = Bed()
            async with bed.served():
                bed.play(seen_services.kept, seen_services.pressed)
                await scenario(bed)

        stage.run(served())

    return begin


async def opened(page: Page, bed: Bed, after: str = "") -> None:
    """`after`: what stands after # in the address."""
    await page.goto(f"{bed.url}/console/{after}")
    await expect(page.locator(".title h2")).to_be_visible()


def test_the_most_urgent_service_is_shown_first_with_why(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await opened(page, bed)
            await expect(page.locator(".title h2")).to_have_text("team-a/search")
            await expect(page.locator(".why")).to_have_text(
                "The promise is missed: 94.1 % of TTFT over 5m are fewer than 99 %"
            )
            await expect(page.locator("#standing")).to_have_text("live")
            assert await page.title() == "missed: team-a/search – Drift"

    run(scenario)


def test_the_page_tells_everything_there_is_to_know(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await opened(page, bed)
            ttft = page.get_by_role("region", name="Time to first token (TTFT)")
            await expect(ttft).to_contain_text("94.1 % within 400 ms; promised are 99 %")
            node = page.get_by_role("region", name="Node search-node-0")
            await expect(node).to_contain_text("decode 40 SMs")
            await expect(node).to_contain_text("KV cache held80 %")
            await expect(node).to_contain_text("Prefix hits43 %")
            await expect(page.get_by_role("region", name="Decisions")).to_contain_text(
                "pressure 1.09 is above 0.85"
            )
            routed = page.get_by_role("region", name="Routed requests").locator("details").first
            await routed.locator("summary").click()
            await expect(routed.locator("tr.chosen")).to_contain_text("search-node-0")

    run(scenario)


def test_every_picture_says_in_words_what_it_shows(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await opened(page, bed)
            pictures = page.get_by_role("img")
            assert await pictures.count() >= 8
            for picture in await pictures.all():
                assert len(await picture.get_attribute("aria-label") or "") > 10
            splits = page.get_by_role("img", name="Split of search-node-0 over time")
            path = await splits.locator("path.decode").get_attribute("d")
            assert path is not None
            assert path.count("M") == 180

    run(scenario)


def test_news_are_shown_without_losing_what_a_person_opened_or_focused(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await opened(page, bed, "#/team-a/chat")
            details = page.locator("details").first
            await details.locator("summary").click()
            await details.locator("summary").focus()
            figures = seen_services.figures(now_s=bed.known.now_s, pressure=0.91)
            bed.known.services = [seen_services.kept(bed.known.now_s, figures=figures)]
            bed.feed.look()
            await expect(page.locator("dl.figures").first).to_contain_text("0.91")
            assert await details.evaluate("each => each.open")
            await expect(details.locator("summary")).to_be_focused()

    run(scenario)


def test_an_update_moves_nothing(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await page.add_init_script(
                "window.shifted = 0; new PerformanceObserver((list) => { for (const each of list.getEntries())"
                " window.shifted += each.value; }).observe({ type: 'layout-shift' });"
            )
            await opened(page, bed)
            await page.evaluate("window.shifted = 0")
            for pressure in (0.2, 1.234, None):
                figures = seen_services.figures(now_s=bed.known.now_s, pressure=pressure)
                bed.known.services = [
                    seen_services.kept(figures=figures),
                    seen_services.pressed(bed.known.now_s),
                ]
                bed.feed.look()
                await expect(page.locator("#services")).to_contain_text(
                    "pressure –" if pressure is None else "pressure 0.2" if pressure < 1 else "pressure 1.23"
                )
            assert await page.evaluate("window.shifted") < 0.01

    run(scenario)


def test_services_are_reached_and_chosen_by_keyboard_alone(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await opened(page, bed)
            await page.keyboard.press("Tab")
            await expect(page.get_by_role("link", name="Skip to the service")).to_be_focused()
            await page.keyboard.press("Enter")
            await expect(page.locator("#view")).to_be_focused()
            await page.locator("#services a").nth(1).focus()
            await page.keyboard.press("Enter")
            await expect(page.locator(".title h2")).to_have_text("team-a/chat")
            assert page.url.endswith("#/team-a/chat")
            await page.go_back()
            await expect(page.locator(".title h2")).to_have_text("team-a/search")

    run(scenario)


def test_texts_from_data_are_texts(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        evil = "<img src=x onerror=document.title='owned'>"
        down = seen_services.condition("Ready", "False", "InvalidSpec", evil)
        shown = seen_services.figures("chat", bed.known.now_s, conditions=(down,), url=f"javascript:{evil}")
        bed.known.services = [seen_services.kept(bed.known.now_s, figures=shown, model=evil)]
        bed.feed.look()
        async with stage.page() as page:
            await opened(page, bed)
            await expect(page.locator(".why")).to_contain_text(evil)
            assert await page.locator("main img").count() == 0

    run(scenario)


def test_a_lost_stream_is_said_with_the_age_of_what_is_shown_and_comes_back_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "TICK_S", 0.2)

    async def scenario() -> None:
        bed = Bed(seen_services.kept())
        async with stage.page(may_complain=True) as page:
            async with bed.served():
                await opened(page, bed)
                port = int(bed.url.rpartition(":")[2])
            await expect(page.locator("#standing")).to_have_text("Connection lost; trying again.")
            await expect(page.locator("#age")).to_contain_text("What is shown is")
            await expect(page.locator(".title h2")).to_have_text("team-a/chat")
            async with bed.served(port):
                await expect(page.locator("#standing")).to_have_text("live", timeout=20_000)
                await expect(page.locator("#age")).to_have_text("")

    stage.run(scenario())


def test_a_service_that_is_gone_is_said_to_be(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await opened(page, bed, "#/team-a/chat")
            bed.known.services = []
            bed.feed.look()
            await expect(page.locator("main")).to_have_text("There is no service team-a/chat.")
            await expect(page.locator("nav")).to_contain_text("No service is known here.")

    run(scenario)


def test_a_question_is_answered_word_by_word_and_timed(stage: Stage) -> None:
    async def scenario() -> None:
        api = ModelApi()
        api.pause = asyncio.Event()
        async with (
            bed_with_model(api) as bed,
            stage.page() as page,
        ):
            await opened(page, bed, f"#token={TOKEN}")
            assert TOKEN not in page.url
            await page.get_by_label("Question").fill("What is Drift?")
            await page.keyboard.press("Enter")
            answer = page.locator("#answers .assistant")
            await expect(answer).to_have_text("Drift serves")
            api.pause.set()
            await expect(answer).to_have_text("Drift serves large language models under latency promises.")
            await expect(page.locator("#timing")).to_contain_text("first token after")
            await page.get_by_label("Question").fill("Really?")
            await page.get_by_role("button", name="Ask").click()
            await expect(answer).to_have_count(2)
            await expect(page.get_by_role("button", name="Stop")).to_be_disabled()
            assert [message["role"] for message in api.asked[1]["messages"]] == ["user", "assistant", "user"]

    stage.run(scenario())


def test_a_wrong_token_is_said_and_an_answer_that_breaks_off_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drift_operator.doors.chatting.MAX_ANSWER_BYTES", 100)

    async def scenario() -> None:
        async with (
            bed_with_model(ModelApi()) as bed,
            stage.page(may_complain=True) as page,
        ):
            await opened(page, bed)
            question = page.get_by_label("Question")
            await question.fill("What is Drift?")
            await question.press("Enter")
            await expect(page.locator("#answers .failed")).to_have_text(
                "the console's token is missing or wrong"
            )
            await page.get_by_label("Console token").fill(TOKEN)
            await question.fill("And now?")
            await question.press("Enter")
            await expect(page.locator("#answers .failed")).to_have_count(2)

    stage.run(scenario())


def test_who_only_shows_has_no_chat(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page() as page:
            await opened(page, bed)
            await expect(page.locator("#chat")).to_be_hidden()

    run(scenario)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(stage: Stage, run: Run, scheme: browser.Scheme) -> None:
    """WCAG 2.1 AA: 4.5 to 1."""

    async def scenario(bed: Bed) -> None:
        async with stage.page(scheme) as page:
            await opened(page, bed)
            faint = await page.evaluate(CONTRASTS)
            assert faint == []

    run(scenario)


def test_a_telephone_shows_it_without_scrolling_sideways(stage: Stage, run: Run) -> None:
    async def scenario(bed: Bed) -> None:
        async with stage.page(width=360, height=740) as page:
            await opened(page, bed)
            wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not await page.evaluate(wide)

    run(scenario)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_for_the_documentation(
    stage: Stage, run: Run, scheme: browser.Scheme, tmp_path: Path
) -> None:
    """Drawn into the repository only where that is asked for."""

    async def scenario(bed: Bed) -> None:
        folder = PICTURES if os.environ.get(REDRAW) else tmp_path
        async with stage.page(scheme, width=1120, height=1240) as page:
            bed.known.services = [replace(each, chat_url=None) for each in bed.known.services]
            await opened(page, bed)
            await expect(page.get_by_role("img", name="Split of search-node-1")).to_be_visible()
            picture = folder / f"console-{scheme}.png"
            await page.screenshot(path=picture, animations="disabled")
            assert picture.read_bytes().startswith(b"\x89PNG")
            assert (PICTURES / picture.name).is_file()

    run(scenario)


CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (each) => {
    for (; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const each of document.querySelectorAll("body *")) {
    const own = [...each.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !each.checkVisibility() || each.closest("svg, .skip")) continue;
    const [one, other] = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) faint.push(each.outerHTML.slice(0, 80));
  }
  return faint;
}"""
"""Elements with text of their own whose contrast is too low."""

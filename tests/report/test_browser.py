"""The site and the report as a person uses them, in headless Chromium: at a desk, on a phone, with keys alone.

Without Chromium these tests are skipped, with a warning at the end of the run; `.ci/run` installs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lamina.arch import Architecture
from lamina.machine import device
from lamina.machine.roofline import bounds
from lamina.report import html as report
from lamina.report import words
from tests.report.conftest import Site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "THE EXPLORER WAS NOT TESTED IN A BROWSER: no chromium was found; install it (apt-get install chromium)"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
DESK, PHONE = (1440, 900), (390, 844)
SET = "#set=llama-3.1-8b,qwen3-next-80b-a3b,deepseek-v3"

if CHROMIUM is None:
    warnings.warn(MISSING, stacklevel=1)
pytestmark = [pytest.mark.xdist_group("site")]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield started
        started.close()


class Visitor:
    """A page of the site in a window, and what went wrong on it."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder, self.wrong = page, folder, []
        page.set_default_timeout(5000)
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on(
            "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else self.wrong.append(asked.url)
        )

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.folder.as_uri()}/{path}")
        return self.page

    def names(self) -> list[str]:
        """The cards that are shown, in their order."""
        return self.page.locator("#cards > li:visible").evaluate_all("cards => cards.map(card => card.dataset.name)")


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def visitor(request: pytest.FixtureRequest, browser: Browser, site: Site) -> Iterator[Visitor]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=width < 500)
    found = Visitor(context.new_page(), site.folder)
    yield found
    fits = found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
    assert found.wrong == []
    assert fits, "the page is wider than the window"


def test_search_and_filter(visitor: Visitor) -> None:
    page = visitor.open("index.html")
    everything = visitor.names()
    assert len(everything) > 30
    expect(page.get_by_role("status").filter(has_text="architectures")).to_have_text(f"{len(everything)} architectures")

    page.get_by_role("searchbox").fill("qwen3 delta")
    assert {"qwen3-next-80b-a3b"} <= set(visitor.names()) < {name for name in everything if "qwen" in name}
    if not page.locator("#filters").evaluate("details => details.open"):
        page.get_by_text("Filters", exact=True).click()
    page.get_by_role("searchbox").fill("")
    page.get_by_label("Latent attention").check()
    page.get_by_label("Sparse attention").check()
    assert "deepseek-v3.2" in visitor.names()
    assert "deepseek-v3" not in visitor.names()
    page.get_by_label("Parameters").select_option("above 150 B")
    page.get_by_label("Released in").select_option("2025")
    assert "deepseek-v3.2" in visitor.names()
    page.get_by_label("Licence").select_option("MIT")
    count = len(visitor.names())
    expect(page.locator("#many")).to_have_text("1 architecture" if count == 1 else f"{count} architectures")

    page.reload()  # the address remembers
    assert len(visitor.names()) == count
    expect(page.get_by_label("Sparse attention")).to_be_checked()
    page.get_by_role("button", name="Clear filters").click()
    assert visitor.names() == everything
    page.get_by_role("searchbox").fill("there is no such thing")
    expect(page.get_by_text("Nothing in the catalog has all of that")).to_be_visible()


def test_sorting(visitor: Visitor) -> None:
    page = visitor.open("index.html")
    released = page.locator("#cards > li").evaluate_all("cards => cards.map(card => card.dataset.released)")
    assert released == sorted(released, reverse=True)
    page.get_by_label("Sort by").select_option("largest")
    sizes = page.locator("#cards > li").evaluate_all("cards => cards.map(card => Number(card.dataset.parameters))")
    assert sizes == sorted(sizes, reverse=True)


def test_choose_compare_slide_and_come_back(visitor: Visitor, archs: dict[str, Architecture]) -> None:
    page = visitor.open("index.html")
    for name in ("phi-4", "qwen3-4b"):
        page.get_by_role("searchbox").fill(name)
        page.get_by_label(f"Choose {name}", exact=True).check()
    page.get_by_label("Chosen architectures").get_by_role("link", name="Compare").click()
    row = page.get_by_role("table", name="Costs in the setting above").get_by_role("row").filter(has_text="phi-4")
    expect(row).to_contain_text("14.7 B")
    slider = page.get_by_label("Context", exact=True)
    slider.focus()
    before = row.inner_text()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "256k tokens")
    expect(row).not_to_have_text(before)
    page.get_by_label("Weights in").select_option("fp8")
    page.get_by_label("Device", exact=True).select_option("h100")
    assert re.search("context=262144.*plan=fp8.*device=h100", page.url)
    priced = archs["phi-4"].cost(context=262144, weights="fp8")
    expect(row).to_contain_text(words.size(priced.weight_bytes))
    expect(row).to_contain_text(words.seconds(bounds(priced, device("h100")).next))
    at_fp8 = row.inner_text()

    page.get_by_label("Architecture to add").select_option("trm")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#chosen li")).to_have_count(3)
    page.get_by_role("button", name="remove trm").click()
    expect(page.locator("#chosen li")).to_have_count(2)
    page.go_back()
    expect(page.locator("#chosen li")).to_have_count(3)
    page.go_forward()
    expect(page.locator("#chosen li")).to_have_count(2)
    page.reload()
    expect(row).to_have_text(at_fp8.replace("\t", ""))


def test_charts_move_and_say_their_numbers(visitor: Visitor, archs: dict[str, Architecture]) -> None:
    page = visitor.open(f"compare.html{SET}&context=4096")
    figure = page.locator("#figure-state")
    canvas = figure.locator("canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile("llama-3.1-8b, qwen3-next-80b-a3b, deepseek-v3"))
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    page.get_by_label("Batch").fill("4")
    page.wait_for_function(
        "before => document.querySelector('#figure-state canvas').toDataURL() !== before", arg=before
    )
    figure.get_by_text("As a table").click()
    cells = figure.get_by_role("row").filter(has_text=re.compile("^1M")).get_by_role("cell").all_inner_texts()
    names = ("llama-3.1-8b", "qwen3-next-80b-a3b", "deepseek-v3")
    assert cells == [words.size(archs[name].state_bytes(1 << 20, batch=16)) for name in names]
    swatches = page.evaluate("Array.from({ length: 32 }, (_, i) => Lamina.charts.swatch(i).outerHTML)")
    assert len(set(swatches)) == 32
    expect(page.locator("#figure-memory canvas")).to_have_attribute(
        "aria-label", re.compile("NVIDIA H200 SXM holds 141 GB")
    )


def test_a_slider_may_move_fast_and_long(visitor: Visitor) -> None:
    page = visitor.open(f"compare.html{SET}")
    slider = page.get_by_label("Context", exact=True)
    slider.evaluate(
        """slider => {
          for (let i = 0; i < 1500; i += 1) {
            slider.value = 10 + (i % 11);
            slider.dispatchEvent(new Event("input"));
          }
        }"""
    )  # 1499 % 11 is 3
    expect(slider).to_have_attribute("aria-valuetext", "8k tokens")
    expect(page).to_have_url(re.compile("context=8192"))
    page.reload()
    expect(slider).to_have_attribute("aria-valuetext", "8k tokens")


def test_diff_of_any_two(visitor: Visitor) -> None:
    page = visitor.open("diff.html")
    page.get_by_label("One", exact=True).select_option("qwen3-30b-a3b")
    page.get_by_label("The other").select_option("qwen3-next-80b-a3b")
    parts = page.locator("#parts")
    expect(parts).to_contain_text("Gated DeltaNet")
    expect(page.locator("#facts tr.differs").filter(has_text="parameters")).to_contain_text("79.7 B")
    expect(page.locator("#facts tr.same").filter(has_text="width")).to_contain_text("2,048")
    page.get_by_text("fields differ, by path").click()
    expect(
        page.get_by_role("rowheader", name="blocks[3,7,11,15,19,23,27,31,35,39,43,47].mixer.kv_heads")
    ).to_be_visible()
    page.get_by_role("button", name="Swap").click()
    expect(page.locator("#facts thead th").nth(1)).to_have_text("qwen3-next-80b-a3b")
    page.go_back()
    expect(page.locator("#facts thead th").nth(1)).to_have_text("qwen3-30b-a3b")


def test_a_page_and_the_links_from_it(visitor: Visitor) -> None:
    page = visitor.open("index.html#set=phi-4&context=8192")
    page.get_by_role("searchbox").fill("gpt-oss-20b")
    page.get_by_role("link", name="gpt-oss-20b").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("gpt-oss-20b")
    expect(page.get_by_label("Context", exact=True)).to_have_attribute("aria-valuetext", "8k tokens")
    expect(page.locator(".drawing svg")).to_be_visible()
    total = page.locator("#breakdown tr").last
    expect(total).to_contain_text("20.9 B")
    expect(page.get_by_role("link", name="openai/gpt-oss-20b")).to_have_attribute(
        "href", "https://huggingface.co/openai/gpt-oss-20b"
    )
    page.get_by_role("button", name="Add to comparison").click()
    assert "set=phi-4,gpt-oss-20b" in page.url
    page.get_by_role("link", name="Diff with gpt-oss-120b").click()
    expect(page.locator("#diff-status")).to_contain_text("gpt-oss-20b and gpt-oss-120b")


def test_with_keys_alone(visitor: Visitor) -> None:
    page = visitor.open("index.html")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("llama-3-8b")
    expect(page.locator("#cards > li:visible")).to_have_count(len(visitor.names()))
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.locator(":focus").get_attribute("value") == "llama-3-8b":
            break
    page.keyboard.press("Space")
    expect(page.locator("#tray")).to_be_visible()
    assert page.locator(":focus").get_attribute("value") == "llama-3-8b"
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.locator(":focus").inner_text() == "Compare":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#chosen li")).to_have_count(1)
    outline = page.get_by_role("link", name="Catalog")
    outline.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_the_theme_can_be_chosen(visitor: Visitor) -> None:
    page = visitor.open(f"compare.html{SET}")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Dark theme").click()
    expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate(paper)
    assert dark != light
    page.goto(visitor.folder.as_uri() + "/architectures/trm.html")
    assert page.evaluate(paper) == dark


def test_an_address_that_says_nonsense_is_no_error(visitor: Visitor) -> None:
    page = visitor.open("compare.html#set=nothing,phi-4,__proto__&context=-5&batch=x&plan=no&device=toaster&count=1e9")
    expect(page.locator("#chosen li")).to_have_count(1)
    page.goto(page.url.split("#")[0] + "#set=<img src=x onerror=alert(1)>")
    expect(page.locator("#empty")).to_be_visible()


PAGES = {
    "catalog": "index.html#q=qwen3&set=qwen3-4b,qwen3-32b",
    "compare": f"compare.html{SET}",
    "empty": "compare.html",
    "diff": "diff.html#set=qwen3-30b-a3b,qwen3-next-80b-a3b",
    "architecture": "architectures/deepseek-v3.2.html",
    "report": "report.html",
}


@pytest.fixture(scope="session")
def report_path(site: Site, archs: dict[str, Architecture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write([archs[name] for name in ("llama-3.1-8b", "qwen3-4b", "trm")], path, {"context": 131072})
    return path


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_accessible(name: str, theme: Any, browser: Browser, site: Site, report_path: Path) -> None:
    width, height = DESK if theme == "light" else PHONE
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    folder = report_path.parent if name == "report" else site.folder
    page.goto(f"{folder.as_uri()}/{PAGES[name]}")
    for summary in page.locator("main summary").all():
        if summary.is_visible() and name != "catalog":
            summary.click()
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response
    context.close()
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert found["passes"]
    assert serious == [], json.dumps([(v["id"], [n["html"][:120] for n in v["nodes"][:5]]) for v in serious], indent=1)


def test_the_report_works_alone(browser: Browser, report_path: Path) -> None:
    context = browser.new_context(viewport={"width": PHONE[0], "height": PHONE[1]})
    visitor = Visitor(context.new_page(), report_path.parent)
    page = visitor.open("report.html")
    expect(page.locator("#chosen li")).to_have_count(3)
    expect(page.get_by_label("Context", exact=True)).to_have_attribute("aria-valuetext", "128k tokens")
    page.get_by_label("The other").select_option("trm")
    expect(page.locator("#diff-status")).to_contain_text("llama-3.1-8b and trm")
    expect(page.locator("#chosen li")).to_have_count(3)
    page.get_by_role("link", name="Drawings").click()
    expect(page.locator(".drawing svg").first).to_be_in_viewport()
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#empty")).to_be_visible()
    fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
    assert visitor.wrong == []
    assert fits

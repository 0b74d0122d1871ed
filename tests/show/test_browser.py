"""The report in a real browser: nothing leaves the page, everything is drawn, it fits a phone, dark differs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright

from actograph.rules.diagnose import diagnose
from actograph.show.report import write_report
from tests.unmeasured import unmeasured

from .runs import deep_run, healthy_run, sick_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE, SCREEN = ViewportSize(width=390, height=844), ViewportSize(width=1400, height=1000)


@pytest.fixture(scope="module")
@unmeasured()
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    for name, view in (("healthy", healthy_run()), ("sick", sick_run()), ("deep", deep_run(100, steps=70))):
        write_report(view, diagnose(view), folder / f"{name}.html")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, NAMES)), None) or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.fail("no Chromium: install the package chromium, or run `playwright install chromium`")
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


class Opened:
    """A page with what went wrong on it: requests that left it, messages on the console."""

    def __init__(self, context: BrowserContext, path: Path) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def left_the_page(self) -> list[str]:
        own = self.page.url.split("#")[0]
        return [
            url
            for url in self.requests
            if url.split("#")[0] != own and not url.startswith(("data:", "blob:"))
        ]

    def open_all(self) -> int:
        """Open every section, scroll through the page and return how many figures were drawn."""
        self.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        for plot in self.page.locator(".plot").all():
            plot.scroll_into_view_if_needed()
            plot.locator(".main-svg").first.wait_for(state="attached")
        return self.page.locator(".plot:has(.main-svg)").count()

    def overflow(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.fixture
def opened(browser: Browser, reports: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    name, size, scheme = request.param
    context = browser.new_context(viewport=size, color_scheme=scheme)
    yield Opened(context, reports / f"{name}.html")
    context.close()


def pages(*cases: tuple[str, ViewportSize, str]) -> pytest.MarkDecorator:
    ids = [f"{name}-{size['width']}-{scheme}" for name, size, scheme in cases]
    return pytest.mark.parametrize("opened", cases, indirect=True, ids=ids)


@pages(("healthy", PHONE, "light"), ("sick", PHONE, "dark"), ("sick", SCREEN, "light"))
def test_everything_is_drawn_and_nothing_leaves_the_page(opened: Opened) -> None:
    drawn = opened.open_all()
    assert drawn == opened.page.locator(".plot").count()
    assert drawn >= 10
    assert opened.left_the_page() == []
    assert opened.complaints == []
    assert opened.overflow() <= 0


@pages(("healthy", SCREEN, "light"))
def test_a_statistic_is_chosen_by_mouse_or_keyboard(opened: Opened) -> None:
    heat_map = opened.page.locator("#heat-map")
    heat_map.scroll_into_view_if_needed()
    heat_map.locator(".main-svg").first.wait_for(state="attached")
    title = heat_map.locator(".gtitle")
    assert title.text_content() == "standard deviation"
    opened.page.get_by_text("share of exact zeros", exact=True).first.click()
    opened.page.wait_for_function("document.querySelector('#heat-map .gtitle').textContent.includes('zeros')")
    opened.page.keyboard.press("ArrowLeft")
    opened.page.wait_for_function("document.querySelector('#heat-map .gtitle').textContent.includes('near')")
    assert "near zero" in (heat_map.get_attribute("aria-label") or "")
    assert opened.complaints == []


@pages(("deep", SCREEN, "light"))
def test_a_hundred_layers_are_drawn_only_when_opened(opened: Opened) -> None:
    assert opened.page.locator("details.layer").count() == 100
    assert opened.page.locator("details.layer .main-svg").count() == 0
    section = opened.page.locator("#layer-57")
    section.locator("summary").click()
    section.locator(".plot .main-svg").first.wait_for(state="attached")
    image = section.locator(".plot image").first
    image.wait_for(state="attached")
    assert (image.get_attribute("xlink:href") or image.get_attribute("href") or "").startswith(
        "data:image/png"
    )
    assert opened.page.locator("details.layer:not([open]) .main-svg").count() == 0


@pages(("sick", SCREEN, "light"))
def test_a_finding_leads_to_its_layer(opened: Opened) -> None:
    link = opened.page.locator(".finding .where a").first
    target = link.get_attribute("href") or ""
    link.click()
    opened.page.wait_for_function("id => document.querySelector(id).open", arg=target)


@pages(("sick", SCREEN, "light"))
def test_a_column_head_sorts_and_undefined_comes_last(opened: Opened) -> None:
    def column(number: int) -> list[str]:
        cells = opened.page.locator(f".sortable tbody tr > :nth-child({number})").all()
        return [cell.get_attribute("data-value") or "" for cell in cells]

    button = opened.page.locator(".sortable thead button").nth(5)
    button.click()
    values = [float(value) for value in column(6) if value]
    assert values == sorted(values)
    assert column(6)[-1] == ""  # the last layer holds NaN only
    button.click()
    values = [float(value) for value in column(6) if value]
    assert values == sorted(values, reverse=True)
    assert column(6)[-1] == ""


def test_dark_differs_and_follows_the_system_while_open(browser: Browser, reports: Path) -> None:
    context = browser.new_context(viewport=SCREEN, color_scheme="light")
    opened = Opened(context, reports / "healthy.html")
    opened.page.locator("#loss .plot .main-svg").first.wait_for()
    background = "getComputedStyle(document.body).backgroundColor"
    paper = "document.querySelector('#loss .plot .main-svg').style.background"
    light = opened.page.evaluate(background), opened.page.evaluate(paper)
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_function(f"was => {paper} !== was", arg=light[1])
    assert opened.page.evaluate(background) != light[0]
    assert opened.complaints == []
    context.close()

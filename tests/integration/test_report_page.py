"""The report in a browser: on a desk, on a phone, on paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from busi_pipeline.plotting.style import SMALL_TEXT
from tests.evaluation_factories import FOUR, THREE
from tests.integration.browsers import list_violations, needs_chromium, open_browser
from tests.report_factories import describe_dataset, make_everything, write_page

pytestmark = needs_chromium

DESK, PHONE = 1300, 320
PAPER = 703  # A4 less its margins, in CSS pixels
WIDER_THAN_IT_IS = """
() => [...document.querySelectorAll(".scroll")]
  .filter((own) => own.scrollWidth > own.clientWidth + 1)
  .map((own) => own.getAttribute("aria-label"))
"""
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of all there can be, one of nothing, and one of four classes in demo dress."""
    folder = tmp_path_factory.mktemp("reports")
    pages = {
        "all": write_page(THREE, **make_everything(THREE)),
        "nothing": write_page(),
        "demo": write_page(FOUR, describe_dataset(FOUR, synthetic=True), **make_everything(FOUR)),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page)
    return {name: folder / f"{name}.html" for name in pages}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


def open_report(page: Page, report: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri())


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("name", ["all", "nothing", "demo"])
def test_report_is_accessible_and_stays_in_its_width(
    page: Page, reports: dict[str, Path], name: str, width: int
) -> None:
    open_report(page, reports[name], width)
    assert list_violations(page) == []
    assert page.evaluate(SIDEWAYS) <= 0


@pytest.mark.parametrize("name", ["all", "demo"])
def test_no_column_is_cut_off_on_a_desk(page: Page, reports: dict[str, Path], name: str) -> None:
    open_report(page, reports[name], DESK)
    assert page.evaluate(WIDER_THAN_IT_IS) == []


@pytest.mark.parametrize("width", [DESK, 768, PHONE])
def test_text_in_pictures_can_be_read(page: Page, reports: dict[str, Path], width: int) -> None:
    open_report(page, reports["all"], width)
    shown = page.locator("img").evaluate_all("(all) => all.map((own) => own.clientWidth)")
    assert len(shown) > 20
    pixels = min(shown) / 11 * SMALL_TEXT / 72  # of pictures of eleven inches
    assert pixels >= 10


def test_a_table_on_a_phone_is_scrolled_by_the_keyboard(
    page: Page, reports: dict[str, Path]
) -> None:
    open_report(page, reports["all"], PHONE)
    table = page.get_by_role("region", name="Table: what the flag finds and costs")
    table.focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("own => own.scrollLeft > 0", arg=table.element_handle())
    name = table.locator("tbody th").first.bounding_box()
    frame = table.bounding_box()
    assert name is not None
    assert frame is not None
    assert name["x"] == pytest.approx(frame["x"], abs=2), "a row keeps its name"


@pytest.mark.parametrize("name", ["all", "demo"])
def test_nothing_is_cut_off_on_paper(page: Page, reports: dict[str, Path], name: str) -> None:
    open_report(page, reports[name], PAPER)
    page.emulate_media(media="print")
    ends = page.locator("table, img, p, code").evaluate_all(
        "(all) => all.map((own) => Math.max(own.getBoundingClientRect().right, own.scrollWidth))"
    )
    assert max(ends) <= PAPER + 1
    assert page.locator("nav").is_hidden()

"""Readers at the page, in a browser: what they see, do and lose."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from busi_pipeline.synthetic import simulate_scan
from tests.factories import encode_image
from tests.integration.browsers import list_violations, needs_chromium, open_browser
from tests.integration.services import Started, start
from tests.package_factories import write_tiny_package

pytestmark = needs_chromium


def make_scan(label: str, seed: int = 0) -> bytes:
    scan = simulate_scan(label, 300, 400, np.random.default_rng(seed))
    return encode_image(Image.fromarray(scan.image))


PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 800},
    "has_touch": True,
    "is_mobile": True,
}
SCAN = make_scan("malignant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_tiny_package(folder / "06_models" / "tiny" / "package", locates=True)
    (folder / "work").mkdir()
    for number, label in enumerate(("benign", "malignant", "normal")):
        (folder / "work" / f"scan {number}.png").write_bytes(make_scan(label, number))
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Started]:
    options = [
        "--worklist",
        str(folder / "work"),
        "--max-bytes",
        "2000000",
        "--max-files",
        "3",
        "--results",
    ]
    with start(folder / "06_models", *options) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, service: Started) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        lambda line: troubles.append(line.text) if "Content Security" in line.text else None,
    )
    page.goto(service.address)
    yield page
    context.close()
    assert troubles == []


def wait_for(page: Page, selector: str) -> None:
    """Wait until it shows and the page's script, which is deferred, has run."""
    expect(page.locator(selector).first).to_be_visible()
    page.wait_for_load_state("domcontentloaded")


def sign_in(page: Page, reader: str) -> None:
    page.fill("#reader", reader)
    page.click("main button")
    wait_for(page, "h1:text-is('Images')")


def open_file(page: Page, content: bytes = SCAN, name: str = "scan.png") -> None:
    page.set_input_files("#files", {"name": name, "mimeType": "image/png", "buffer": content})
    page.click("#upload button")
    wait_for(page, "#viewer")


def put_on_record(page: Page, category: str) -> None:
    page.check(f"input[name=birads][value='{category}']")
    page.click("text=Put on record and see the answer")
    wait_for(page, "#answer-text")


def drag(page: Page, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """Drag over the image, from and to shares of its width and height."""
    frame = page.locator("#boxes").bounding_box()
    assert frame is not None
    points = [
        (frame["x"] + across * frame["width"], frame["y"] + down * frame["height"])
        for across, down in (start, stop)
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()


def swipe(page: Page, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """Move a finger over the image, as `drag` does a mouse."""
    page.locator("#boxes").evaluate(
        """(svg, points) => {
          svg.setPointerCapture = () => {};
          const frame = svg.getBoundingClientRect();
          const send = (kind, [across, down]) => svg.dispatchEvent(new PointerEvent(kind, {
            pointerType: "touch", pointerId: 7, button: 0, bubbles: true, cancelable: true,
            clientX: frame.left + across * frame.width, clientY: frame.top + down * frame.height,
          }));
          send("pointerdown", points[0]);
          send("pointermove", points[1]);
          send("pointerup", points[1]);
        }""",
        [start, stop],
    )


def read_box(page: Page) -> list[float]:
    values = [field.input_value() for field in page.locator("#box-fields input").all()]
    return [float(value) for value in values if value]


def test_upload_box_result_and_decision(page: Page) -> None:
    assert list_violations(page) == []
    sign_in(page, "Upload")
    assert list_violations(page) == []
    open_file(page)
    assert list_violations(page) == []
    drag(page, (0.25, 0.25), (0.75, 0.5))
    assert np.allclose(read_box(page), [100, 75, 300, 150], atol=3)
    put_on_record(page, "4A")
    assert list_violations(page) == []
    expect(page.locator("rect.own")).to_have_attribute("x", re.compile(r"^(9[789]|10[0123])"))
    before = page.inner_text("#answer-text")
    assert "Asked about the box that the model found." in before
    drag(page, (0.1, 0.1), (0.4, 0.5))
    expect(page.locator("#answer-text")).to_contain_text("Asked about your box.")
    boxed = page.inner_text("#answer-text")
    drag(page, (0.2, 0.2), (0.5, 0.4))  # inside the box: it moves
    expect(page.locator("#answer-text")).not_to_contain_text(boxed.splitlines()[2])
    assert np.allclose(read_box(page), [160, 90, 280, 210], atol=4)
    drag(page, (0.7, 0.7), (0.8, 0.9))  # its lower right handle
    expect(page.locator(".waiting")).to_have_count(0)
    assert np.allclose(read_box(page), [160, 90, 320, 270], atol=4)
    page.click("#clear-box")
    expect(page.locator("#answer-text")).to_contain_text("the box that the model found")
    page.fill("#opacity", "80")
    assert page.locator("#heat").evaluate("(heat) => getComputedStyle(heat).opacity") == "0.8"
    page.click("text=Keep BI-RADS 4A")
    expect(page.get_by_text("On record: you keep BI-RADS 4A.")).to_be_visible()
    page.click("nav >> text=Readers")
    expect(page.get_by_role("row", name="Upload")).to_be_visible()
    assert list_violations(page) == []
    page.click("nav >> text=Model")
    assert list_violations(page) == []


def test_zoom_shows_more_and_the_box_stays_where_it_is(page: Page) -> None:
    sign_in(page, "Zoom")
    open_file(page)
    drag(page, (0.25, 0.25), (0.75, 0.5))
    before = read_box(page)
    width = page.locator("#picture").bounding_box()
    for _ in range(3):
        page.click("#zoom-in")
    wider = page.locator("#picture").bounding_box()
    assert width is not None
    assert wider is not None
    assert wider["width"] == pytest.approx(1.25**3 * width["width"], rel=0.02)
    assert read_box(page) == before
    drag(page, (0.3, 0.3), (0.4, 0.3))
    assert np.allclose(
        read_box(page), [before[0] + 40, before[1], before[2] + 40, before[3]], atol=3
    )


def test_a_bad_file_is_said_and_nothing_opens(page: Page) -> None:
    sign_in(page, "Bad")
    bad = {"name": "<b>bad.png", "mimeType": "image/png", "buffer": b"none"}
    page.set_input_files("#files", bad)
    page.click("#upload button")
    wait_for(page, "[role=alert]:has-text('<b>bad.png: ')")
    assert list_violations(page) == []
    large = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(2_000_001)}
    page.set_input_files("#files", large)
    expect(page.locator("#upload-problem")).to_have_text(
        "These files are too large together. At most: 2 MB"
    )
    page.click("#upload button")
    page.set_input_files("#files", [bad] * 4)
    expect(page.locator("#upload-problem")).to_have_text(
        "These are too many files at once. At most: 3"
    )
    assert page.url.endswith("/page/")


def test_dropped_files_open(page: Page) -> None:
    sign_in(page, "Drop")
    page.evaluate(
        """(bytes) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
          const init = {dataTransfer: files, bubbles: true, cancelable: true};
          document.querySelector("#upload").dispatchEvent(new DragEvent("drop", init));
        }""",
        list(SCAN),
    )
    expect(page.locator("h1")).to_have_text("dropped.png")


def test_two_readers_at_once_see_their_own(browser: Browser, service: Started, page: Page) -> None:
    sign_in(page, "One")
    other = browser.new_context(locale="en-GB").new_page()
    other.goto(service.address)
    sign_in(other, "Two")
    for reader in (page, other):
        reader.click("text=scan 1.png")
    put_on_record(page, "5")
    assert "What the model says" not in other.content()
    put_on_record(other, "2")
    page.click("text=Keep BI-RADS 5")
    other.click("text=Change it")
    other.check("details input[value='4B']")
    other.click("text=Put the change on record")
    expect(other.get_by_text("On record: you changed BI-RADS 2 to 4B.")).to_be_visible()
    page.goto(f"{service.address}/page/readers")
    for name, changed in (("One", "0"), ("Two", "1")):
        row = page.get_by_role("row", name=name).get_by_role("cell").all_inner_texts()
        assert (row[1], row[4], row[5]) == ("1", changed, changed)
    other.context.close()


def test_a_lost_session_is_said_and_nothing_is_recorded(page: Page, folder: Path) -> None:
    sign_in(page, "Lost")
    open_file(page)
    put_on_record(page, "3")
    page.context.clear_cookies()
    drag(page, (0.1, 0.1), (0.4, 0.5))
    expect(page.locator("#ask-problem")).to_contain_text("Your session has ended.")
    page.click("text=Keep BI-RADS 3")
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended.")
    lines = (folder / "07_model_output" / "readings.jsonl").read_text().splitlines()
    own = [re.search(r'"event": "(\w+)"', line)[1] for line in lines if '"Lost"' in line]  # type: ignore[index]
    assert own == ["read", "answer"]


def test_an_answer_on_another_box_is_marked_until_the_next_one(page: Page) -> None:
    sign_in(page, "Stale")
    open_file(page)
    put_on_record(page, "3")
    drag(page, (0.1, 0.1), (0.4, 0.5))
    expect(page.locator("#answer-text")).to_contain_text("Asked about your box.")
    page.fill("#box-fields input[name=left]", "399")
    expect(page.locator("#ask-problem")).to_contain_text("The left edge must be left of")
    expect(page.locator("#answer-text")).to_have_class("waiting")
    page.wait_for_timeout(900)
    expect(page.locator("#answer-text")).to_have_class("waiting")
    page.fill("#box-fields input[name=left]", "50")
    expect(page.locator("#answer-text")).not_to_have_class("waiting")
    expect(page.locator("#ask-problem")).to_be_hidden()
    expect(page.locator("#spoken")).to_have_text(page.locator(".verdict").inner_text())
    box = read_box(page)
    page.click("summary >> text=Prevalence where you work")
    page.fill("input[name=percent]", "20")
    page.click("#prevalence button")
    expect(page.locator("#answer-text")).to_contain_text("Asked about your box.")
    assert read_box(page) == box


def test_a_finger_scrolls_until_it_is_to_draw(browser: Browser, service: Started) -> None:
    context = browser.new_context(**PHONE, locale="en-GB")
    page = context.new_page()
    page.goto(service.address)
    sign_in(page, "Finger")
    open_file(page)
    svg = page.locator("#boxes")
    shown = "(svg) => getComputedStyle(svg).touchAction"
    swipe(page, (0.2, 0.2), (0.6, 0.6))
    assert read_box(page) == []
    assert svg.evaluate(shown) != "none"
    page.click("#draw")
    assert svg.evaluate(shown) == "none"
    swipe(page, (0.2, 0.2), (0.6, 0.6))
    assert np.allclose(read_box(page), [80, 60, 240, 180], atol=4)
    swipe(page, (0.8, 0.8), (0.805, 0.805))
    assert np.allclose(read_box(page), [80, 60, 240, 180], atol=4), "too short for a box"
    context.close()


def test_a_service_that_is_gone_is_said(browser: Browser, folder: Path) -> None:
    with start(folder / "06_models") as service:
        page = browser.new_context(locale="en-GB").new_page()
        page.goto(service.address)
        sign_in(page, "Gone")
        open_file(page)
        put_on_record(page, "3")
    drag(page, (0.1, 0.1), (0.4, 0.5))
    expect(page.locator("#ask-problem")).to_have_text("The answer could not be fetched. Try again.")
    page.context.close()


def test_the_keyboard_alone_suffices(page: Page) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(60):
            if page.evaluate("(own) => document.activeElement.matches(own)", selector):
                return
            page.keyboard.press("Tab")
        pytest.fail(f"{selector} cannot be reached")

    tab_to("#reader")
    page.keyboard.type("Keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Images")
    tab_to(".worklist button")
    page.keyboard.press("Enter")
    wait_for(page, "#viewer")
    tab_to("#window")
    page.keyboard.press("+")
    tab_to("input[name=birads]")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    assert page.locator("input[name=birads]:checked").input_value() == "1"
    for edge, value in (("left", "20"), ("top", "30"), ("right", "200"), ("bottom", "150")):
        tab_to(f"input[name={edge}]")
        page.keyboard.type(value)
    expect(page.locator("#box")).to_have_attribute("width", "180")
    tab_to("#read > p > button")
    page.keyboard.press("Enter")
    wait_for(page, "#answer-text")
    tab_to("#opacity")
    page.keyboard.press("End")
    assert page.locator("#heat").evaluate("(heat) => heat.style.opacity") == "1"
    tab_to("#own-box")
    page.keyboard.press("Enter")
    expect(page.locator("#answer-text")).to_contain_text("Asked about your box.")
    tab_to("#decision summary")
    page.keyboard.press("Enter")
    tab_to("#change input[name=birads]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")  # from within the form: the change, not what was first
    expect(page.get_by_text("On record: you changed BI-RADS 1 to 2.")).to_be_visible()
    assert list_violations(page) == []
    tab_to("a.next")


@pytest.mark.parametrize(("width", "height"), [(640, 450), (360, 740)])
def test_at_200_percent_and_on_a_phone_all_is_there(width: int, height: int, page: Page) -> None:
    page.set_viewport_size({"width": width, "height": height})  # 200 % of 1280 x 900 is the first
    sign_in(page, f"Narrow {width}")
    open_file(page, name="a name that is long " * 6 + ".png")
    put_on_record(page, "4C")
    for path in ("", "/page/", "/page/readers", "/page/model"):
        if path:
            page.goto(re.sub(r"/page/.*", path, page.url))
        overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, path or "case"
        assert list_violations(page) == []


def test_the_page_speaks_german(page: Page) -> None:
    page.click("text=Deutsch")
    expect(page.locator("html")).to_have_attribute("lang", "de")
    page.fill("#reader", "Deutsch")
    page.click("main button")
    wait_for(page, "h1:text-is('Bilder')")
    open_file(page)
    page.check("input[name=birads][value='3']")
    page.click("text=Festhalten und Antwort ansehen")
    expect(page.locator("#answer-text")).to_contain_text("Wahrscheinlichkeit für „bösartig“")
    assert list_violations(page) == []

"""The pictures of docs/how-to/page.md: `make demo`, then `python docs/take_screenshots.py`.

It needs Chromium and the `dev` extra, and starts a service of its own.
"""

import csv
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from tests.integration.services import start

FIGURES = Path(__file__).parent / "figures"
MODELS, IMAGES = Path("data/demo/06_models"), Path("data/demo/01_raw")


def take_pictures(page: Page, address: str) -> None:
    """Read an image, see the answer, and take a picture of each."""
    page.goto(address)
    page.fill("#reader", "Reader A")
    page.click("main button")
    page.click(".worklist button")
    left, top, right, bottom = page.evaluate(
        "(() => { const own = document.querySelector('#viewer').dataset;"
        " return [own.width * 0.3, own.height * 0.3, own.width * 0.7, own.height * 0.75]; })()"
    )
    for name, value in zip(
        ("left", "top", "right", "bottom"), (left, top, right, bottom), strict=True
    ):
        page.fill(f"input[name={name}]", str(round(value)))
    page.check("input[value='4B']")
    page.screenshot(path=FIGURES / "page_read.png", full_page=True)
    page.click("#read > p > button")
    page.fill("#opacity", "70")
    page.wait_for_timeout(1000)
    page.screenshot(path=FIGURES / "page_answer.png", full_page=True)


def list_unseen() -> list[str]:
    """Return two malignant images that the model did not learn from."""
    (tested,) = MODELS.glob("*/package/tested.csv")
    with tested.open(newline="") as file:
        rows = [row["image_id"] for row in csv.DictReader(file) if row["label"] == "malignant"]
    return rows[:2]


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        work.mkdir()
        for number, image in enumerate(list_unseen(), 1):
            shutil.copy(IMAGES / f"{image}.png", work / f"scan {number}.png")
        models = Path(folder) / "06_models"
        shutil.copytree(MODELS, models)
        with start(models, "--worklist", str(work)) as service, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            context = browser.new_context(
                viewport={"width": 1200, "height": 800}, locale="en-GB", bypass_csp=True
            )
            take_pictures(context.new_page(), service.address)
            browser.close()


if __name__ == "__main__":
    main()

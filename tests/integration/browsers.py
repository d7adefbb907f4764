"""Chromium without a window, steered by Playwright; Debian's, since nothing is fetched."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Other tests run beside these.
expect.set_options(timeout=30_000)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium: apt install chromium"
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a browser, and end it."""
    with sync_playwright() as playwright:
        # Within a container there are no rights for a sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def list_violations(page: Page) -> list[str]:
    """Return what axe-core finds in a page, a line each; what is folded is opened for it."""
    page.locator("details").evaluate_all("(all) => all.forEach((own) => { own.open = true; })")
    found = Axe().run(page).response["violations"]
    page.locator("details").evaluate_all("(all) => all.forEach((own) => { own.open = false; })")
    return [f"{own['id']}: {own['help']}: {own['nodes'][0]['html'][:200]}" for own in found]

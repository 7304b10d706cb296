"""A headless browser for tests of pages, where the machine has one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome",
         "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium as Playwright drives it."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; the extra dev brings it")
    with api.sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        if not found and not Path(playwright.chromium.executable_path).is_file():
            pytest.skip(f"no browser here: none of {', '.join(NAMES)}; on Debian: apt-get install chromium")
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


@contextmanager
def opened(browser, path: Path, width: int = 1400, scheme: str = "light") -> Iterator:
    """The page in a file, in a window of this width. It may say nothing on the console, and ask for no other file."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    try:
        yield page
        assert said == []
        assert [address for address in asked if not address.startswith("data:")] == [path.as_uri()]
    finally:
        page.close()

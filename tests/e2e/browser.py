"""A headless Chromium that tests look at Airflow's pages with: Debian's, driven by Playwright."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, FrameLocator, Page, expect, sync_playwright

from practicus_provider.links import UI_ROUTE
from tests.cluster.fixture import needed
from tests.cluster.packages import ensure
from tests.e2e.airflow_home import PATIENCE, Airflow

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),  # as root, in a container
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SCREENSHOTS = "PRACTICUS_TEST_SCREENSHOTS"
"""Folder for pictures of the pages, for who wants to see them."""


@contextlib.contextmanager
def headless() -> Iterator[Browser]:
    """The browser; without it the test is skipped, but fails in CI."""
    with needed():
        ensure({CHROMIUM: "chromium"})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def logged_in(browser: Browser, airflow: Airflow, token: str = "", theme: Literal["light", "dark"] = "light") -> Page:
    """A page of Airflow's, as who has logged in sees it."""
    context = browser.new_context(base_url=airflow.url, viewport={"width": 1400, "height": 900}, color_scheme=theme)
    context.set_default_timeout(1000 * PATIENCE)
    expect.set_options(timeout=1000 * PATIENCE)
    context.add_cookies([{"name": "_token", "value": token or airflow.token, "url": airflow.url}])
    return context.new_page()


def clusters(page: Page) -> FrameLocator:
    """What the page *Clusters* shows inside of Airflow's."""
    page.goto(f"/plugin/{UI_ROUTE}")
    return page.frame_locator("iframe")


def picture(page: Page, name: str) -> None:
    """Keep what is seen, where somebody wants to look."""
    if folder := os.environ.get(SCREENSHOTS):
        page.screenshot(path=Path(folder) / f"{name}.png")

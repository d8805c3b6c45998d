"""A real Chromium without a screen, and the page in it. Debian's program is driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, sync_playwright

from portclaim.common.db.tokens import Role
from tests.support.concurrency import wait_until
from tests.support.engines import skip_without
from tests.support.http_api import HttpApi

PATIENCE = 20_000.0  # milliseconds after which what is expected counts as missing
DESK: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 400, "height": 800}
_PLACE = """async ([name, address]) => {
    const { app } = await import('./page/main.js');
    const { canvas } = app.view;
    const host = app.fleet.host(name);
    const box = canvas.layout.box(host.id);
    const port = canvas.layout.ports(host).find(each => each.port.address === address);
    const at = canvas.element.getBoundingClientRect();
    const top = at.y - canvas.element.scrollTop;
    return [at.x + box.x + port.x + port.w / 2, top + box.y + port.y + port.h / 2];
}"""


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """The browser until the end of the block. ``more``: its flags. Skips the test if it is not installed."""
    program = shutil.which("chromium")
    if program is None:
        skip_without("Chromium", "apt-get install chromium")
    flags = ["--disable-gpu", *more]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium has none for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Shown:
    """The page in a tab of its own, and what the browser had to complain about."""

    page: Page
    api: HttpApi
    complaints: list[str] = field(default_factory=list)

    def go(self, *parts: str) -> None:
        """Follow an address within the page."""
        self.page.evaluate(
            "parts => { location.hash = '#/' + parts.map(encodeURIComponent).join('/'); }", parts
        )

    def click_port(self, host: str, address: str) -> None:
        """Click where the map has drawn a port."""
        x, y = self.page.evaluate(_PLACE, [host, address])
        self.page.mouse.click(x, y)

    def until(self, expression: str) -> None:
        """Wait until an expression is true. The page's policy does not let the browser itself wait for it."""
        wait_until(lambda: self.page.evaluate(expression), expression)

    def says(self, words: str) -> None:
        """Wait until a screen reader is told something that begins so."""
        wait_until(
            lambda: self.page.evaluate("document.getElementById('said').textContent").startswith(words), words
        )

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def waits_for(self, selector: str, words: str) -> None:
        """Wait until an element has these words."""
        self.page.locator(selector, has_text=words).first.wait_for()


@contextmanager
def shown(
    browser: Browser,
    api: HttpApi,
    *,
    role: Role = "reader",
    size: ViewportSize = DESK,
    scheme: Literal["light", "dark"] = "light",
    **facts: Any,
) -> Iterator[Shown]:
    """The page with a token, when it has shown the fleet. Afterwards there must be no complaint."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce", **facts)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    seen = Shown(page, api)
    page.on("console", lambda message: _note(seen, message))
    page.on("pageerror", lambda error: seen.complaints.append(f"{error.name}: {error.message}"))
    try:
        page.goto(f"{api.url}/#token={api.token(role)}")
        page.wait_for_selector(".state.live")
        yield seen
        assert seen.complaints == []
    finally:
        context.close()


def _note(seen: Shown, message: ConsoleMessage) -> None:
    is_answer = message.text.startswith(
        "Failed to load resource"
    )  # a problem of the API, which the page shows
    if message.type in {"error", "warning"} and not is_answer:
        seen.complaints.append(f"{message.type}: {message.text}")

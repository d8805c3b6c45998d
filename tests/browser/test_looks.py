"""Every view, light and dark, wide and narrow: accessible, within its width, and within its policy."""

from contextlib import suppress
from uuid import uuid4

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from portclaim.common.errors import ClaimRefused
from tests.support.browser import PHONE, Shown, shown
from tests.support.fleet import Fleet, pf
from tests.support.http_api import HttpApi

REFUSED = uuid4()
VIEWS = [
    (("map",), ".figures"),
    (("host", "compute-1"), ".detail .facts"),
    (("port", "compute-2", pf(0)), ".detail .timeline"),
    (("why", "nic-pf:4"), ".funnel"),
    (("why", str(REFUSED)), ".refused .facts"),
    (("waiting",), ".sheet table"),
    (("trouble",), ".troubles"),
    (("totals",), ".sheet"),
]


def busy(fleet: Fleet) -> None:
    """Something to see in every view."""
    for host in ("compute-1", "compute-2", "compute-3"):
        fleet.claim("nic-vf:2", hosts=[host], project="web")
    fleet.attached(fleet.claim("nic-vf:1", hosts=["compute-2"]))
    with suppress(ClaimRefused):
        fleet.claim("nic-pf:5", REFUSED)
    fleet.refusals.record()
    fleet.claim("nic-pf:4", wait=600)
    fleet.serve()
    fleet.sql("UPDATE outbox SET created_at = now() - interval '5 minutes'")
    fleet.falls_silent("compute-3")


def visit(page: Shown) -> list[str]:
    """Go through all views; answer what axe has found."""
    found = []
    for parts, selector in VIEWS:
        page.go(*parts)
        page.page.wait_for_selector(selector)
        result = Axe().run(page.page)
        if result.violations_count:
            found.append(f"{parts}: {result.generate_report()}")
    return found


def test_axe_finds_nothing_in_the_light(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    busy(fleet)
    with shown(browser, api, role="operator") as page:
        assert visit(page) == []


def test_axe_finds_nothing_in_the_dark(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    busy(fleet)
    with shown(browser, api, role="operator", scheme="dark") as page:
        assert visit(page) == []
        before = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.page.emulate_media(color_scheme="light")
        assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_a_narrow_screen_holds_every_view(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    busy(fleet)
    with shown(browser, api, role="operator", size=PHONE) as page:
        assert visit(page) == []
        for parts, selector in VIEWS:
            page.go(*parts)
            page.page.wait_for_selector(selector)
            width = page.page.evaluate(
                "Math.max(...[...document.querySelectorAll('body, main, .sheet, .detail, .map-main')]"
                ".map(each => each.getBoundingClientRect().right), document.documentElement.scrollWidth)"
            )
            assert width <= PHONE["width"], f"{parts} is wider than the screen"


def test_the_dialog_and_the_sign_in_are_accessible(browser: Browser, api: HttpApi) -> None:
    with shown(browser, api, role="operator") as page:
        page.go("host", "compute-1")
        page.page.click(".actions >> text=Drain")
        assert Axe().run(page.page).violations_count == 0
        page.page.keyboard.press("Escape")
        page.page.click("text=Sign out")
        page.page.wait_for_selector("#token")
        assert Axe().run(page.page).violations_count == 0


def test_nothing_from_elsewhere_is_loaded_and_no_script_in_the_page_runs(
    browser: Browser, api: HttpApi
) -> None:
    with shown(browser, api) as page:
        asked: list[str] = []
        page.page.on("request", lambda request: asked.append(request.url))
        for parts, selector in (("map",), ".figures"), (("totals",), ".sheet"), (("why",), ".ask"):
            page.go(*parts)
            page.page.wait_for_selector(selector)
        assert [url for url in asked if not url.startswith(api.url)] == []
        page.page.evaluate(
            """() => {
                const script = document.createElement('script');
                script.textContent = 'window.ran = true';
                document.body.append(script);
            }"""
        )
        assert page.page.evaluate("window.ran") is None
        refused = [complaint for complaint in page.complaints if "Content Security Policy" in complaint]
        assert len(refused) == 1, "the policy is in force"
        page.complaints.clear()

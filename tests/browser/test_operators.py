"""What an operator does on the page: each act asks first, and is in the audit with its reason."""

from playwright.sync_api import Browser

from tests.support.browser import Shown, shown
from tests.support.fleet import Fleet, pf
from tests.support.http_api import HttpApi


def confirm(page: Shown, verb: str, reason: str | None) -> None:
    if reason is not None:
        page.page.fill("dialog #reason", reason)
    page.page.click(f"dialog button.primary >> text={verb}")
    page.page.wait_for_selector("dialog [role=status]")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector("dialog", state="detached")


def test_an_operator_drains_and_undrains_with_a_reason(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    with shown(browser, api, role="operator") as page:
        page.go("host", "compute-2")
        page.page.click(".actions >> text=Drain")
        page.waits_for("dialog", "Claims that it serves stay until they are released.")
        page.page.click("dialog button.primary")
        assert page.page.locator("dialog").count() == 1, "without a reason nothing is done"
        confirm(page, "Drain", "new cable")
        page.waits_for(".detail .facts", "new cable")
        page.waits_for(".figures", "1 drained")
        page.page.click(".actions >> text=Undrain")
        confirm(page, "Undrain", None)
        page.waits_for(".detail", "takes claims")
        page.go("port", "compute-2", pf(1))
        page.waits_for(".detail h2", pf(1))
        page.page.click(".actions >> text=Drain port")
        confirm(page, "Drain", "loose")
        page.waits_for(".detail .facts", "loose")
    [act, *_] = api.client().get("/v1/audit").json()["acts"]
    assert (act["action"], act["reason"]) == ("drain", "loose")


def test_an_operator_releases_a_claim(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    claim = fleet.attached(fleet.claim("nic-vf:2"))
    with shown(browser, api, role="operator") as page:
        page.go("claim", str(claim.claim_id))
        page.page.click(".actions >> text=Release")
        page.waits_for("dialog", "loses 2 device(s)")
        page.page.click("dialog >> text=Cancel")
        assert fleet.show(claim).status == "allocated"
        page.page.click(".actions >> text=Release")
        confirm(page, "Release", None)
        page.waits_for(".detail .badge", "releasing")


def test_an_operator_retries_a_step_and_ends_a_claim_of_a_lost_host(
    browser: Browser, api: HttpApi, fleet: Fleet
) -> None:
    claim = fleet.claim("nic-vf:1", hosts=["compute-3"])
    fleet.falls_silent("compute-3")
    with shown(browser, api, role="operator") as page:
        page.go("claim", str(claim.claim_id))
        page.page.click(".actions >> text=Retry the step")
        confirm(page, "Retry", "its agent is back")
        page.page.click(".actions >> text=Force release")
        page.waits_for("dialog", "two may use one device")
        confirm(page, "Force release", "it has burnt down")
        page.waits_for(".detail .badge", "released")


def test_what_goes_wrong_is_said_in_the_dialog(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1", hosts=["compute-3"])
    fleet.falls_silent("compute-3")
    with shown(browser, api, role="operator") as page:
        page.go("claim", str(claim.claim_id))
        page.page.click(".actions >> text=Force release")
        fleet.hosts["compute-3"].report()
        page.page.fill("dialog #reason", "it has burnt down")
        page.page.click("dialog button.primary")
        page.waits_for("dialog .wrong", "compute-3")


def test_a_reader_sees_no_buttons(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    claim = fleet.claim("nic-vf:1")
    with shown(browser, api, role="reader") as page:
        for what in (("host", "compute-1"), ("port", "compute-1", pf(0)), ("claim", str(claim.claim_id))):
            page.go(*what)
            page.waits_for(".detail h2", what[-1])
            assert page.page.locator(".actions").count() == 0

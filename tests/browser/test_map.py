"""The map of the fleet in a real browser: live, filtered, with the mouse and with the keys alone."""

from uuid import uuid4

from playwright.sync_api import Browser

from tests.support.browser import Shown, shown
from tests.support.fleet import Fleet, pf, vf
from tests.support.http_api import HttpApi


def figures(page: Shown) -> str:
    return page.text(".figures")


def test_the_map_shows_the_fleet_and_each_change_of_it(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    with shown(browser, api) as page:
        page.waits_for(".figures", "10 of 12")
        claim = fleet.claim("nic-pf:1")
        page.waits_for(".figures", "9 of 12")
        fleet.host("compute-4", ports=2, vfs=8)
        page.waits_for(".figures", "11 of 14")
        fleet.leave(claim)
        page.waits_for(".figures", "12 of 14")


def test_who_holds_a_port_and_since_when(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    instance = uuid4()
    before = fleet.attached(fleet.claim("nic-pf:1", hosts=["compute-3"]))
    fleet.leave(before)
    fleet.attached(fleet.claim("nic-pf:1", hosts=["compute-3"], instance_id=instance))
    with shown(browser, api) as page:
        page.click_port("compute-3", pf(0))
        page.waits_for(".detail h2", pf(0))
        page.waits_for(".detail", "held whole (PF)")
        page.waits_for(".detail table", str(instance)[:8])
        page.page.click(".detail summary")
        assert str(before.instance_id)[:8] in page.text(".timeline .changes")
        assert page.page.locator(".timeline rect.past").count() == 1
        assert page.page.locator(".timeline rect.present").count() == 1


def test_the_details_follow_what_happens(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    with shown(browser, api) as page:
        page.go("port", "compute-2", pf(3))
        page.waits_for(".detail", "Nobody.")
        claim = fleet.claim("nic-vf:8", hosts=["compute-2"])
        page.go("port", "compute-2", next(device.address for device in claim.devices)[:8] + "00.0")
        page.waits_for(".detail table", str(claim.claim_id)[:8])
        fleet.attached(claim)
        page.waits_for(".detail table", "allocated")
        fleet.leave(claim)
        page.waits_for(".detail", "Nobody.")


def test_filters_leave_the_hosts_that_fit(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    fleet.claim("nic-vf:1", hosts=["compute-2"], project="web")
    fleet.host("other-1", ports=1, vfs=2, numa_node=1)
    with shown(browser, api) as page:
        tab = page.page
        page.waits_for(".figures", "Hosts4")
        tab.fill("input[name=host]", "compute")
        page.waits_for(".figures", "3 of 4")
        tab.click("text=Clear")
        tab.select_option("select[name=numa]", "1")
        page.waits_for(".figures", "1 of 4")
        tab.click("text=Clear")
        tab.select_option("select[name=alias]", "gpu")
        page.waits_for(".figures", "0 of 4")
        page.waits_for(".none", "No host fits.")
        tab.select_option("select[name=alias]", "nic-vf")
        page.waits_for(".figures", "Hosts4")
        tab.select_option("select[name=status]", "whole")
        page.waits_for(".figures", "1 of 4")
        tab.click("text=Clear")
        tab.fill("input[name=holder]", "web")
        page.waits_for(".figures", "1 of 4")


def test_a_search_finds_an_instance_a_claim_a_host_and_an_address(
    browser: Browser, api: HttpApi, fleet: Fleet
) -> None:
    claim = fleet.claim("nic-vf:1")
    with shown(browser, api) as page:
        for words, heading in (
            (str(claim.instance_id), str(claim.instance_id)),
            (str(claim.claim_id), str(claim.claim_id)),
            ("compute-3", "compute-3"),
            (f"compute-3 {pf(2)}", pf(2)),
            (pf(1), pf(1)),
        ):
            page.page.fill("#search", words)
            page.page.press("#search", "Enter")
            page.waits_for(".detail h2", heading)
        page.page.fill("#search", "nonesuch")
        page.page.press("#search", "Enter")
        page.says("Nothing is called nonesuch")


def test_the_map_is_used_with_the_keys_alone(browser: Browser, api: HttpApi) -> None:
    with shown(browser, api) as page:
        keys = page.page.keyboard
        page.page.focus("#search")
        for _ in range(30):
            keys.press("Tab")
            if page.page.evaluate("document.activeElement.className") == "map-scroll":
                break
        keys.press("ArrowRight")
        page.says(f"compute-1 port {pf(0)}")
        keys.press("ArrowRight")
        keys.press("Enter")
        page.waits_for(".detail h2", pf(1))
        assert page.page.evaluate("document.activeElement.className") == "detail"
        keys.press("Escape")
        page.page.wait_for_selector(".detail", state="hidden")
        page.page.focus(".map-scroll")
        keys.press("-")
        page.page.wait_for_selector(".zoom [aria-pressed=true] >> text=Shares")
        keys.press("-")
        page.page.wait_for_selector(".zoom [aria-pressed=true] >> text=Ports")
        keys.press("End")
        page.says("compute-3")


def test_a_page_that_nobody_sees_reads_nothing_and_catches_up(
    browser: Browser, api: HttpApi, fleet: Fleet
) -> None:
    with shown(browser, api) as page:
        page.waits_for(".figures", "10 of 12")
        hide = """hidden => {
            Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
        page.page.evaluate(hide, True)
        fleet.claim("nic-pf:1")
        page.page.evaluate(hide, False)
        page.waits_for(".figures", "9 of 12")


def test_an_address_of_what_is_not_there_says_so(browser: Browser, api: HttpApi) -> None:
    with shown(browser, api) as page:
        page.go("host", "nonesuch")
        page.waits_for(".detail", "There is no host nonesuch.")
        page.go("port", "compute-1", "0000:00:00.0")
        page.waits_for(".detail", "Host compute-1 has no port 0000:00:00.0.")
        page.go("claim", str(uuid4()))
        page.waits_for(".detail", "there is no claim")
        page.page.evaluate("location.hash = '#/host/%E0%A4%A'")
        page.page.wait_for_selector(".detail", state="hidden")


def test_names_that_look_like_markup_stay_text(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    markup = "<img src=x onerror=alert(1)>"
    fleet.hosts["compute-1"].change(vf(1, 0), unusable_reason=markup)
    fleet.hosts["compute-1"].report()
    fleet.sql("UPDATE compute_nodes SET disabled_reason = :reason WHERE host = 'compute-3'", reason=markup)
    fleet.sql("UPDATE compute_nodes SET host = :name WHERE host = 'compute-2'", name="<b>host</b>")
    fleet.sql("UPDATE claims SET reason = :reason", reason=markup)
    with shown(browser, api, role="operator") as page:
        page.page.focus(".map-scroll")
        page.page.keyboard.press("ArrowRight")
        page.says("<b>host</b>")
        page.go("host", "compute-3")
        page.waits_for(".detail .facts", markup)
        page.go("port", "compute-1", pf(1))
        page.waits_for(".detail h2", pf(1))
        page.go("trouble")
        page.waits_for(".sheet", markup)
        page.page.fill("#search", markup)
        page.page.press("#search", "Enter")
        assert page.page.locator("main img, main b b").count() == 0

"""The map of the fleet in a real browser."""

from playwright.sync_api import Browser

from tests.support.browser import shown
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi


def test_the_map_shows_the_fleet_and_each_change_of_it(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    with shown(browser, api) as page:
        page.waits_for(".figures", "10 of 12")
        claim = fleet.claim("nic-pf:1")
        page.waits_for(".figures", "9 of 12")
        fleet.host("compute-4", ports=2, vfs=8)
        page.waits_for(".figures", "11 of 14")
        fleet.leave(claim)
        page.waits_for(".figures", "12 of 14")

"""The four questions of an operator, answered on the page by clicks alone, which are counted."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from tests.support.browser import Shown

MOST_CLICKS = 3


@dataclass
class Walk:
    """A way through the page, from the map on. To choose from a list is two clicks: open it, and choose."""

    page: Shown
    clicks: int = 0

    def click(self, selector: str) -> None:
        self.clicks += 1
        self.page.page.click(selector)

    def click_port(self, host: str, address: str) -> None:
        self.clicks += 1
        self.page.click_port(host, address)

    def choose(self, selector: str, value: str) -> None:
        self.clicks += 2
        self.page.page.select_option(selector, value)


def begin(page: Shown) -> Walk:
    """Look at the map, as after the page was opened."""
    page.go("map")
    page.page.wait_for_selector(".figures dd")
    return Walk(page)


def who_holds_this_port(page: Shown, host: str, address: str, instance_id: UUID) -> int:
    """Who holds it, and since when? Answers the clicks."""
    walk = begin(page)
    walk.click_port(host, address)
    page.waits_for(".detail h2", address)
    page.waits_for(".detail table", str(instance_id)[:8])
    page.page.wait_for_selector(".detail td time[datetime]")
    return walk.clicks


def why_was_this_claim_refused(page: Shown, claim_id: UUID) -> int:
    """What did each filter leave, and what stopped it? Answers the clicks."""
    walk = begin(page)
    walk.click("#bar nav >> text=Why not?")
    walk.click(f"a >> text={str(claim_id)[:8]}")
    page.waits_for(".refused h2", str(claim_id))
    page.page.wait_for_selector(".funnel .stops")
    return walk.clicks


def where_is_a_whole_port_free(page: Shown) -> int:
    """On which host, and at which address? Answers the clicks."""
    walk = begin(page)
    walk.choose("select[name=status]", "free")
    found = page.page.evaluate(_FIRST_THAT_FITS)
    walk.click_port(*found)
    page.waits_for(".detail h2", found[1])
    page.waits_for(".detail .badge", "whole port free")
    page.page.click("button >> text=Clear")  # not a part of the answer
    return walk.clicks


def which_host_is_in_trouble(page: Shown, host: str) -> int:
    """And what is to be done? Answers the clicks."""
    walk = begin(page)
    walk.click("#bar nav >> text=Trouble")
    page.waits_for(".troubles li", host)
    page.waits_for(".troubles code", "systemctl restart portclaim-compute-agent")
    return walk.clicks


_FIRST_THAT_FITS = """async () => {
    const { app } = await import('./page/main.js');
    const { hosts, filters } = app.view;
    for (const host of hosts) {
        const port = host.ports.find(each => filters.fits(each, host));
        if (port) return [host.name, port.address];
    }
    return null;
}"""

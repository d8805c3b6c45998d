"""Why not, the waiting queues, trouble and totals, each in a real browser."""

from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser

from portclaim.common.db import quotas
from portclaim.common.errors import ClaimRefused, PortclaimError
from portclaim.services.api import totals
from tests.support.browser import shown
from tests.support.fleet import Fleet, pf
from tests.support.http_api import HttpApi, http_api


def test_why_a_claim_would_be_refused_and_which_hosts_come_closest(
    browser: Browser, api: HttpApi, fleet: Fleet
) -> None:
    fleet.attached(fleet.claim("nic-pf:2", hosts=["compute-2"]))
    held = fleet.attached(fleet.claim("nic-vf:1", hosts=["compute-3"]))
    client = api.client()
    client.post("/v1/hosts/compute-1/drain", json={"reason": "new cable"})
    with shown(browser, api) as page:
        page.go("why")
        page.page.select_option("select[name=alias]", "nic-pf")
        page.page.fill("input[name=count]", "4")
        page.page.click("button >> text=Ask")
        page.waits_for(".verdict h2", "nic-pf:4 would be refused now")
        page.waits_for(".funnel .stops", "All at once")
        page.waits_for(".funnel", "\u22121 host")
        page.waits_for(".sheet table", "compute-3")
        page.page.click(f"text={str(held.instance_id)[:8]} >> nth=0")
        page.waits_for(".detail h2", str(held.instance_id))


def test_an_address_can_be_given_to_somebody_else(browser: Browser, api: HttpApi) -> None:
    with shown(browser, api) as page:
        page.go("why", "nic-vf:8,nic-pf:1")
        page.waits_for(".verdict h2", "nic-vf:8,nic-pf:1 would be served now")
        page.waits_for(".command code", "portclaim explain --alias nic-vf:8 --alias nic-pf:1")


def test_the_queues_say_what_is_reserved_for_whom(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    for host in ("compute-2", "compute-3"):
        fleet.attached(fleet.claim("nic-vf:1", hosts=[host]))
    with shown(browser, api) as page:
        page.go("waiting")
        page.waits_for(".sheet", "No claim waits.")
        claim = fleet.claim("nic-pf:4", wait=600)
        fleet.serve()
        page.waits_for(".sheet h2", "nic-pf:4")
        page.waits_for(".sheet table", str(claim.claim_id)[:8])
        page.waits_for("#bar nav", "Waiting1")
        page.page.click("text=Why?")
        page.waits_for(".verdict", f"Claim {claim.claim_id} waits at position 1.")


def test_what_stands_still_has_the_command_that_mends_it(
    browser: Browser, api: HttpApi, fleet: Fleet
) -> None:
    claim = fleet.claim("nic-vf:1", hosts=["compute-2"])
    fleet.sql("UPDATE outbox SET created_at = now() - interval '5 minutes', send_after = 'infinity'")
    fleet.falls_silent("compute-3")
    fleet.hosts["compute-1"].change(pf(3), unusable_reason="its VFs did not come back")
    fleet.hosts["compute-1"].report()
    with shown(browser, api) as page:
        page.waits_for("#bar nav", "Trouble3")
        page.go("trouble")
        for words in (
            "compute-3",
            "systemctl restart portclaim-compute-agent",
            f"portclaim outbox retry {claim.claim_id}",
            "its VFs did not come back",
            "portclaim host scan",
        ):
            page.waits_for(".sheet", words)
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.page.click(".copy >> nth=0")
        page.page.wait_for_selector("text=Copied")
        copied = page.page.evaluate("navigator.clipboard.readText()")
        assert copied == "systemctl restart portclaim-compute-agent"


def test_without_trouble_it_says_so(browser: Browser, api: HttpApi) -> None:
    with shown(browser, api) as page:
        page.go("trouble")
        page.waits_for(".sheet", "Nothing stands still.")


def test_the_totals_are_drawn_from_what_is_kept(
    browser: Browser, fleet: Fleet, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "INTERVAL", 0.2)
    fleet.host("compute-1", ports=4, vfs=8)
    fleet.attached(fleet.claim("nic-vf:3"))
    with http_api(fleet, database_url) as api, shown(browser, api) as page:
        page.go("totals")
        page.waits_for(".charts section", "Whole ports free3")
        fleet.claim("nic-pf:1")
        page.waits_for(".charts section", "Whole ports free2")
        fleet.sql("INSERT INTO refused_claims VALUES (date_trunc('minute', now()), 'available', 'nic-pf', 7)")
        page.waits_for(".charts section", "Claims refused per minute7")
        page.waits_for(".below table", "nic-pf")
        assert page.page.locator(".charts section").count() == 6


def test_a_token_that_is_wrong_or_of_a_project_is_explained(browser: Browser, api: HttpApi) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{api.url}/#token=wrong")
    page.wait_for_selector("text=the token is unknown")
    assert "wrong" not in page.url
    page.fill("#token", api.token("reader", "web"))
    page.press("#token", "Enter")
    page.wait_for_selector("text=It is for the project web.")
    page.fill("#token", api.token("reader"))
    page.press("#token", "Enter")
    page.wait_for_selector(".state.live")
    kept = page.evaluate("[Object.keys(sessionStorage), localStorage.length, document.cookie]")
    assert kept == [["portclaim-token"], 0, ""]
    page.click("text=Sign out")
    page.wait_for_selector("#token")
    assert page.evaluate("sessionStorage.getItem('portclaim-token')") is None
    context.close()


def test_a_token_that_is_revoked_ends_the_view(
    browser: Browser, api: HttpApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portclaim.services.api.access.REMEMBERED", 0.2)
    with shown(browser, api) as page:
        httpx_client: httpx.Client = api.client()
        for row in httpx_client.get("/v1/tokens").json()["tokens"]:
            if row["role"] == "reader":
                httpx_client.delete(f"/v1/tokens/{row['name']}")
        page.page.wait_for_selector("#token")


def test_why_a_claim_was_refused_is_answered_as_of_then(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    holder = fleet.attached(fleet.claim("nic-vf:1", hosts=["compute-3"]))
    claim_id, instance_id = uuid4(), uuid4()
    with pytest.raises(ClaimRefused):
        fleet.claim("nic-pf:4", claim_id, instance_id, hosts=["compute-3"])
    fleet.refusals.record()
    fleet.leave(holder)
    with shown(browser, api) as page:
        page.page.click("#bar nav >> text=Why not?")
        page.page.click(f"a >> text={str(claim_id)[:8]}")
        page.waits_for(".refused h2", f"Claim {claim_id} was refused")
        page.waits_for(".verdict h2", "nic-pf:4 on this host was refused: what each filter left then")
        page.waits_for(".funnel .stops", "All at once")
        page.waits_for(".sheet table", str(holder.instance_id)[:8])
        page.page.click("text=Would it be served now?")
        page.waits_for(".verdict h2", "nic-pf:4 on this host would be served now")
        for words in (str(claim_id), str(instance_id)):  # the search finds it, though there is no such claim
            page.go("map")
            page.page.fill("#search", words)
            page.page.press("#search", "Enter")
            page.until("location.hash.length > 6")
            if words == str(instance_id):
                page.waits_for(".detail h2", words)
                page.page.click(f".detail a >> text={str(claim_id)[:8]}")
            page.waits_for(".refused h2", f"Claim {claim_id} was refused")


def test_a_refusal_without_an_explanation_asks_what_is_so_now(
    browser: Browser, api: HttpApi, fleet: Fleet
) -> None:
    with fleet.engine.begin() as connection:
        quotas.set_quota(connection, "web", None, quotas.Limits(max_pfs=1))
    beyond, unknown = uuid4(), uuid4()
    for claim_id, alias in ((beyond, "nic-pf:2"), (unknown, "no-such:1")):
        with pytest.raises(PortclaimError):
            fleet.claim(alias, claim_id, project="web")
    fleet.refusals.record()
    with shown(browser, api) as page:
        page.go("why", str(beyond))
        page.waits_for(".refused", "Quota used up")
        page.waits_for(".verdict h2", "nic-pf:2 would be served now")
        page.go("why", str(unknown))
        page.waits_for(".refused", "no-such")
        assert page.page.locator(".verdict").count() == 0
        page.go("why", str(uuid4()))
        page.waits_for(".sheet", "does not wait, and no refusal of it is kept")

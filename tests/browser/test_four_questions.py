"""Each of the four questions of an operator is answered in three clicks."""

from uuid import uuid4

import pytest
from playwright.sync_api import Browser

from portclaim.common.errors import ClaimRefused
from tests.support import four_questions
from tests.support.browser import shown
from tests.support.fleet import Fleet, pf
from tests.support.http_api import HttpApi


def test_in_three_clicks_each(browser: Browser, api: HttpApi, fleet: Fleet) -> None:
    held = fleet.attached(fleet.claim("nic-pf:1", hosts=["compute-3"]))
    refused = uuid4()
    with pytest.raises(ClaimRefused):
        fleet.claim("nic-pf:5", refused)
    fleet.refusals.record()
    fleet.falls_silent("compute-2")
    with shown(browser, api) as page:
        clicks = [
            four_questions.who_holds_this_port(page, "compute-3", pf(0), held.instance_id),
            four_questions.why_was_this_claim_refused(page, refused),
            four_questions.where_is_a_whole_port_free(page),
            four_questions.which_host_is_in_trouble(page, "compute-2"),
        ]
    assert clicks == [1, 2, 3, 1]
    assert max(clicks) <= four_questions.MOST_CLICKS

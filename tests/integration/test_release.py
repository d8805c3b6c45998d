"""Giving devices back: what is free when, who may do so, and as often as they like."""

from uuid import uuid4

import pytest

from portclaim.common.errors import ClaimNotFound
from tests.support.concurrency import at_once
from tests.support.fleet import Fleet, pf
from tests.support.looking import addresses


class TestRelease:
    def test_what_was_claimed_is_detached_before_it_is_free(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-pf:1")
        released = fleet.release(claim)
        assert (released.status, released.step) == ("releasing", 2)
        assert fleet.status("h1")[pf(0)] == "claimed"
        host.done(claim)
        assert fleet.show(claim).status == "released"
        assert set(fleet.status("h1").values()) == {"available"}

    def test_so_is_what_was_attached(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        released = fleet.release(claim)
        assert (released.status, released.step) == ("releasing", 2)
        assert fleet.status("h1")[pf(0)] == "allocated"
        host.done(claim)
        assert fleet.show(claim).status == "released"
        assert set(fleet.status("h1").values()) == {"available"}

    def test_released_again_it_is_as_it_was(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-vf:1")
        releasing = fleet.release(claim)
        before = fleet.contents()
        assert fleet.release(claim) == releasing
        assert fleet.contents() == before
        host.done(claim)
        before = fleet.contents()
        assert fleet.release(claim).status == "released"
        assert fleet.contents() == before

    def test_a_failed_claim_is_as_it_was(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-vf:1")
        host.failed(claim, "no such instance")
        before = fleet.contents()
        released = fleet.release(claim)
        assert (released.status, released.reason) == ("failed", "no such instance")
        assert addresses(released) == addresses(claim)
        assert fleet.contents() == before

    def test_so_is_one_that_has_expired(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-vf:1")
        fleet.expire(after=0.0)
        host.done(claim)
        before = fleet.contents()
        assert fleet.release(claim).status == "expired"
        assert fleet.contents() == before

    def test_many_callers_release_once(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-vf:1")
        answers = at_once([lambda: fleet.release(claim)] * 8)
        assert [(answer.status, answer.step) for answer in answers] == [("releasing", 2)] * 8

    def test_what_does_not_exist_cannot_be_released_or_shown(self, fleet: Fleet) -> None:
        fleet.host("h1")
        for look in (fleet.scheduler.release, fleet.scheduler.show):
            unknown = uuid4()
            with pytest.raises(ClaimNotFound, match=str(unknown)):
                look(unknown)

"""Release of claims: when devices become free, and repeated calls."""

from uuid import uuid4

import pytest

from portclaim.common.errors import ClaimNotFound
from tests.support.concurrency import at_once
from tests.support.fleet import Fleet, pf
from tests.support.looking import addresses


class TestRelease:
    def test_claimed_devices_are_detached_before_they_are_free(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-pf:1")
        released = fleet.release(claim)
        assert (released.status, released.step) == ("releasing", 2)
        assert fleet.status("h1")[pf(0)] == "claimed"
        host.done(claim)
        assert fleet.show(claim).status == "released"
        assert set(fleet.status("h1").values()) == {"available"}

    def test_attached_devices_are_detached_before_they_are_free(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-pf:1")
        host.done(claim)
        released = fleet.release(claim)
        assert (released.status, released.step) == ("releasing", 2)
        assert fleet.status("h1")[pf(0)] == "allocated"
        host.done(claim)
        assert fleet.show(claim).status == "released"
        assert set(fleet.status("h1").values()) == {"available"}

    def test_releasing_a_released_claim_changes_nothing(self, fleet: Fleet) -> None:
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

    def test_releasing_a_failed_claim_changes_nothing(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-vf:1")
        host.failed(claim, "no such instance")
        before = fleet.contents()
        released = fleet.release(claim)
        assert (released.status, released.reason) == ("failed", "no such instance")
        assert addresses(released) == addresses(claim)
        assert fleet.contents() == before

    def test_releasing_an_expired_claim_changes_nothing(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-vf:1")
        fleet.expire(after=0.0)
        host.done(claim)
        before = fleet.contents()
        assert fleet.release(claim).status == "expired"
        assert fleet.contents() == before

    def test_concurrent_releases_release_a_claim_once(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=2)
        claim = fleet.claim("nic-vf:1")
        answers = at_once([lambda: fleet.release(claim)] * 8)
        assert [(answer.status, answer.step) for answer in answers] == [("releasing", 2)] * 8

    def test_an_unknown_claim_cannot_be_released_or_shown(self, fleet: Fleet) -> None:
        fleet.host("h1")
        for look in (fleet.scheduler.release, fleet.scheduler.show):
            unknown = uuid4()
            with pytest.raises(ClaimNotFound, match=str(unknown)):
                look(unknown)

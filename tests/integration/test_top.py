"""``portclaim top``: the fleet in numbers, from the sums of its hosts."""

import pytest
import yaml

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.summary_messages import FleetSummary
from tests.integration.test_cli import Run, done, done_in_json
from tests.integration.test_describe import api, over_http, portclaim, program
from tests.support.fleet import Fleet

__all__ = ["api", "over_http", "portclaim", "program"]


def free(shown: FleetSummary) -> dict[str, tuple[int, int]]:
    return {pool.dev_type: (pool.devices, pool.free) for pool in shown.pools}


class TestSummary:
    def test_devices_are_those_of_all_hosts_that_can_be_claimed(self, fleet: Fleet) -> None:
        for name in ("h1", "h2", "h3"):
            fleet.host(name, ports=2, vfs=4)
        fleet.count_hosts()
        assert free(fleet.scheduler.summary()) == {"type-VF": (24, 24), "type-PF": (6, 6)}
        fleet.claim("nic-pf:1", hosts=["h1"])
        fleet.scheduler.drain("h2", "new fan")
        fleet.count_hosts()
        assert free(fleet.scheduler.summary()) == {"type-VF": (24, 12), "type-PF": (6, 3)}

    def test_hosts_and_those_that_are_silent(self, fleet: Fleet) -> None:
        for name in ("h1", "h2", "h3"):
            fleet.host(name)
        fleet.falls_silent("h1")
        fleet.falls_silent("h3")
        fleet.scheduler.drain("h3", "sold")
        shown = fleet.scheduler.summary()
        assert (shown.hosts, shown.hosts_drained, shown.hosts_silent) == (3, 1, 1)
        assert [host.host for host in shown.silent_hosts] == ["h1"]

    def test_claims_in_progress_and_what_changed(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=4)
        assert fleet.scheduler.summary().changes == {}
        host.done(fleet.release(fleet.attached(fleet.claim("nic-vf:1"))))
        fleet.claim("nic-vf:1")
        fleet.claim("nic-pf:2", wait=60)
        shown = fleet.scheduler.summary()
        assert shown.in_progress == {"waiting": 1, "claimed": 1, "prepared": 0, "releasing": 0}
        assert shown.seconds == 60
        assert (shown.changes["claimed"], shown.changes["released"], shown.changes["waiting"]) == (2, 1, 1)
        assert (shown.steps, shown.steps_parked, len(shown.slowest_steps)) == (1, 0, 1)

    def test_more_changes_than_are_read_are_of_a_shorter_time(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=4)
        claim = fleet.release(fleet.attached(fleet.claim("nic-vf:1")))
        fleet.sql(
            "INSERT INTO claim_events (claim_id, at, from_status, to_status, cause) SELECT :id, now() - "
            "make_interval(secs => (20000 - n) / 1000.0), 'releasing', 'releasing', 'again' "
            "FROM generate_series(1, 20000) n RETURNING 1",
            id=claim.claim_id,
        )
        shown = fleet.scheduler.summary()
        assert shown.seconds == pytest.approx(10, abs=5)
        assert shown.changes["releasing"] == pytest.approx(10_000, abs=5)


def test_the_program_shows_it_once_in_a_pipe(program: Run, fleet: Fleet) -> None:
    fleet.count_hosts()
    claim = fleet.claim("nic-vf:1")
    with pytest.raises(ClaimRefused):
        fleet.claim("gpu:1")
    fleet.refusals.record()
    fleet.falls_silent("h1")
    said = done(program("top"))
    for words in ("hosts   1, 0 drained, 1 silent", str(claim.claim_id), "type-PF", "gpu", "silent hosts"):
        assert words in said
    assert "\x1b" not in said
    in_json = done_in_json(program("top", "--output", "json"))
    assert in_json["silent_hosts"][0]["host"] == "h1"
    in_yaml = yaml.safe_load(done(program("top", "--once", "--output", "yaml")))
    assert in_yaml["pools"] == in_json["pools"]

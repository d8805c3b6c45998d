"""SIGHUP: a service takes a new section ``[pci]`` without a restart, if all of it is valid."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from portclaim.common.errors import ClaimRefused, InvalidRequest
from portclaim.common.rpc.claim_messages import DeviceFilter
from tests.support.concurrency import wait_until
from tests.support.one_host import HOST, PF, VFS, OneHost, one_host
from tests.support.services import ServiceProcess, Services

CARD = "0000:02:00.0"
TAKEN = "has read [pci] again, and it is in force"
REFUSED = "the new configuration is refused, and the old one goes on: "
ALL = {"vendor_id": "8086"}
VF = {"name": "vf", "vendor_id": "8086", "product_id": "154c", "device_type": "type-VF"}


@pytest.fixture
def fleet(service_process: Services, tmp_path: Path) -> Iterator[OneHost]:
    with one_host(service_process, tmp_path) as fleet:
        yield fleet


def give(services: Services, service: ServiceProcess, old: str, new: str) -> None:
    """Change the service's file, and send the signal, as `systemctl reload` does."""
    file = services.directory / f"{service.name}.conf"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    os.kill(service.process.pid, signal.SIGHUP)


def spec(*entries: Mapping[str, object]) -> str:
    return "\n".join(f"device_spec = {json.dumps(entry)}" for entry in entries)


def taken(service: ServiceProcess, times: int = 1) -> None:
    wait_until(lambda: service.log.count(TAKEN) == times, "the new section is in force")


class TestComputeAgent:
    def test_a_held_device_that_is_no_longer_offered_stays_with_its_claim_and_is_not_given_out_again(
        self, fleet: OneHost, service_process: Services
    ) -> None:
        agent = fleet.start_agent()
        fleet.wait_for_report()
        claim = fleet.claim("vf:1")
        [held] = fleet.wait_for(claim.claim_id, "allocated").devices
        workers = agent.workers
        give(service_process, agent, spec(ALL), spec({"vendor_id": "10de"}))
        taken(agent)
        wait_until(lambda: fleet.statuses().keys() == {held.address, PF, CARD}, "the other VFs are gone")
        assert fleet.statuses()[held.address] == "allocated"
        assert fleet.statuses()[CARD] == "available"
        with pytest.raises(ClaimRefused):
            fleet.claim("vf:1")
        fleet.scheduler.release(claim.claim_id)
        fleet.wait_for(claim.claim_id, "released")
        wait_until(lambda: fleet.statuses() == {CARD: "available"}, "the VF is not offered")
        assert agent.workers == workers

    def test_a_device_whose_tags_have_changed_is_counted_with_its_new_pool(
        self, fleet: OneHost, service_process: Services
    ) -> None:
        agent = fleet.start_agent()
        fleet.wait_for_report()
        claim = fleet.claim("vf:1")
        [held] = fleet.wait_for(claim.claim_id, "allocated").devices
        give(service_process, agent, spec(ALL), spec({**ALL, "speed": "fast"}))

        def tags() -> dict[str, object]:
            listed = fleet.scheduler.devices(DeviceFilter(host=HOST)).devices
            return {device.address: device.tags for device in listed}

        wait_until(lambda: tags()[VFS[-1]] == {"speed": "fast"}, "the free VFs are in the new pool")
        assert tags()[held.address] == {}
        fleet.scheduler.release(claim.claim_id)
        wait_until(lambda: tags()[held.address] == {"speed": "fast"}, "the VF is in the new pool")
        wait_until(lambda: set(fleet.statuses().values()) == {"available"}, "all devices are available")

    def test_a_wrong_section_is_refused_with_the_reason_and_the_old_one_goes_on(
        self, fleet: OneHost, service_process: Services
    ) -> None:
        agent = fleet.start_agent()
        fleet.wait_for_report()
        before = fleet.statuses()
        wrong = spec({"vendor_id": "10de"}, {"vendor_id": "zz"})
        give(service_process, agent, spec(ALL), wrong)
        wait_until(
            lambda: f"{REFUSED}[pci] device_spec: device_spec 2: vendor_id: 'zz'" in agent.log, "refused"
        )
        give(service_process, agent, wrong, spec(ALL) + "\nno_such_option = 1")
        wait_until(lambda: "[pci] no_such_option" in agent.log, "it is refused")
        fleet.wait_for_report()
        assert fleet.statuses() == before
        assert TAKEN not in agent.log
        fleet.wait_for(fleet.claim("vf:1").claim_id, "allocated")

    def test_what_is_probably_a_mistake_is_logged(self, fleet: OneHost, service_process: Services) -> None:
        agent = fleet.start_agent()
        give(service_process, agent, spec(ALL), spec(ALL, {**ALL, "product_id": "154c", "speed": "fast"}))
        taken(agent)
        assert "device_spec 2: takes nothing; device_spec 1 comes first" in agent.log

    def test_a_worker_that_starts_later_has_the_new_section(
        self, fleet: OneHost, service_process: Services
    ) -> None:
        agent = fleet.start_agent()
        give(service_process, agent, spec(ALL), spec({"vendor_id": "10de"}))
        taken(agent)
        [worker] = agent.workers
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: agent.log.count("compute-agent ready") == 2, "another worker is ready")
        wait_until(lambda: fleet.statuses() == {CARD: "available"}, "it reports by the new section")


class TestScheduler:
    def test_waiting_claims_whose_alias_has_changed_say_so(
        self, fleet: OneHost, service_process: Services
    ) -> None:
        [scheduler] = [each for each in service_process.processes if each.name.startswith("scheduler")]
        fleet.start_agent()
        fleet.wait_for_report()
        holder = fleet.claim("vf:4")
        waiting = [fleet.claim(alias, wait=600) for alias in ("vf:1", "pf:1")]
        changed = {**VF, "live_migratable": "no"}
        give(service_process, scheduler, json.dumps(VF), json.dumps(changed))
        taken(scheduler)
        reasons = [fleet.scheduler.show(claim.claim_id).reason for claim in waiting]
        assert reasons == ["the alias vf has changed since the claim was queued: the new one counts", None]

        give(service_process, scheduler, json.dumps(changed), json.dumps({**VF, "name": "slice"}))
        taken(scheduler, 2)
        reason = fleet.scheduler.show(waiting[0].claim_id).reason
        assert reason is not None
        assert reason.startswith("the alias vf is no longer defined, so the claim cannot be served")
        with pytest.raises(InvalidRequest, match="'vf' is no alias; defined are gpu, pf, slice"):
            fleet.claim("vf:1")

        give(service_process, scheduler, json.dumps({**VF, "name": "slice"}), json.dumps(VF))
        taken(scheduler, 3)
        fleet.scheduler.release(waiting[1].claim_id)
        fleet.scheduler.release(holder.claim_id)
        served = fleet.wait_for(waiting[0].claim_id, "allocated")
        assert served.reason is None

    def test_a_wrong_alias_is_refused_and_the_old_ones_go_on(
        self, fleet: OneHost, service_process: Services
    ) -> None:
        [scheduler] = [each for each in service_process.processes if each.name.startswith("scheduler")]
        fleet.start_agent()
        fleet.wait_for_report()
        give(service_process, scheduler, json.dumps(VF), json.dumps({**VF, "numa_policy": "near"}))
        wait_until(lambda: f"{REFUSED}alias 2: numa_policy: 'near' is none of" in scheduler.log, "refused")
        fleet.wait_for(fleet.claim("vf:1").claim_id, "allocated")

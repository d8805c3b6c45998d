"""docker-compose.yml as its users meet it: three hosts, two schedulers, two conductors, all from outside."""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from portclaim.common.rpc.operator_messages import HostFilter
from tests.compose.containers import HOSTS, PORTS, VFS_PER_PORT, Containers, Fleet, until_true

SERVICES = ("api", "conductor", "scheduler", *HOSTS)


def test_a_port_goes_out_whole_and_comes_back(containers: Containers, fleet: Fleet) -> None:
    claim = containers.answer("claim", "--alias", "nic-pf:1", "--host", HOSTS[0])
    port = claim["devices"][0]["address"]
    fleet.wait_for_claim(claim["claim_id"], "allocated")

    statuses = fleet.statuses(HOSTS[0], port)
    assert statuses.pop(port) == "allocated"
    assert list(statuses.values()) == ["unavailable"] * VFS_PER_PORT

    containers.answer("release", claim["claim_id"])
    fleet.wait_for_claim(claim["claim_id"], "released")
    assert set(fleet.statuses(HOSTS[0], port).values()) == {"available"}


def test_a_port_goes_out_over_http(containers: Containers, fleet: Fleet) -> None:
    web = containers.http("claimer", "--project", "web")
    specs = {"pci_passthrough:alias": "nic-pf:1"}
    claim = web.claim(ClaimRequest(claim_id=uuid4(), instance_id=uuid4(), extra_specs=specs))
    assert web.wait(claim.claim_id, "allocated", seconds=60).status == "allocated"
    assert {host.host for host in containers.http("operator").hosts(HostFilter()).hosts} == set(HOSTS)
    web.release(claim.claim_id)
    fleet.wait_for_claim(str(claim.claim_id), "released")


def test_a_refusal_says_why_and_ends_with_status_1(containers: Containers, fleet: Fleet) -> None:
    everything = f"nic-vf:{PORTS * VFS_PER_PORT}"
    claim = containers.answer("claim", "--alias", everything, "--host", HOSTS[1])

    refused = containers.cli("claim", "--alias", "nic-pf:1", "--host", HOSTS[1])
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "portclaim: " in refused.stderr
    assert "Traceback" not in refused.stderr

    containers.answer("release", claim["claim_id"])
    fleet.wait_for_claim(claim["claim_id"], "released")


def test_a_scheduler_is_killed_while_clients_fight_for_the_last_ports(
    containers: Containers, fleet: Fleet
) -> None:
    killed, victim = threading.Event(), containers.ids("scheduler")[0]

    def take_all_there_is(alias: str) -> list[Claim]:
        claims: list[Claim] = []
        while True:
            specs = {"pci_passthrough:alias": alias}
            alias_spec = ClaimRequest(claim_id=uuid4(), instance_id=uuid4(), extra_specs=specs)
            try:
                claims.append(fleet.claim(alias_spec))
            except ClaimRefused:
                return claims
            if len(claims) == 2 and not killed.is_set():
                killed.set()
                subprocess.run(["docker", "kill", victim], check=True, capture_output=True)

    with ThreadPoolExecutor(8) as clients:
        alias_specs = ["nic-vf:1", "nic-vf:3", "nic-pf:1", "nic-vf:2"] * 2
        claims = [claim for made in clients.map(take_all_there_is, alias_specs) for claim in made]

    assert killed.is_set()
    held = [(claim.host, device.address) for claim in claims for device in claim.devices]
    assert len(held) == len(set(held)), "a device was handed out twice"
    # Nothing is left over: what did not go out as VFs went out as whole ports.
    vfs = sum(device.dev_type == "type-VF" for claim in claims for device in claim.devices)
    ports = len(held) - vfs
    assert vfs + ports * VFS_PER_PORT == len(HOSTS) * PORTS * VFS_PER_PORT
    both_views = """SELECT count(*) FROM pci_devices vf JOIN pci_devices pf ON pf.id = vf.parent_id
                    WHERE vf.claim_id IS NOT NULL AND pf.claim_id IS NOT NULL"""
    assert containers.sql(both_views) == "0"

    containers.compose("up", "--detach", "--no-recreate")
    for claim in claims:
        fleet.release(claim.claim_id)
    fleet.wait_until_all_is_free()


def test_agents_have_no_way_to_the_database(containers: Containers, fleet: Fleet) -> None:
    look = "env; getent hosts postgres && echo FOUND"
    for host in HOSTS:
        seen = containers.compose("exec", "-T", host, "sh", "-c", f"{look}; echo looked").stdout
        assert "looked" in seen
        assert "DATABASE" not in seen
        assert "FOUND" not in seen


def test_every_service_is_confined(containers: Containers) -> None:
    for service in SERVICES:
        for container in containers.inspect(service):
            assert container["HostConfig"]["ReadonlyRootfs"], service
            assert container["HostConfig"]["CapDrop"] == ["ALL"], service
            assert container["Config"]["User"] == "portclaim", service


def test_every_service_is_found_healthy(containers: Containers, fleet: Fleet) -> None:
    @until_true
    def all_are_healthy() -> bool:
        containers_of = [each for service in SERVICES for each in containers.inspect(service)]
        return {each["State"]["Health"]["Status"] for each in containers_of} == {"healthy"}

    assert all_are_healthy()


def test_services_end_in_good_order_when_they_are_stopped(containers: Containers, fleet: Fleet) -> None:
    containers.compose("stop", *SERVICES)
    stopped = [each for service in SERVICES for each in containers.inspect(service)]
    assert {each["Name"]: each["State"]["ExitCode"] for each in stopped if each["State"]["ExitCode"]} == {}

    containers.compose("start", *SERVICES)

"""Clients whose agents sign what they send: claims with the answers of their hosts, and reports."""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID, uuid4

import sqlalchemy as sa

from bench.clients import detached, request
from bench.crew import CYCLE, Do, Work
from bench.inventory_agents import inventory
from portclaim.common import config
from portclaim.common.errors import NotAuthorized
from portclaim.common.rpc.agent_messages import InventoryReport
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.operator_messages import ClaimFilter
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.common.rpc.transport import transport
from portclaim.common.trust import keys
from portclaim.common.trust.keys import PrivateKey
from portclaim.common.trust.signature import KeySigner, Signer, Unsigned, of_host
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.inventory import Inventory

PORTS, VFS = 4, 64
"""Of a host that reports."""

_PUT_KEY = sa.text("INSERT INTO host_keys (host, key_id, public_key) VALUES (:host, :key_id, :public_key)")
_RELEASING = ClaimFilter(statuses=["releasing"], limit=1)
_PATIENCE = 30.0  # seconds


def enrol(url: str, hosts: Mapping[str, PrivateKey]) -> None:
    """Register a key of each host, as ``portclaim host enroll`` and its agent do."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for host, key in hosts.items():
            connection.execute(_PUT_KEY, {"host": host, "key_id": key.id, "public_key": key.public})


def claims(config_file: str, alias: str, key_files: Mapping[str, str]) -> Work:
    """Claims over the bus; the agent of each host answers the release with its key, if it has one."""
    conf = config.load(["--config-file", config_file], "bench")
    bus = transport(conf)
    scheduler, unsigned = SchedulerClient(bus, conf), ConductorClient(bus, conf)
    signing = {
        host: ConductorClient(bus, conf, signer=_signer(host, Path(file))) for host, file in key_files.items()
    }
    held: deque[UUID] = deque()

    def claim() -> None:
        held.append(scheduler.claim(request(alias)).claim_id)

    def end() -> bool:
        if not held:
            return False
        done = detached(scheduler.release(held.popleft()))
        signing.get(done.host, unsigned).cast_step_done(done)
        return True

    def settle() -> None:
        until = time.monotonic() + _PATIENCE
        while scheduler.claims(_RELEASING).claims:
            if time.monotonic() > until:
                raise AssertionError("an answer was not recorded: the log of the conductor says why")
            time.sleep(0.005)

    tasks: dict[str, Do] = {CYCLE: lambda: (claim(), end()), "claim": claim, "end": end}
    return Work(tasks, Counter(), settle)


def reports(config_file: str, url: str, *, is_signed: bool) -> Work:
    """The agent of one more host: a sign of life that is answered, one changed VF, and a report in full."""
    conf = config.load(["--config-file", config_file], "bench")
    host, agent_id = f"reporting-{uuid4().hex[:8]}", uuid4()
    signer: Signer = Unsigned()
    if is_signed:
        key = PrivateKey.make()
        enrol(url, {host: key})
        signer = KeySigner(of_host(host), key)
    conductor = ConductorClient(transport(conf), conf, signer=signer)
    states = itertools.cycle(_two_states())
    link = ConductorLink(conductor, host, agent_id)
    known = next(states)
    until_accepted(lambda: link.publish(known, in_full=True))
    latest = known

    def show_life() -> None:
        conductor.report_inventory(InventoryReport(host=host, agent_id=agent_id, digest=latest.digest))

    def change() -> None:
        nonlocal latest
        latest = next(states)
        link.publish(latest, in_full=True)

    def in_full() -> None:
        nonlocal latest
        latest = next(states)
        everything = InventoryReport(
            host=host, agent_id=agent_id, digest=latest.digest, devices=latest.devices
        )
        conductor.report_inventory(everything)

    return Work(
        {CYCLE: show_life, "life": show_life, "changed": change, "in full": in_full},
        Counter(),
    )


def _two_states() -> tuple[Inventory, Inventory]:
    first = inventory(PORTS, VFS)
    changed = first.devices[5].model_copy(update={"unusable_reason": "not in order"})
    return first, Inventory(
        [changed if device.address == changed.address else device for device in first.devices], []
    )


def until_accepted(report: Callable[[], object]) -> None:
    """Report until the conductors have read the new key: they look every two seconds."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            report()
        except NotAuthorized:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def _signer(host: str, file: Path) -> Signer:
    [key] = keys.read(file)
    return KeySigner(of_host(host), key)

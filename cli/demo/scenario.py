"""The steps of the demo. Each is checked while it is shown; a step that fails ends the demo."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from rich.text import Text

from portclaim.cli.demo import proof
from portclaim.cli.demo.contention import Contention
from portclaim.cli.demo.fleet import REAL_DEVICES, SIMULATED, THIS_MACHINE, Fleet
from portclaim.cli.demo.gate import hypervisor_waits
from portclaim.cli.demo.output import Output
from portclaim.cli.demo.waiting import DemoFailed, check, until_status
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, Device, DeviceFilter, Explanation

TO_SERVE = 32  # claims, before the contention is over
REAL_SHOWN = 10  # devices of this machine, which may have hundreds
PORT_HOST = SIMULATED[0].name  # has one port, so that a claim on this host is one on that port


class Scenario:
    """The steps, in order, on a fleet that runs."""

    def __init__(self, out: Output, fleet: Fleet, engine: sa.Engine) -> None:
        self._out = out
        self._fleet = fleet
        self._engine = engine
        self._scheduler = fleet.client()
        self._served = 0

    def run(self) -> None:
        self._look_around()
        claim = self._claim_a_port()
        self._release(claim)
        self._fight()
        self._prove()

    def _look_around(self) -> None:
        out, devices = self._out, self._devices()
        out.headline("What there is")
        hosts = [(THIS_MACHINE, f"real, in {REAL_DEVICES}")] if self._fleet.sees_real_devices else []
        hosts += [(host.name, "simulated, in a directory tree like /sys") for host in SIMULATED]
        rows = []
        for host, source in hosts:
            kinds = Counter(device.dev_type for device in devices if device.host == host)
            rows.append((host, kinds["type-PF"], kinds["type-VF"], kinds["type-PCI"], source))
        out.table(("host", "ports", "VFs", "others", "its devices"), rows)
        real = [device for device in devices if device.host == THIS_MACHINE]
        sliced = [device for device in real if device.dev_type != "type-PCI"]
        if real:
            out.fact("This machine's own, only looked at:")
            out.trees(sliced or real, limit=REAL_SHOWN)
        else:
            out.fact(f"This machine shows no PCI device in {REAL_DEVICES}.")

    def _claim_a_port(self) -> Claim:
        out = self._out
        out.headline("Claim a whole port: its VFs can no longer be had")
        out.names[tenant := uuid.uuid4()] = "tenant A"
        with hypervisor_waits(self._fleet.hypervisor(PORT_HOST)):
            begun = time.monotonic()
            claim = self._scheduler.claim(_request(tenant, "nic-pf:1", PORT_HOST))
            out.fact(f"Claimed in {1000 * (time.monotonic() - begun):.0f} ms, and not attached yet:")
            self._show_port(pf="claimed", vfs="unclaimable")
            self._ask_for_a_vf()

        out.headline("Its host's agent attaches it to the instance")
        claim = until_status(self._scheduler, claim.claim_id, "allocated")
        self._show_port(pf="allocated", vfs="unavailable")
        return claim

    def _ask_for_a_vf(self) -> None:
        out = self._out
        out.headline("Ask for one VF of that port")
        try:
            self._scheduler.claim(_request(uuid.uuid4(), "nic-vf:1", PORT_HOST))
        except ClaimRefused as refused:
            out.fact(f"Refused: {out.named(refused.message)}.")
            out.filters(Explanation.model_validate(refused.kwargs["explanation"]).filters)
        else:
            raise DemoFailed("a VF was handed out of a port that is held whole")

    def _release(self, claim: Claim) -> None:
        out = self._out
        out.headline("Release it: the agent restores the VFs, and all devices are available again")
        self._scheduler.release(claim.claim_id)
        until_status(self._scheduler, claim.claim_id, "released")
        self._show_port(pf="available", vfs="available")

    def _fight(self) -> None:
        out = self._out
        ports = sum(host.ports for host in SIMULATED)
        aliases = ["nic-pf:1"] * 10 + ["nic-vf:2"] * 6
        out.headline(f"{len(aliases)} clients fight over the last {ports} ports")
        instances = [uuid.uuid4() for _ in aliases]
        out.names |= {instance: f"client {number}" for number, instance in enumerate(instances, 1)}
        out.fact("Ten want a whole port, six want two VFs. They use it, release it, ask again.")
        contention = Contention(self._scheduler, aliases, instances, [THIS_MACHINE], TO_SERVE)
        begun = time.monotonic()
        with out.progress(TO_SERVE, "claims served") as show:
            contention.run(lambda served, refused: show(served, f"{refused} refused"))
        seconds = time.monotonic() - begun
        out.fact(f"{contention.served} claims served and {contention.refused} refused in {seconds:.1f} s.")
        held = sum(len(claim.devices) for claim in contention.holding)
        out.fact(f"{len(contention.holding)} clients keep what they hold at the end, {held} devices:")
        out.trees([device for device in self._devices() if device.host != THIS_MACHINE])
        self._served = contention.served

    def _prove(self) -> None:
        out = self._out
        out.headline("Was anything handed out twice? Ask the database")
        held = proof.ask(self._engine, proof.HOLDS)
        out.query("What was handed out since the start?", proof.HOLDS, held)
        recorded = sum(row["claims"] for row in held) - 1  # tenant A's
        check(recorded == self._served, f"{self._served} claims were served, as the database has {recorded}")
        for question in proof.MUST_BE_ZERO:
            answer = proof.ask(self._engine, question.sql)
            out.query(question.text, question.sql, answer)
            check(answer[0]["double_bookings"] == 0, "there was no double booking")

        out.headline("Try to book twice by hand: PostgreSQL itself refuses")
        out.statement(proof.BY_HAND)
        error = proof.refusal(self._engine, proof.BY_HAND)
        check(error is not None, "PostgreSQL refuses a double booking")
        out.fact(Text(f"ERROR: {error}", style="red"))

    def _show_port(self, pf: str, vfs: str) -> None:
        devices = self._devices(PORT_HOST)
        self._out.trees(devices)
        for device in devices:
            expected = pf if device.dev_type == "type-PF" else vfs
            check(device.effective_status == expected, f"{device.address} is {expected}")

    def _devices(self, host: str | None = None) -> Sequence[Device]:
        return self._scheduler.devices(DeviceFilter(host=host)).devices


def _request(instance: uuid.UUID, alias: str, host: str) -> ClaimRequest:
    return ClaimRequest(
        claim_id=uuid.uuid4(),
        instance_id=instance,
        extra_specs={"pci_passthrough:alias": alias},
        hosts=[host],
    )

"""The steps of the demo. Each step checks what it shows. A step that fails ends the demo."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from rich.text import Text

from portclaim.cli.demo import double_bookings
from portclaim.cli.demo.contention import Contention
from portclaim.cli.demo.fleet import REAL_DEVICES, SIMULATED, THIS_MACHINE, Fleet
from portclaim.cli.demo.output import Output
from portclaim.cli.demo.paused_hypervisor import paused_hypervisor
from portclaim.cli.demo.polling import DemoFailed, check, until_status
from portclaim.common.errors import ClaimRefused
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest, Device, DeviceFilter, Explanation

TO_SERVE = 32  # served claims, after which the clients stop
REAL_SHOWN = 10  # devices of this machine. It may have hundreds.
PORT_HOST = SIMULATED[0].name  # has one port: every claim on this host is served from that port


class Scenario:
    """The steps, in order, on a running fleet."""

    def __init__(self, out: Output, fleet: Fleet, engine: sa.Engine) -> None:
        self._out = out
        self._fleet = fleet
        self._engine = engine
        self._scheduler = fleet.client()
        self._served = 0

    def run(self) -> None:
        self._show_devices()
        claim = self._claim_a_port()
        self._release(claim)
        self._compete()
        self._check_double_bookings()

    def _show_devices(self) -> None:
        out, devices = self._out, self._devices()
        out.headline("The devices of the fleet")
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
            out.fact("This machine's own devices. The demo only reads them:")
            out.trees(sliced or real, limit=REAL_SHOWN)
        else:
            out.fact(f"This machine has no PCI devices in {REAL_DEVICES}.")

    def _claim_a_port(self) -> Claim:
        out = self._out
        out.headline("Claim a whole port: its VFs become unclaimable")
        out.names[tenant := uuid.uuid4()] = "tenant A"
        with paused_hypervisor(self._fleet.hypervisor(PORT_HOST)):
            begun = time.monotonic()
            claim = self._scheduler.claim(_request(tenant, "nic-pf:1", PORT_HOST))
            out.fact(f"Claimed in {1000 * (time.monotonic() - begun):.0f} ms. It is not attached yet:")
            self._show_port(pf="claimed", vfs="unclaimable")
            self._ask_for_a_vf()

        out.headline("The host's agent attaches the port to the instance")
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
            raise DemoFailed("a VF was claimed although its whole port is held")

    def _release(self, claim: Claim) -> None:
        out = self._out
        out.headline("Release the port: the agent restores the VFs, and all devices are available again")
        self._scheduler.release(claim.claim_id)
        until_status(self._scheduler, claim.claim_id, "released")
        self._show_port(pf="available", vfs="available")

    def _compete(self) -> None:
        out = self._out
        ports = sum(host.ports for host in SIMULATED)
        aliases = ["nic-pf:1"] * 10 + ["nic-vf:2"] * 6
        out.headline(f"{len(aliases)} clients compete for {ports} ports")
        instances = [uuid.uuid4() for _ in aliases]
        out.names |= {instance: f"client {number}" for number, instance in enumerate(instances, 1)}
        out.fact("Ten clients claim a whole port, six claim two VFs. Each releases them and claims again.")
        contention = Contention(self._scheduler, aliases, instances, [THIS_MACHINE], TO_SERVE)
        begun = time.monotonic()
        with out.progress(TO_SERVE, "claims served") as show:
            contention.run(lambda served, refused: show(served, f"{refused} refused"))
        seconds = time.monotonic() - begun
        out.fact(f"{contention.served} claims served and {contention.refused} refused in {seconds:.1f} s.")
        held = sum(len(claim.devices) for claim in contention.holding)
        out.fact(f"At the end, {len(contention.holding)} clients hold {held} devices:")
        out.trees([device for device in self._devices() if device.host != THIS_MACHINE])
        self._served = contention.served

    def _check_double_bookings(self) -> None:
        out = self._out
        out.headline("Was a device handed out twice? Ask the database")
        held = double_bookings.ask(self._engine, double_bookings.HELD_DEVICES)
        out.query("Which devices were handed out since the start?", double_bookings.HELD_DEVICES, held)
        recorded = sum(row["claims"] for row in held) - 1  # tenant A's
        check(recorded == self._served, f"the database has {self._served} served claims, not {recorded}")
        for question in double_bookings.MUST_BE_ZERO:
            answer = double_bookings.ask(self._engine, question.sql)
            out.query(question.text, question.sql, answer)
            check(answer[0]["double_bookings"] == 0, "no double booking")

        out.headline("Try a double booking by hand: PostgreSQL refuses it")
        out.statement(double_bookings.DOUBLE_BOOK)
        error = double_bookings.refusal(self._engine, double_bookings.DOUBLE_BOOK)
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

"""A small fleet on a real database, in words that read well in tests: report, claim, answer, release.

Calls go through the services' own clients to the services' own endpoints; only the bus between them is
left out. What tests know of the services' inner parts is known here alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import oslo_messaging
import sqlalchemy as sa

from portclaim.common.db.transaction import connect, in_transaction
from portclaim.common.errors import PortclaimError, ServiceUnavailable
from portclaim.common.pci.alias import Aliases
from portclaim.common.rpc.agent_messages import (
    DeviceReport,
    Holding,
    InventoryAnswer,
    InventoryReport,
    NumaCell,
    Step,
    StepAnswer,
    StepResult,
    StepResults,
)
from portclaim.common.rpc.candidate_messages import Candidates, CandidatesRequest
from portclaim.common.rpc.claim_messages import (
    Claim,
    ClaimRequest,
    DeviceRequest,
    ExplainRequest,
    Explanation,
)
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.endpoint import Endpoint
from portclaim.common.rpc.fields import AttachMode, Message
from portclaim.common.rpc.move_messages import Move, MoveRequest
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.services.conductor import expiry, lifecycle
from portclaim.services.conductor.host_counter import count_hosts
from portclaim.services.conductor.relay import Relay
from portclaim.services.conductor.service import ConductorEndpoint
from portclaim.services.scheduler import packing
from portclaim.services.scheduler.claims import ClaimEngine
from portclaim.services.scheduler.dispatch import dispatch_steps
from portclaim.services.scheduler.endpoint import Agents, SchedulerEndpoint
from portclaim.services.scheduler.queues import WaitingQueues
from tests.support.invariants import violations


class Card(NamedTuple):
    """A model of card: its vendor, and the product ids of its PFs and its VFs."""

    vendor: str
    pf: str
    vf: str


X710 = Card("8086", "1572", "154c")
CONNECTX5 = Card("15b3", "1017", "1018")
T4 = ("10de", "1eb8")

ALIASES = [
    json.dumps({"name": name, "vendor_id": vendor, "product_id": product, "device_type": f"type-{kind}"})
    for name, kind, vendor, product in [
        ("nic-pf", "PF", X710.vendor, X710.pf),
        ("nic-vf", "VF", X710.vendor, X710.vf),
        ("roce-pf", "PF", CONNECTX5.vendor, CONNECTX5.pf),
        ("roce-vf", "VF", CONNECTX5.vendor, CONNECTX5.vf),
        ("gpu", "PCI", *T4),
        # Two entries with one name are alternatives.
        ("any-pf", "PF", X710.vendor, X710.pf),
        ("any-pf", "PF", CONNECTX5.vendor, CONNECTX5.pf),
        ("any-vf", "VF", X710.vendor, X710.vf),
        ("any-vf", "VF", CONNECTX5.vendor, CONNECTX5.vf),
    ]
]


def pf(port: int) -> str:
    """The address of a port's PF, on every host the same."""
    return f"0000:{0x81 + port:02x}:00.0"


def vf(port: int, number: int) -> str:
    """The address of one of a port's VFs."""
    return f"0000:{0x81 + port:02x}:{2 + number // 8:02x}.{number % 8}"


def port_devices(port: int, vfs: int, card: Card = X710, **facts: Any) -> list[DeviceReport]:
    """A PF and its VFs; ``facts`` hold for all of them, like ``numa_node=1`` or ``tags={...}``."""
    facts = {"vendor_id": card.vendor, "numa_node": 0} | facts
    top = DeviceReport(address=pf(port), dev_type="type-PF", product_id=card.pf, **facts)
    return [top, *(slice_of(port, number, card, **facts) for number in range(vfs))]


def slice_of(port: int, number: int, card: Card = X710, **facts: Any) -> DeviceReport:
    """One VF of a port."""
    facts = {"vendor_id": card.vendor, "numa_node": 0} | facts
    return DeviceReport(
        address=vf(port, number),
        dev_type="type-VF",
        product_id=card.vf,
        parent_address=pf(port),
        **facts,
    )


def gpu(port: int) -> DeviceReport:
    """A device without SR-IOV, where ``pf(port)`` would be."""
    return DeviceReport(address=pf(port), dev_type="type-PCI", vendor_id=T4[0], product_id=T4[1])


@dataclass
class Host:
    """A compute node as its agent sees it: change ``devices`` (by address), then ``report()``."""

    fleet: "Fleet"
    name: str
    devices: dict[str, DeviceReport]
    agent_id: UUID = field(default_factory=uuid4)
    numa_cells: list[NumaCell] = field(default_factory=list)

    @property
    def inventory(self) -> InventoryReport:
        devices = list(self.devices.values())
        content = json.dumps([device.model_dump() for device in devices])
        digest = hashlib.sha256(content.encode()).hexdigest()
        return InventoryReport(
            host=self.name,
            agent_id=self.agent_id,
            digest=digest,
            devices=devices,
            numa_cells=self.numa_cells,
        )

    def report(self) -> InventoryAnswer:
        """Report all devices."""
        return self.fleet.conductor.report_inventory(self.inventory)

    def sign_of_life(self) -> InventoryAnswer:
        """Report that nothing has changed."""
        return self.fleet.conductor.report_inventory(self.inventory.model_copy(update={"devices": None}))

    def add(self, *devices: DeviceReport) -> None:
        self.devices |= {device.address: device for device in devices}

    def lose(self, *addresses: str) -> None:
        for address in addresses:
            del self.devices[address]

    def change(self, address: str, **facts: Any) -> None:
        """Change facts of a device."""
        self.devices[address] = DeviceReport.model_validate(self.devices[address].model_dump() | facts)

    def done(self, claim: Claim, step: int | None = None) -> None:
        """Report that the claim's latest step, or the given one, is done."""
        self._answer(claim, step, "done", None)

    def prepared(self, claim: Claim, step: int | None = None) -> None:
        """Report that the claim's devices are prepared and its instance does not have them yet."""
        self._answer(claim, step, "prepared", None)

    def failed(self, claim: Claim, reason: str, step: int | None = None) -> None:
        """Report that the claim's latest step, or the given one, has failed."""
        self._answer(claim, step, "failed", reason)

    def ends(self, *claims: Claim, outcome: str = "done", step: int | None = None) -> list[UUID]:
        """Answer for the latest steps of several claims at once; the claims whose answers were refused."""
        return lifecycle.steps_done(
            self.fleet.engine,
            StepResults(
                host=self.name,
                agent_id=self.agent_id,
                answers=[
                    StepAnswer(
                        claim_id=claim.claim_id,
                        step=step or self.fleet.show(claim).step,
                        outcome=outcome,  # type: ignore[arg-type]
                        reason="no" if outcome == "failed" else None,
                    )
                    for claim in claims
                ],
            ),
            guest_within=3600.0,
        )

    def holdings(self) -> list[Holding]:
        """The devices that this host should hold, as the conductor sees it."""
        return self.fleet.conductor.holdings(self.name, self.agent_id).holdings

    def ended(self, *found: UUID) -> list[UUID]:
        """The claims found on this host that have ended, as the conductor sees it."""
        return self.fleet.conductor.holdings(self.name, self.agent_id, found).ended

    def _answer(self, claim: Claim, step: int | None, outcome: str, reason: str | None) -> None:
        latest = self.fleet.show(claim).step if step is None else step
        self.fleet.conductor.step_done(
            StepResult(
                host=self.name,
                agent_id=self.agent_id,
                claim_id=claim.claim_id,
                step=latest,
                outcome=outcome,  # type: ignore[arg-type]
                reason=reason,
            )
        )


def request_for(alias_spec: str, **facts: Any) -> ClaimRequest:
    """A request with new ids."""
    extra_specs = {"pci_passthrough:alias": alias_spec}
    return ClaimRequest(claim_id=uuid4(), instance_id=uuid4(), extra_specs=extra_specs, **facts)


class Fleet:
    """Hosts, a conductor and a scheduler on one database. What is cast to agents lands in ``sent``.

    ``casts``: the same, by message.
    """

    def __init__(
        self, database_url: str, packing_policy: str = "pack", aliases: Sequence[str] = ALIASES
    ) -> None:
        self.engine = connect(database_url, pool_size=40)
        self.sent: list[tuple[str, Step]] = []
        self.used: set[tuple[str, str]] = set()  # hosts and addresses of devices that were used once
        self.casts: list[tuple[str, list[Step]]] = []
        self.hosts: dict[str, Host] = {}
        self.requests: dict[UUID, MoveRequest] = {}  # of moves, by the target's id
        self.bus_is_down = False
        claims = ClaimEngine(
            self.engine, packing.load(packing_policy), resend_after=5.0, patience=30.0, agent_down_after=60.0
        )
        known = Aliases.parse(aliases)
        self.queues = WaitingQueues(
            self.engine,
            packing.load(packing_policy),
            known,
            self._send,
            resend_after=5.0,
            agent_down_after=60.0,
        )
        endpoint = SchedulerEndpoint(
            self.engine, claims, known, Agents(self._dispatch, self._renew), agent_down_after=60.0
        )
        self.refusals = endpoint.refusal_counts
        self.scheduler = _Scheduler(endpoint)
        self.conductor = _Conductor(
            ConductorEndpoint(self.engine, agent_down_after=60.0, guest_within=3600.0)
        )

    def host(self, name: str, ports: int = 1, vfs: int = 4, card: Card = X710, **facts: Any) -> Host:
        """A host that has reported this many ports with this many VFs each. ``facts``: see `port_devices`."""
        return self.host_of(
            name, [device for port in range(ports) for device in port_devices(port, vfs, card, **facts)]
        )

    def host_of(
        self, name: str, devices: Sequence[DeviceReport], numa_cells: Sequence[NumaCell] = ()
    ) -> Host:
        """A host that has reported these devices."""
        by_address = {device.address: device for device in devices}
        host = self.hosts[name] = Host(self, name, by_address, numa_cells=list(numa_cells))
        host.report()
        return host

    def claim(
        self,
        alias: str,
        claim_id: UUID | None = None,
        instance_id: UUID | None = None,
        hosts: Sequence[str] | None = None,
        avoid_hosts: Sequence[str] = (),
        *,
        numa_cells: Sequence[int] = (),
        requests: Sequence[DeviceRequest] = (),
        wait: int | None = None,
        attach: AttachMode = "auto",
        guest_within: int | None = None,
        near: Sequence[Claim] = (),
        apart_from: Sequence[Claim] = (),
        project: str | None = None,
        **extra_specs: str,
    ) -> Claim:
        """Claim as an API layer does. The ids of the claim and of the instance are new if none are given."""
        return self.scheduler.claim(
            ClaimRequest(
                claim_id=claim_id or uuid4(),
                instance_id=instance_id or uuid4(),
                extra_specs={"pci_passthrough:alias": alias, **extra_specs} if alias else extra_specs,
                requests=list(requests),
                hosts=None if hosts is None else list(hosts),
                avoid_hosts=list(avoid_hosts),
                numa_cells=list(numa_cells),
                wait=wait,
                attach=attach,
                guest_within=guest_within,
                near=[claim.claim_id for claim in near],
                apart_from=[claim.claim_id for claim in apart_from],
                project=project,
            )
        )

    def attach(self, claim: Claim) -> Claim:
        """Ask for the devices of a claim that was made with ``attach`` on-call."""
        return self.scheduler.attach(claim.claim_id)

    def serve(self) -> None:
        """Serve the queues until nothing is left to do, as a scheduler does when devices become free."""
        while self.queues.work():
            pass

    def explain(
        self,
        alias: str,
        hosts: Sequence[str] | None = None,
        *,
        numa_cells: Sequence[int] = (),
        requests: Sequence[DeviceRequest] = (),
        near: Sequence[Claim] = (),
        apart_from: Sequence[Claim] = (),
        **extra_specs: str,
    ) -> Explanation:
        return self.scheduler.explain(
            ExplainRequest(
                extra_specs={"pci_passthrough:alias": alias, **extra_specs} if alias else extra_specs,
                requests=list(requests),
                hosts=None if hosts is None else list(hosts),
                numa_cells=list(numa_cells),
                near=[claim.claim_id for claim in near],
                apart_from=[claim.claim_id for claim in apart_from],
            )
        )

    def attached(self, claim: Claim) -> Claim:
        """Let the agent of a claim report that its devices are attached; return the claim."""
        self.hosts[claim.host].done(claim)
        return self.show(claim)

    def release(self, claim: Claim) -> Claim:
        return self.scheduler.release(claim.claim_id)

    def leave(self, claim: Claim) -> None:
        """Release a claim, and let its agent report that the devices are detached."""
        released = self.release(claim)
        if released.host is not None:
            self.hosts[released.host].done(released)

    def force(self, claim: Claim) -> Claim:
        """Release a claim by force, as an operator does for a host that is lost."""
        return self.scheduler.force_release(claim.claim_id, "ann", "h1 has burnt down")

    def move(
        self,
        claim: Claim,
        claim_id: UUID | None = None,
        hosts: Sequence[str] | None = None,
        alias: str | None = None,
        *,
        live: bool = False,
    ) -> Move:
        """Begin a move of a claim. The target has a new id if none is given. ``alias``: also resize."""
        request = MoveRequest(
            claim_id=claim_id or uuid4(),
            source_claim_id=claim.claim_id,
            extra_specs=None if alias is None else {"pci_passthrough:alias": alias},
            hosts=None if hosts is None else list(hosts),
            live=live,
        )
        self.requests[request.claim_id] = request
        return self.scheduler.move(request)

    def complete(self, move: Move) -> Move:
        return self.scheduler.complete_move(move.target.claim_id)

    def revert(self, move: Move) -> Move:
        return self.scheduler.revert_move(move.target.claim_id)

    def falls_silent(self, host: str) -> None:
        """Make it look as if the agent of this host had not reported for an hour."""
        self.sql(
            "UPDATE compute_nodes SET last_seen = now() - interval '1 hour' WHERE host = :host", host=host
        )

    def show(self, claim: Claim) -> Claim:
        return self.scheduler.show(claim.claim_id)

    def relay(self, resend_after: float = 5.0, max_sends: int = 100) -> Relay:
        """A conductor's relay, not running: ``send_due()`` does one pass."""
        return Relay(self.engine, lambda host, step: self._send(host, [step]), resend_after, max_sends)

    def expire(self, after: float | None = 1800.0) -> list[UUID]:
        """Expire the claims that were not attached in this time, as a conductor does; return their ids."""
        return in_transaction(self.engine, lambda connection: expiry.expire(connection, after))

    def claim_many(self, alias_specs: Sequence[str], **facts: Any) -> list[Claim | PortclaimError]:
        """One call with a claim for each alias spec. ``facts``: other fields of all requests."""
        return self.scheduler.claim_many([request_for(alias_spec, **facts) for alias_spec in alias_specs])

    def count_hosts(self) -> int:
        """Bring the sums of changed hosts up to date, as a conductor does; return the number of hosts."""
        return count_hosts(self.engine)

    def status(self, host: str) -> dict[str, str]:
        """The status of each device of a host, by address."""
        return dict(
            self.sql(
                "SELECT d.address, d.status FROM pci_devices d"
                " JOIN compute_nodes n ON n.id = d.compute_node_id WHERE n.host = :host",
                host=host,
            )
        )

    def sql(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement typed by hand, in a transaction of its own; its rows, if it has any."""
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return [tuple(row) for row in result] if result.returns_rows else []

    def contents(self) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
        """Every row of every table, with its place and the transaction that wrote it.

        A row that was written again therefore differs, even if its columns are the same.
        """
        tables = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {
            table: self.sql(f"SELECT ctid::text, xmin::text, to_jsonb(t) FROM {table} t ORDER BY ctid")
            for (table,) in tables
        }

    def faults(self) -> list[tuple[str, str]]:
        """The broken rules of `tests.support.invariants`, with what breaks them."""
        with self.engine.connect() as connection:
            return violations(connection)

    def candidates(
        self,
        alias: str,
        hosts: Sequence[str] | None = None,
        limit: int = 10,
        after: str | None = None,
        *,
        avoid_hosts: Sequence[str] = (),
        numa_cells: Sequence[int] = (),
        near: Sequence[Claim] = (),
        apart_from: Sequence[Claim] = (),
        **extra_specs: str,
    ) -> Candidates:
        """The hosts that could serve a claim with these arguments."""
        return self.scheduler.candidates(
            CandidatesRequest(
                extra_specs={"pci_passthrough:alias": alias, **extra_specs},
                hosts=None if hosts is None else list(hosts),
                avoid_hosts=list(avoid_hosts),
                numa_cells=list(numa_cells),
                near=[claim.claim_id for claim in near],
                apart_from=[claim.claim_id for claim in apart_from],
                limit=limit,
                after=after,
            )
        )

    def close(self) -> None:
        self.engine.dispose()

    def _dispatch(self, claims: Sequence[Claim]) -> None:
        dispatch_steps(claims, self._send)

    def _renew(self, host: str, address: str) -> bool:
        renewed = (host, address) in self.used
        self.used.discard((host, address))
        return renewed

    def _send(self, host: str, steps: Sequence[Step]) -> None:
        if self.bus_is_down:
            raise ServiceUnavailable("the bus is down")
        self.casts.append((host, list(steps)))
        self.sent += [(host, step) for step in steps]


class _WithoutBus:
    """A client that calls the endpoint directly, without the bus."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def can_send(self, _version: str) -> bool:
        return True

    def _call(self, method: str, message: Message, answer: type[Message], **_since: str) -> Message:
        try:
            reply = getattr(self._endpoint, method)({}, **message.model_dump(mode="json"))
        except oslo_messaging.ExpectedException as expected:
            raise expected.exc_info[1] from None
        return answer.model_validate(json.loads(json.dumps(reply)))


class _Scheduler(_WithoutBus, SchedulerClient):
    pass


class _Conductor(_WithoutBus, ConductorClient):
    pass

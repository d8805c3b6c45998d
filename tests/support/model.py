"""A model of the claim engine in plain Python: which answers a call may have, and what it changes.

The model leaves open which of the suitable devices a claim gets; it learns that from the answer.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal, NamedTuple
from uuid import UUID

from portclaim.common.errors import (
    ClaimConflict,
    ClaimNotFound,
    ClaimRefused,
    InvalidRequest,
    StaleStep,
    UnknownHost,
)
from portclaim.common.rpc.agent_messages import DeviceReport, InventoryAnswer
from portclaim.common.rpc.claim_messages import Claim, ClaimRequest
from tests.support.model_host import Host, can_serve, kinds_requested

ALIAS = "pci_passthrough:alias"


class Report(NamedTuple):
    """An agent reports the devices of its host; None: they have not changed."""

    host: str
    digest: str
    devices: Sequence[DeviceReport] | None


class Release(NamedTuple):
    """A caller releases a claim."""

    claim_id: UUID


class Ending(NamedTuple):
    """An agent reports how a step ended."""

    host: str
    claim_id: UUID
    step: int
    outcome: Literal["done", "failed", "prepared"]
    reason: str | None


class NotRecorded(NamedTuple):
    """An answer among several, which got no error of its own, was not recorded."""


class Attach(NamedTuple):
    """A caller asks for the devices of a claim that was made with ``attach`` on-call."""

    claim_id: UUID


class Expire(NamedTuple):
    """A conductor expires claims that were not prepared for ``after`` seconds, or some of them."""

    after: float


class ExpireWithoutGuest(NamedTuple):
    """A conductor expires claims whose instance did not get the devices in time: all that are prepared."""


class Force(NamedTuple):
    """An operator ends a claim of a silent host."""

    claim_id: UUID
    cause: str


class Drain(NamedTuple):
    """An operator drains a port, or undrains it."""

    host: str
    address: str
    is_drained: bool


class Look(NamedTuple):
    """A test reads the whole content of the database."""


Call = ClaimRequest | Report | Release | Ending | Attach | Expire | ExpireWithoutGuest | Force | Drain | Look


class Wrong(AssertionError):
    """The answer is not allowed."""


def expect(condition: object, otherwise: str) -> None:
    """Raises :class:`Wrong`."""
    if not condition:
        raise Wrong(otherwise)


@dataclass
class Held:
    """A claim. ``devices``: the devices that it has or had, each with the index of its request."""

    request: ClaimRequest
    host: str
    devices: Mapping[str, int]
    status: str = "claimed"
    step: int = 1
    reason: str | None = None
    expiry: str | None = None
    attach: str = "auto"
    awaited: str | None = None  # the action that its agent has to do

    @property
    def is_live(self) -> bool:
        """Does it hold its devices?"""
        return self.status in {"claimed", "prepared", "allocated", "releasing"}

    def next_step(self, action: str) -> None:
        """From now on its agent has to do this action."""
        self.step, self.awaited = self.step + 1, action


@dataclass(eq=False)
class Model:
    hosts: dict[str, Host] = field(default_factory=dict)
    claims: dict[UUID, Held] = field(default_factory=dict)

    def after(self, call: Call, answer: object) -> "Model | None":
        """The model after a call with this answer; None if the answer is not allowed."""
        model = Model(
            {name: host.copy() for name, host in self.hosts.items()},
            {claim_id: replace(claim) for claim_id, claim in self.claims.items()},
        )
        try:
            model.take(call, answer)
        except Wrong:
            return None
        return model

    def take(self, call: Call, answer: object) -> None:
        """Change the model as the call does. Raises :class:`Wrong` if the answer is not allowed."""
        match call:
            case ClaimRequest():
                self._claim(call, answer)
            case Report():
                self._report(call, answer)
            case Release():
                self._release(call, answer)
            case Ending():
                self._end_step(call, answer)
            case Attach():
                self._call(call, answer)
            case Expire():
                self._expire(call, answer)
            case ExpireWithoutGuest():
                self._expire_without_guest(call, answer)
            case Force():
                self._force(call, answer)
            case Drain():
                self._drain(call, answer)
            case Look():
                expect(answer == self.picture(), f"the database has {answer}, expected {self.picture()}")

    def picture(self) -> dict[str, object]:
        """Everything that the database and the model have in common."""
        return {
            "hosts": {name: host.digest for name, host in self.hosts.items()},
            "devices": {
                (name, address): tuple(vars(device).values())
                for name, host in self.hosts.items()
                for address, device in host.devices.items()
            },
            "claims": {id_: (claim.status, claim.step, claim.reason) for id_, claim in self.claims.items()},
        }

    def can_serve(
        self, alias: str, hosts: Collection[str] | None = None, avoid_hosts: Collection[str] = ()
    ) -> bool:
        """Is there a host that has all requested devices?"""
        wanted = [kinds for _, kinds in kinds_requested(alias)]
        return any(
            can_serve(host.free().values(), wanted)
            for name, host in self.hosts.items()
            if (hosts is None or name in hosts) and name not in avoid_hosts
        )

    def _report(self, report: Report, answer: object) -> None:
        host = self.hosts.setdefault(report.host, Host())
        is_news = host.digest != report.digest
        right = InventoryAnswer(resend=is_news and report.devices is None)
        expect(answer == right, f"{answer} to {report}, expected {right}")
        if is_news and report.devices is not None:
            host.apply(report.devices)
            host.digest = report.digest

    def _claim(self, request: ClaimRequest, answer: object) -> None:
        known = self.claims.get(request.claim_id)
        if known is not None and known.request != request:
            expect(
                isinstance(answer, ClaimConflict), f"{answer} to a known id with another request: {request}"
            )
        elif known is None and isinstance(answer, ClaimRefused):
            is_there = self.can_serve(request.extra_specs[ALIAS], request.hosts, request.avoid_hosts)
            expect(not is_there, f"refused although a host can serve it: {request}")
        else:
            if known is None:
                self._hold(request, answer)
            self._expect_as_it_stands(request.claim_id, answer)

    def _hold(self, request: ClaimRequest, claim: object) -> None:
        """Give a new claim the devices in its answer, if it may have them."""
        if not isinstance(claim, Claim):
            raise Wrong(f"{claim} to {request}")
        host = self.hosts.get(claim.host, Host())
        is_allowed = request.hosts is None or claim.host in request.hosts
        expect(is_allowed and claim.host not in request.avoid_hosts, f"the claim is on a wrong host: {claim}")
        free, wanted = host.free(), kinds_requested(request.extra_specs[ALIAS])
        expect(
            all(each.address in free for each in claim.devices),
            f"the claim has devices that were not free: {claim}",
        )
        taken = [free[each.address] for each in claim.devices]
        expect(
            not any(one.excludes(two) for one, two in combinations(taken, 2)),
            f"the claim has a PF and one of its VFs, or a device twice: {claim}",
        )
        served = Counter(each.request_index for each in claim.devices)
        expect(
            served == Counter(index for index, _ in wanted),
            f"the claim has other devices than it requested: {claim}",
        )
        kinds = dict(wanted)
        for each in claim.devices:
            expect(
                free[each.address].kind in kinds[each.request_index],
                f"the claim has other devices than it requested: {claim}",
            )

        devices = {each.address: each.request_index for each in claim.devices}
        action = "attach" if request.attach == "auto" else "prepare"
        self.claims[request.claim_id] = Held(
            request, claim.host, devices, attach=request.attach, awaited=action
        )
        for address, device in host.devices.items():
            if address in devices:
                device.status, device.claim_id = "claimed", request.claim_id
            elif device.status == "available" and (
                device.parent in devices or any(each.parent == address for each in taken)
            ):
                device.status = "unclaimable"

    def _release(self, release: Release, answer: object) -> None:
        claim = self.claims.get(release.claim_id)
        if claim is None:
            expect(isinstance(answer, ClaimNotFound), f"{answer} to {release} of an unknown claim")
            return
        if claim.status in {"claimed", "prepared", "allocated"}:
            claim.status = "releasing"
            claim.next_step("detach")
        self._expect_as_it_stands(release.claim_id, answer)

    def _call(self, call: Attach, answer: object) -> None:
        claim = self.claims.get(call.claim_id)
        if claim is None:
            expect(isinstance(answer, ClaimNotFound), f"{answer} to {call} of an unknown claim")
            return
        if claim.status in {"claimed", "prepared"} and claim.attach == "on-call":
            claim.attach = "auto"
            claim.next_step("attach")
        self._expect_as_it_stands(call.claim_id, answer)

    def _expire(self, expire: Expire, answer: object) -> None:
        for claim_id in answer if isinstance(answer, list) else [None]:
            claim = self.claims.get(claim_id)
            if claim is None or claim.status != "claimed":
                raise Wrong(f"{answer} to {expire}")
            claim.status = "releasing"
            claim.next_step("detach")
            claim.expiry = claim.reason = f"not prepared within {expire.after:g} s"

    def _expire_without_guest(self, expire: ExpireWithoutGuest, answer: object) -> None:
        prepared = {claim_id for claim_id, claim in self.claims.items() if claim.status == "prepared"}
        expect(isinstance(answer, list) and set(answer) == prepared, f"{answer} to {expire}")
        for claim_id in prepared:
            claim = self.claims[claim_id]
            claim.status = "releasing"
            claim.next_step("detach")
            claim.expiry = "its instance did not get the devices within 3600 s of their preparation"
            claim.reason = claim.expiry

    def _force(self, force: Force, answer: object) -> None:
        claim = self.claims[force.claim_id]
        if claim.is_live:
            host = self.hosts[claim.host]
            gone = {*claim.devices, *self._ports(claim)}
            for address, device in host.devices.items():
                if address in gone or device.parent in claim.devices:
                    device.present = False  # until the host reports its devices again
            self._free(claim)
            claim.status, claim.step, claim.reason = "released", claim.step + 1, force.cause
            claim.awaited = None
        self._expect_as_it_stands(force.claim_id, answer)

    def _drain(self, drain: Drain, answer: object) -> None:
        host = self.hosts.get(drain.host)
        if host is None:
            expect(isinstance(answer, UnknownHost), f"{answer} to {drain}")
            return
        port = host.devices.get(drain.address)
        if port is None or port.status == "removed" or port.parent is not None:
            expect(isinstance(answer, InvalidRequest), f"{answer} to {drain}")
            return
        tree = [port, *host.vfs(drain.address)]
        live = {device.claim_id for device in tree} - {None}
        expect(answer == len(live), f"{answer} to {drain}, expected {len(live)}")
        for device in tree:
            device.drained = drain.is_drained
        host.settle({drain.address})

    def _end_step(self, ending: Ending, answer: object) -> None:
        claim = self.claims.get(ending.claim_id)
        right = self._error(ending, claim)
        is_right = right is not type(None) if isinstance(answer, NotRecorded) else type(answer) is right
        expect(is_right, f"{answer!r} to {ending}, expected {right}")
        if claim is None or right is not type(None):
            return
        if ending.outcome == "prepared":
            if claim.status in {"claimed", "prepared"}:
                claim.status, claim.awaited = "prepared", None
            return
        is_done = ending.outcome == "done"
        if not claim.is_live or (claim.status == "allocated" and is_done):
            return
        claim.reason = ending.reason or claim.expiry
        if claim.status == "releasing" and not is_done:
            return
        claim.awaited = None
        if claim.status != "releasing" and is_done:
            self._attach(claim)
            return
        self._free(claim)
        if claim.status == "releasing":
            claim.status = "expired" if claim.expiry else "released"
        else:
            claim.status = "failed"

    def _attach(self, claim: Held) -> None:
        host = self.hosts[claim.host]
        for address in claim.devices:
            host.devices[address].status = "allocated"
        host.settle(self._ports(claim))
        claim.status = "allocated"

    def _free(self, claim: Held) -> None:
        host, ports = self.hosts[claim.host], self._ports(claim)
        for address in claim.devices:
            host.devices[address].status, host.devices[address].claim_id = "unavailable", None
        trees = [device for address, device in host.devices.items() if {address, device.parent} & ports]
        if any(not device.present and device.status != "removed" for device in trees):
            host.digest = None  # absent devices that were held have to be reported again
        host.settle(ports)

    def _ports(self, claim: Held) -> set[str]:
        devices = self.hosts[claim.host].devices
        return {devices[address].parent or address for address in claim.devices}

    def _error(self, ending: Ending, claim: Held | None) -> type:
        if ending.host not in self.hosts:
            return UnknownHost
        if claim is None or claim.host != ending.host:
            return ClaimNotFound
        if ending.step != claim.step:
            return StaleStep if ending.step < claim.step else InvalidRequest
        return type(None)

    def _expect_as_it_stands(self, claim_id: UUID, answer: object) -> None:
        claim = self.claims[claim_id]
        devices = self.hosts[claim.host].devices
        stands = {address: (index, devices[address].status) for address, index in claim.devices.items()}
        right = (claim.host, claim.status, claim.step, claim.reason, stands)
        said = isinstance(answer, Claim) and (
            answer.host,
            answer.status,
            answer.step,
            answer.reason,
            {each.address: (each.request_index, each.status) for each in answer.devices},
        )
        expect(said == right, f"{answer!r}, expected {right}")

"""The claim engine as it should be, in plain Python: what a call may answer, and what it changes.

It leaves one thing open, which of the devices that would do a claim gets; that it learns from the answer.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import NamedTuple
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
    """An agent publishes its host's devices; None: they are as they were."""

    host: str
    digest: str
    devices: Sequence[DeviceReport] | None


class Release(NamedTuple):
    """A caller gives a claim back."""

    claim_id: UUID


class Ending(NamedTuple):
    """An agent says how a step ended."""

    host: str
    claim_id: UUID
    step: int
    done: bool
    reason: str | None


class Expire(NamedTuple):
    """A conductor takes back what has not been attached for so many seconds, or what it gets hold of."""

    after: float


class Force(NamedTuple):
    """An operator ends a claim of a silent host."""

    claim_id: UUID
    cause: str


class Drain(NamedTuple):
    """An operator takes a port out of use, or brings it back."""

    host: str
    address: str
    is_drained: bool


class Look(NamedTuple):
    """Somebody looks at everything."""


Call = ClaimRequest | Report | Release | Ending | Expire | Force | Drain | Look


class Wrong(AssertionError):
    """An answer that should not have been given."""


def expect(condition: object, otherwise: str) -> None:
    """Raises :class:`Wrong`."""
    if not condition:
        raise Wrong(otherwise)


@dataclass
class Held:
    """A claim; ``devices`` are those it has or had, each with the index of its request."""

    request: ClaimRequest
    host: str
    devices: Mapping[str, int]
    status: str = "claimed"
    step: int = 1
    reason: str | None = None
    expiry: str | None = None

    @property
    def is_live(self) -> bool:
        """Does it hold its devices?"""
        return self.status in {"claimed", "allocated", "releasing"}

    @property
    def awaited(self) -> str | None:
        """What its agent is to do."""
        return {"claimed": "attach", "releasing": "detach"}.get(self.status)


@dataclass(eq=False)
class Model:
    hosts: dict[str, Host] = field(default_factory=dict)
    claims: dict[UUID, Held] = field(default_factory=dict)

    def after(self, call: Call, answer: object) -> "Model | None":
        """What is after a call with this answer; None if it cannot have been answered so."""
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
        """Change as the call does. Raises :class:`Wrong` if it cannot have been answered so."""
        match call:
            case ClaimRequest():
                self._claim(call, answer)
            case Report():
                self._report(call, answer)
            case Release():
                self._release(call, answer)
            case Ending():
                self._end_step(call, answer)
            case Expire():
                self._expire(call, answer)
            case Force():
                self._force(call, answer)
            case Drain():
                self._drain(call, answer)
            case Look():
                expect(answer == self.picture(), f"all is {answer}, and not {self.picture()}")

    def picture(self) -> dict[str, object]:
        """All there is to see."""
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
        """Is there a host that has all that is asked for?"""
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
        expect(answer == right, f"{answer} to {report}, and not {right}")
        if is_news and report.devices is not None:
            host.apply(report.devices)
            host.digest = report.digest

    def _claim(self, request: ClaimRequest, answer: object) -> None:
        known = self.claims.get(request.claim_id)
        if known is not None and known.request != request:
            expect(isinstance(answer, ClaimConflict), f"{answer} to a claim's id with {request}")
        elif known is None and isinstance(answer, ClaimRefused):
            is_there = self.can_serve(request.extra_specs[ALIAS], request.hosts, request.avoid_hosts)
            expect(not is_there, f"refused, and what it wants was there: {request}")
        else:
            if known is None:
                self._hold(request, answer)
            self._expect_as_it_stands(request.claim_id, answer)

    def _hold(self, request: ClaimRequest, claim: object) -> None:
        """Let a new claim have the devices that it got, if it may have them."""
        if not isinstance(claim, Claim):
            raise Wrong(f"{claim} to {request}")
        host = self.hosts.get(claim.host, Host())
        is_allowed = request.hosts is None or claim.host in request.hosts
        expect(is_allowed and claim.host not in request.avoid_hosts, f"on a wrong host: {claim}")
        free, wanted = host.free(), kinds_requested(request.extra_specs[ALIAS])
        expect(all(each.address in free for each in claim.devices), f"has what was not free: {claim}")
        taken = [free[each.address] for each in claim.devices]
        expect(not any(one.excludes(two) for one, two in combinations(taken, 2)), f"has a PF twice: {claim}")
        served = Counter(each.request_index for each in claim.devices)
        expect(served == Counter(index for index, _ in wanted), f"not what it wanted: {claim}")
        kinds = dict(wanted)
        for each in claim.devices:
            expect(free[each.address].kind in kinds[each.request_index], f"not what it wanted: {claim}")

        devices = {each.address: each.request_index for each in claim.devices}
        self.claims[request.claim_id] = Held(request, claim.host, devices)
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
            expect(isinstance(answer, ClaimNotFound), f"{answer} to {release}, which is unknown")
            return
        if claim.status in {"claimed", "allocated"}:
            claim.status, claim.step = "releasing", claim.step + 1
        self._expect_as_it_stands(release.claim_id, answer)

    def _expire(self, expire: Expire, answer: object) -> None:
        for claim_id in answer if isinstance(answer, list) else [None]:
            claim = self.claims.get(claim_id)
            if claim is None or claim.status != "claimed":
                raise Wrong(f"{answer} to {expire}")
            claim.status, claim.step = "releasing", claim.step + 1
            claim.expiry = claim.reason = f"not attached within {expire.after:g} s"

    def _force(self, force: Force, answer: object) -> None:
        claim = self.claims[force.claim_id]
        if claim.is_live:
            host = self.hosts[claim.host]
            gone = {*claim.devices, *self._ports(claim)}
            for address, device in host.devices.items():
                if address in gone or device.parent in claim.devices:
                    device.present = False  # until the host itself has said what it still has
            self._free(claim)
            claim.status, claim.step, claim.reason = "released", claim.step + 1, force.cause
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
        expect(answer == len(live), f"{answer} to {drain}, and not {len(live)}")
        for device in tree:
            device.drained = drain.is_drained
        host.settle({drain.address})

    def _end_step(self, ending: Ending, answer: object) -> None:
        claim = self.claims.get(ending.claim_id)
        right = self._error(ending, claim)
        expect(type(answer) is right, f"{answer!r} to {ending}, and not {right}")
        if claim is None or right is not type(None):
            return
        is_lost = claim.status == "allocated" and not ending.done
        if claim.awaited is None and not is_lost:
            return
        claim.reason = ending.reason or claim.expiry
        if claim.awaited == "detach" and not ending.done:
            return
        if claim.awaited == "attach" and ending.done:
            self._attach(claim)
            return
        self._free(claim)
        if claim.awaited == "detach":
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
            host.digest = None  # what was kept because it was held has to be reported again
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
        expect(said == right, f"{answer!r}, and not {right}")

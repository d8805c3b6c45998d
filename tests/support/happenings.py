"""Events that may happen to a fleet. Hypothesis draws them as data; ``call`` turns one into a call."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from hypothesis import strategies as st

from portclaim.common.rpc.agent_messages import DeviceReport
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.fields import AttachMode
from tests.support.fleet import CONNECTX5, X710, Card, gpu, pf, port_devices, slice_of, vf
from tests.support.model import ALIAS, Attach, Call, Ending, Expire, Model, Release, Report

PORTS, VFS = range(2), range(3)
ALIAS_SPECS = (
    "nic-vf:1",
    "nic-vf:2",
    "nic-pf:1",
    "roce-vf:1",
    "roce-pf:1",
    "gpu:1",
    "any-vf:1",
    "any-vf:3",
    "any-pf:1",
    "nic-pf:1,nic-vf:1",
    "any-vf:1,nic-vf:1",
    "any-pf:1,roce-pf:1",
    "any-pf:1,any-vf:2",
    "any-vf:2,nic-vf:1,gpu:1",
)


@dataclass
class World:
    """What callers and agents know: the requests made so far, and the devices of each host."""

    model: Model = field(default_factory=Model)
    requests: list[ClaimRequest] = field(default_factory=list)
    inventories: dict[str, Sequence[DeviceReport]] = field(default_factory=dict)

    def claim_id(self, which: int) -> UUID:
        """The id of one of the latest claims; 0 gives an id that no claim has."""
        known = sorted(self.model.claims)[-8:]
        return known[which % len(known)] if which and known else UUID(int=0)

    def request(self, which: int) -> ClaimRequest | None:
        """One of the latest requests, served or not."""
        return self.requests[-1 - which % len(self.requests)] if self.requests else None


@dataclass(frozen=True)
class Claims:
    """A caller claims devices. ``which``: the request whose id it uses again; None: a new id."""

    alias_spec: str
    hosts: tuple[str, ...] | None
    avoid_hosts: tuple[str, ...]
    which: int | None
    attach: AttachMode

    def call(self, world: World) -> Call:
        number = len(world.requests) + 1
        earlier = None if self.which is None else world.request(self.which)
        request = ClaimRequest(
            claim_id=UUID(int=number) if earlier is None else earlier.claim_id,
            instance_id=UUID(int=number << 64),
            extra_specs={ALIAS: self.alias_spec},
            hosts=None if self.hosts is None else list(self.hosts),
            avoid_hosts=list(self.avoid_hosts),
            attach=self.attach,
        )
        world.requests.append(request)
        return request


@dataclass(frozen=True)
class ClaimsAgain:
    """A caller repeats an earlier request."""

    which: int

    def call(self, world: World) -> Call:
        return world.request(self.which) or Release(UUID(int=0))


@dataclass(frozen=True)
class Releases:
    """A caller releases a claim."""

    which: int

    def call(self, world: World) -> Call:
        return Release(world.claim_id(self.which))


@dataclass(frozen=True)
class Ends:
    """An agent reports how a step ended: the latest, an earlier one, or one that was never sent.

    ``elsewhere``: the agent is not the one of the claim's host.
    """

    which: int
    outcome: Literal["done", "failed", "prepared"]
    step: int
    elsewhere: bool

    def call(self, world: World) -> Call:
        claim_id = world.claim_id(self.which)
        claim = world.model.claims.get(claim_id)
        host = "h1" if (claim is None or claim.host == "h1") != self.elsewhere else "h2"
        step = max(1, self.step + (1 if claim is None else claim.step))
        reason = "no such instance" if self.outcome == "failed" else None
        return Ending(host, claim_id, step, self.outcome, reason)


@dataclass(frozen=True)
class Attaches:
    """A caller asks for the devices of a claim."""

    which: int

    def call(self, world: World) -> Call:
        return Attach(world.claim_id(self.which))


@dataclass(frozen=True)
class Reports:
    """An agent reports the devices of its host. ``devices`` is None if nothing has changed."""

    host: str
    devices: Sequence[DeviceReport] | None

    def call(self, world: World) -> Call:
        if self.devices is not None:
            world.inventories[self.host] = self.devices
        content = "".join(device.model_dump_json() for device in world.inventories.get(self.host, ()))
        return Report(self.host, hashlib.sha256(content.encode()).hexdigest(), self.devices)


@dataclass(frozen=True)
class Expires:
    """A conductor expires the claims that are not prepared."""

    def call(self, _world: World) -> Call:
        return Expire(after=0)


Happening = Claims | ClaimsAgain | Attaches | Releases | Ends | Reports | Expires

cards = st.sampled_from([X710, X710, CONNECTX5])
TROUBLES: list[dict[str, object]] = [{}, {}, {}, {"offered": False}, {"unusable_reason": "not in order"}]
troubles = st.sampled_from(TROUBLES)


@st.composite
def inventories(draw: st.DrawFn) -> Sequence[DeviceReport]:
    """Ports appear, vanish, become other cards or lose SR-IOV. VFs appear, vanish and move to other ports.

    The device at an address may change its type: at a PF's address there may be a VF of the other port, and
    at a VF's address a plain device.
    """
    pfs: dict[int, Card] = {}
    devices: list[DeviceReport] = []
    slots = [(port, vf(port, number)) for port in PORTS for number in VFS]
    for port in PORTS:
        match draw(st.sampled_from(["PF", "PF", "PF", "PF", "PCI", "VF", "nothing"])):
            case "PF":
                pfs[port] = draw(cards)
                devices += port_devices(port, 0, pfs[port], **draw(troubles))
            case "PCI":
                devices.append(gpu(port).model_copy(update=draw(troubles)))
            case "VF":
                slots.append((1 - port, pf(port)))
    for port, address in slots:
        below = draw(st.sampled_from([port] * 8 + [1 - port, None, "PCI"]))
        if below in pfs:
            device = slice_of(below, 0, pfs[below], **draw(troubles))
            devices.append(device.model_copy(update={"address": address}))
        elif below == "PCI":
            devices.append(gpu(port).model_copy(update={"address": address} | draw(troubles)))
    return devices


names = st.sampled_from(["h1", "h2"])
some = st.integers(0, 30)
alias_specs = st.sampled_from(ALIAS_SPECS)
limits = st.none() | st.sampled_from([("h1",), ("h2",), ("h1", "h2")])
avoided = st.sampled_from([(), (), (), ("h1",), ("h2",)])
modes: st.SearchStrategy[AttachMode] = st.sampled_from(["auto", "auto", "on-call"])
claims = st.builds(Claims, alias_specs, st.none(), st.just(()), st.none(), modes)
particular_claims = st.builds(
    Claims, alias_specs, limits, avoided, st.sampled_from([None, None, 0, 1, 5]), modes
)
good_outcomes = st.sampled_from(["done", "done", "prepared"])
endings = st.builds(Ends, some, good_outcomes, st.just(0), st.just(False))
outcomes = st.sampled_from(["done", "failed", "prepared"])
odd_endings = st.builds(Ends, some, outcomes, st.sampled_from([-1, -1, 0, 0, 1]), st.booleans())
reports = st.builds(Reports, names, inventories() | st.none())
# st.one_of would draw every strategy equally often, however often it is listed.
happenings = st.sampled_from(
    [claims] * 6
    + [particular_claims] * 2
    + [st.builds(ClaimsAgain, some)] * 2
    + [endings] * 6
    + [odd_endings] * 2
    + [st.builds(Attaches, some)] * 2
    + [st.builds(Releases, some)] * 3
    + [reports] * 2
    + [st.builds(Expires)]
).flatmap(lambda happening: happening)

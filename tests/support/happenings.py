"""What may happen to a fleet, for hypothesis to draw: data, and the call that each becomes in a world."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from hypothesis import strategies as st

from common.rpc.messages import ClaimRequest, DeviceReport
from tests.support.fleet import CONNECTX5, X710, Card, gpu, port_devices, slice_of, vf
from tests.support.model import ALIAS, Call, Ending, Model, Release, Report

PORTS, VFS = range(2), range(3)
WISHES = (
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
    """What callers and agents know: whom they asked for what, and which devices there are."""

    model: Model = field(default_factory=Model)
    requests: list[ClaimRequest] = field(default_factory=list)
    inventories: dict[str, Sequence[DeviceReport]] = field(default_factory=dict)

    def claim_id(self, which: int) -> UUID:
        """Of one of the requests so far, or one that nobody knows."""
        return self.requests[which % len(self.requests)].claim_id if self.requests else UUID(int=0)


@dataclass(frozen=True)
class Claims:
    """Somebody wants devices. ``which``: with the id of an earlier request."""

    wish: str
    hosts: tuple[str, ...] | None
    avoid_hosts: tuple[str, ...]
    which: int | None

    def call(self, world: World) -> Call:
        number = len(world.requests) + 1
        request = ClaimRequest(
            claim_id=UUID(int=number) if self.which is None else world.claim_id(self.which),
            instance_id=UUID(int=number << 64),
            extra_specs={ALIAS: self.wish},
            hosts=None if self.hosts is None else list(self.hosts),
            avoid_hosts=list(self.avoid_hosts),
        )
        if self.which is None:
            world.requests.append(request)
        return request


@dataclass(frozen=True)
class ClaimsAgain:
    """Somebody makes an earlier request again."""

    which: int

    def call(self, world: World) -> Call:
        return world.requests[self.which % len(world.requests)] if world.requests else Release(UUID(int=0))


@dataclass(frozen=True)
class Releases:
    """Somebody gives a claim back."""

    which: int

    def call(self, world: World) -> Call:
        return Release(world.claim_id(self.which))


@dataclass(frozen=True)
class Ends:
    """An agent says that a step is done, or why not; perhaps an earlier step, or one that was never sent."""

    which: int
    is_done: bool
    step: int
    elsewhere: bool

    def call(self, world: World) -> Call:
        claim_id = world.claim_id(self.which)
        claim = world.model.claims.get(claim_id)
        host = "h1" if (claim is None or claim.host == "h1") != self.elsewhere else "h2"
        step = max(1, self.step + (1 if claim is None else claim.step))
        return Ending(host, claim_id, step, self.is_done, None if self.is_done else "no such instance")


@dataclass(frozen=True)
class Reports:
    """An agent publishes its host's devices; None: that they are as they were."""

    host: str
    devices: Sequence[DeviceReport] | None

    def call(self, world: World) -> Call:
        if self.devices is not None:
            world.inventories[self.host] = self.devices
        content = "".join(device.model_dump_json() for device in world.inventories.get(self.host, ()))
        return Report(self.host, hashlib.sha256(content.encode()).hexdigest(), self.devices)


Happening = Claims | ClaimsAgain | Releases | Ends | Reports

cards = st.sampled_from([X710, X710, CONNECTX5])
TROUBLES: list[dict[str, object]] = [{}, {}, {}, {"offered": False}, {"unusable_reason": "not in order"}]
troubles = st.sampled_from(TROUBLES)


@st.composite
def inventories(draw: st.DrawFn) -> Sequence[DeviceReport]:
    """Ports come and go, become other cards or lose SR-IOV; VFs come and go and change ports."""
    pfs: dict[int, Card] = {}
    devices: list[DeviceReport] = []
    for port in PORTS:
        match draw(st.sampled_from(["PF", "PF", "PF", "PF", "PCI", "nothing"])):
            case "PF":
                pfs[port] = draw(cards)
                devices += port_devices(port, 0, pfs[port], **draw(troubles))
            case "PCI":
                devices.append(gpu(port).model_copy(update=draw(troubles)))
    for slot in [(port, number) for port in PORTS for number in VFS]:
        below = draw(st.sampled_from([slot[0]] * 6 + [1 - slot[0], None]))
        if below in pfs:
            device = slice_of(below, 0, pfs[below], **draw(troubles))
            devices.append(device.model_copy(update={"address": vf(*slot)}))
    return devices


names = st.sampled_from(["h1", "h2"])
some = st.integers(0, 30)
wishes = st.sampled_from(WISHES)
limits = st.none() | st.sampled_from([("h1",), ("h2",), ("h1", "h2")])
avoided = st.sampled_from([(), (), (), ("h1",), ("h2",)])
fresh = st.none() | st.none() | st.none() | some
endings = st.builds(
    Ends,
    some,
    st.booleans() | st.just(True),
    st.sampled_from([0, 0, 0, 0, -1, 1]),
    st.sampled_from([False] * 7 + [True]),
)
happenings = (
    st.builds(Claims, wishes, limits, avoided, fresh)
    | st.builds(Claims, wishes, st.none(), st.just(()), st.none())
    | st.builds(ClaimsAgain, some)
    | st.builds(Releases, some)
    | endings
    | endings
    | st.builds(Reports, names, inventories())
    | st.builds(Reports, names, st.none())
)

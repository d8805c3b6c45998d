"""Any reports, and anything that happens between them: a report of changes leaves what a full report leaves.

Hypothesis draws the events. They happen in two fleets. The agents of one report what has changed, those of
the other report everything. After every event both databases must be the same, down to the ids.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from portclaim.common.errors import PortclaimError
from portclaim.common.rpc.agent_messages import DeviceReport, InventoryAnswer, InventoryReport, SignOfLife
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.services.compute_agent.conductor_link import ConductorLink
from portclaim.services.compute_agent.inventory import Inventory
from portclaim.services.conductor.signs_of_life import SignsOfLife
from tests.support import postgresql
from tests.support.effort import IS_LONG, short_or_long
from tests.support.fleet import Fleet, Host, pf
from tests.support.happenings import PORTS, inventories, some
from tests.support.host_shape import Edit, Shape, edits

CONTENT = {
    "hosts": "SELECT host, inventory_digest, numa_cells FROM compute_nodes ORDER BY host",
    "devices": """
        SELECT d.id, n.host, d.address, d.parent_id, d.dev_type, p.vendor_id, p.product_id, p.tags,
               d.numa_node, d.vfs, d.offered, d.present, d.status, d.claim_id, d.drained_reason,
               d.unusable_reason, d.attributes
          FROM pci_devices d
          JOIN compute_nodes n ON n.id = d.compute_node_id
          JOIN pools p ON p.id = d.pool_id
         ORDER BY d.id
    """,
    "port_pools": """
        SELECT pp.port_id, p.dev_type, p.vendor_id, p.product_id, p.tags::text, pp.numa_node, pp.free, pp.held
          FROM port_pools pp
          JOIN pools p ON p.id = pp.pool_id
         ORDER BY 1, 2, 3, 4, 5
    """,
}


class Event(NamedTuple):
    """Something that happens: a method of :class:`Side` and its arguments."""

    method: str
    facts: dict[str, Any]

    def happen(self, side: "Side") -> object:
        """What it answers. An error is an answer too."""
        try:
            return getattr(side, self.method)(**self.facts)
        except PortclaimError as error:
            return type(error)


class Conductor:
    """Counts the reports of changes, by whether they were enough.

    It is also the client of the agent, which may be asked for a report.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._conductor: ConductorClient = fleet.conductor
        self._signs = SignsOfLife(fleet.engine, self)  # type: ignore[arg-type]  # is like a client
        self.count = {True: 0, False: 0}
        self.wants_report = False

    def show_life(self, sign: SignOfLife) -> None:
        self.wants_report = False
        self._signs.note(sign)
        self._signs.record()

    def at(self, _host: str) -> "Conductor":
        return self

    def report(self) -> None:
        self.wants_report = True

    def can_report_changes(self) -> bool:
        return True

    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        answer = self._conductor.report_inventory(report)
        if report.base_digest is not None:
            self.count[not answer.resend] += 1
        return answer


class Side:
    """One of the two fleets."""

    def __init__(self, database_url: str, *, reports_changes: bool) -> None:
        self.fleet = Fleet(database_url)
        self.fleet.sql("TRUNCATE compute_nodes, pools, pci_devices RESTART IDENTITY CASCADE")
        self.agent = self.fleet.hosts["h1"] = Host(self.fleet, "h1", {}, UUID(int=1))
        self.conductor = Conductor(self.fleet)
        self._reports_changes = reports_changes
        self._link = self._new_link()
        self._shape = Shape()
        self._inventory = Inventory([], [])
        self._claims: list[UUID] = []

    def report(self, changes: Sequence[Edit]) -> None:
        """Change the host and let its agent report it."""
        for change in changes:
            self._shape.edit(change)
        self.report_all(self._shape.devices())

    def report_all(self, devices: Sequence[DeviceReport]) -> None:
        """Let the agent report any devices."""
        self._inventory = Inventory(list(devices), [])
        if not self._reports_changes:
            self._link = self._new_link()
        self._link.publish(self._inventory, in_full=True)

    def show_life(self) -> None:
        """Let the agent show that it lives, and report what the conductor wants then."""
        is_wanted = self._link.publish(self._inventory, in_full=False)
        if self.conductor.wants_report:
            self._link.doubt()
            is_wanted = self._link.publish(self._inventory, in_full=False)
        if is_wanted:
            self._link.publish(self._inventory, in_full=True)

    def claim(self, alias_spec: str) -> list[str]:
        self._claims.append(UUID(int=len(self._claims) + 1))
        claim = self.fleet.claim(alias_spec, self._claims[-1], self._claims[-1])
        return [f"{claim.host} {device.address}" for device in claim.devices]

    def release(self, which: int) -> None:
        self.fleet.scheduler.release(self._claim_id(which))

    def end(self, which: int, ending: str) -> None:
        """Let the agent of a claim answer its latest step."""
        claim = self.fleet.scheduler.show(self._claim_id(which))
        if ending == "failed":
            self.agent.failed(claim, "no such instance")
        else:
            getattr(self.agent, ending)(claim)

    def drain(self, port: int, is_drained: bool) -> None:
        if is_drained:
            self.fleet.scheduler.drain("h1", "flapping", pf(port))
        else:
            self.fleet.scheduler.undrain("h1", pf(port))

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        return {name: self.fleet.sql(statement) for name, statement in CONTENT.items()}

    def _new_link(self) -> ConductorLink:
        return ConductorLink(self.conductor, "h1", self.agent.agent_id)  # type: ignore[arg-type]  # is like a client

    def _claim_id(self, which: int) -> UUID:
        return self._claims[-1 - which % len(self._claims)] if self._claims else UUID(int=99)


@contextmanager
def two_fleets(database_url: str, other_url: str) -> Iterator[tuple[Side, Side]]:
    sides = Side(database_url, reports_changes=True), Side(other_url, reports_changes=False)
    try:
        yield sides
    finally:
        for side in sides:
            side.fleet.close()


def does(method: str, **facts: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    return st.builds(Event, st.just(method), st.fixed_dictionaries(facts))


wanted = st.sampled_from(["any-vf:1", "any-vf:1", "any-pf:1", "gpu:1", "nic-vf:2"])
events = st.sampled_from(
    [does("report", changes=st.lists(edits, min_size=1, max_size=2))] * 10
    + [does("report_all", devices=inventories())]
    + [does("show_life")] * 2
    + [does("claim", alias_spec=wanted)] * 5
    + [does("release", which=some)] * 2
    + [does("end", which=some, ending=st.sampled_from(["done", "done", "prepared", "failed"]))] * 5
    + [does("drain", port=st.sampled_from(PORTS), is_drained=st.booleans())]
).flatmap(lambda strategy: strategy)


def test_reports_of_changes_leave_what_full_reports_leave(database_url: str) -> None:
    other_url = postgresql.create_database()
    count = {True: 0, False: 0}

    @settings(
        max_examples=short_or_long(40, 5000),
        derandomize=not IS_LONG,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # shrinking would take minutes, and the story is short
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(events, min_size=20, max_size=40))
    def both_are_the_same(drawn: Sequence[Event]) -> None:
        story: list[Event] = []
        with two_fleets(database_url, other_url) as (one, other):
            for event in [Event("report", {"changes": []}), *drawn]:
                story.append(event)
                assert event.happen(one) == event.happen(other), story
                assert one.content() == other.content(), story
            assert one.fleet.faults() == [], story
            for enough, times in one.conductor.count.items():
                count[enough] += times

    both_are_the_same()
    postgresql.drop_database(other_url)
    assert min(count.values()) > 0, "some reports of changes were enough, and some were not"

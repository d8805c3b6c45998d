"""Lists are read page by page: the pages together are the list, whatever changes between two calls."""

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from portclaim.common.errors import InvalidMessage, InvalidRequest
from portclaim.common.rpc import versions
from portclaim.common.rpc.claim_messages import Claim, DeviceFilter
from portclaim.common.rpc.fields import Message
from portclaim.common.rpc.operator_messages import ClaimFilter, HostFilter, StepFilter, WaitingFilter
from portclaim.common.rpc.pages import pages
from tests.support.fleet import Fleet, Host, gpu


class List(NamedTuple):
    """A list: its method, its filter, the field of its rows, and what makes a row known again."""

    method: str
    filter: type[Message]
    rows: str
    name: Callable[[Any], Any]

    def __str__(self) -> str:
        return self.method

    def page(self, fleet: Fleet, **wanted: Any) -> Any:
        return getattr(fleet.scheduler, self.method)(self.filter(**wanted))

    def names(self, page: Any) -> list[Any]:
        return [self.name(row) for row in getattr(page, self.rows)]

    def all_names(self, fleet: Fleet, limit: int, **wanted: Any) -> list[Any]:
        """The rows of all pages."""
        ask = getattr(fleet.scheduler, self.method)
        return [name for page in pages(ask, self.filter(limit=limit, **wanted)) for name in self.names(page)]


LISTS = [
    List("devices", DeviceFilter, "devices", lambda row: (row.host, row.address)),
    List("hosts", HostFilter, "hosts", lambda row: row.host),
    List("claims", ClaimFilter, "claims", lambda row: row.claim_id),
    List("waiting", WaitingFilter, "claims", lambda row: row.claim_id),
    List("awaited_steps", StepFilter, "steps", lambda row: row.claim_id),
]
DEVICES, HOSTS, CLAIMS, WAITING, STEPS = LISTS


@pytest.fixture(autouse=True)
def hosts(fleet: Fleet) -> list[Host]:
    """Seven hosts. Six claims await their first step, and five claims wait in two queues."""
    hosts = [fleet.host(f"h{number}", ports=2, vfs=2) for number in (3, 1, 2, 7, 6, 5, 4)]
    hosts[0].add(gpu(4))
    hosts[0].report()
    for host in hosts[:6]:
        fleet.claim("nic-vf:1", hosts=[host.name])
    fleet.claim("gpu:1")
    for alias in ("gpu:1", "nic-vf:9", "gpu:1", "gpu:1", "nic-vf:9"):
        fleet.claim(alias, wait=600)
    return hosts


@pytest.mark.parametrize("each", LISTS, ids=str)
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_the_pages_together_are_the_list(fleet: Fleet, each: List, limit: int) -> None:
    whole = each.names(each.page(fleet))
    assert len(whole) >= 5
    assert each.all_names(fleet, limit) == whole


@pytest.mark.parametrize("each", LISTS, ids=str)
def test_a_page_says_whether_there_are_more(fleet: Fleet, each: List) -> None:
    count = len(each.names(each.page(fleet)))
    whole, cut = each.page(fleet, limit=count), each.page(fleet, limit=count - 1)
    assert (whole.more, whole.after) == (False, None)
    assert cut.more
    assert cut.after is not None
    last = each.page(fleet, limit=count - 1, after=cut.after)
    assert (len(each.names(last)), last.more, last.after) == (1, False, None)


@pytest.mark.parametrize("each", LISTS, ids=str)
def test_the_size_of_the_pages_may_change(fleet: Fleet, each: List) -> None:
    whole = each.names(each.page(fleet))
    rest = each.page(fleet, after=each.page(fleet, limit=2).after)
    assert each.names(rest) == whole[2:]


def test_a_caller_that_knows_no_pages_gets_what_it_got_before(fleet: Fleet) -> None:
    """The requests of release 0.2.0, whose clients send every field."""
    old = {
        DEVICES: {"host": None, "dev_type": None, "status": None, "claim_id": None, "limit": 10_000},
        HOSTS: {"host": None, "limit": 10_000},
        WAITING: {"claim_id": None, "limit": 10_000},
        STEPS: {"host": None, "parked": False, "limit": 10_000},
    }
    for each, fields in old.items():
        sent, version = versions.to_send(each.filter())
        assert (sent, version) == (fields, "1.0"), "a new caller without new wishes works with an old service"
        assert each.names(each.page(fleet, **fields)) == each.names(each.page(fleet))


class TestChangesBetweenTwoPages:
    def test_new_hosts_and_devices_move_no_row_to_another_page(self, fleet: Fleet) -> None:
        for each in (HOSTS, DEVICES):
            before = each.names(each.page(fleet))
            first = each.page(fleet, limit=4)
            fleet.host(f"h0-{each}", ports=1, vfs=1)
            fleet.host(f"h9-{each}", ports=1, vfs=1)
            rest = each.all_names(fleet, 4, after=first.after)
            new = [name for name in rest if f"h9-{each}" in name]
            assert each.names(first) + [name for name in rest if name not in new] == before
            assert new, "a row that sorts later is seen"

    def test_the_last_row_of_a_page_may_be_gone(self, fleet: Fleet) -> None:
        def answer(claim: Claim) -> None:
            fleet.hosts[claim.host].done(claim)

        for each, end in ((WAITING, fleet.leave), (CLAIMS, fleet.leave), (STEPS, answer)):
            whole = each.names(each.page(fleet))
            first = each.page(fleet, limit=2)
            end(fleet.scheduler.show(each.names(first)[-1]))
            assert each.all_names(fleet, 2, after=first.after) == whole[2:]

    def test_claims_and_steps_that_are_made_meanwhile_come_last(self, fleet: Fleet) -> None:
        for each in (CLAIMS, STEPS):
            before = each.names(each.page(fleet))
            first = each.page(fleet, limit=3)
            made = fleet.claim("nic-vf:1")
            assert each.names(first) + each.all_names(fleet, 3, after=first.after) == [*before, made.claim_id]

    def test_rows_of_the_same_moment_are_all_seen(self, fleet: Fleet) -> None:
        fleet.sql("UPDATE outbox SET created_at = now()")
        fleet.sql("UPDATE claims SET created_at = now()")
        fleet.sql("UPDATE waiting_claims SET queued_at = now()")
        for each in LISTS:
            found = each.all_names(fleet, 2)
            assert sorted(found) == sorted(each.names(each.page(fleet))), each
            assert len(set(found)) == len(found)

    def test_a_claim_that_is_served_meanwhile_is_not_lost(self, fleet: Fleet) -> None:
        """It gets younger by that: it is seen again, rather than not at all."""
        head = WAITING.names(WAITING.page(fleet))[0]
        first = CLAIMS.page(fleet, limit=8)
        [holder] = fleet.sql("SELECT claim_id FROM pci_devices WHERE dev_type = 'type-PCI'")[0]
        fleet.leave(fleet.scheduler.show(holder))
        fleet.serve()
        assert head in CLAIMS.all_names(fleet, 3, after=first.after)


class TestBadCursors:
    @pytest.mark.parametrize("each", LISTS, ids=str)
    def test_a_cursor_belongs_to_one_list_and_one_filter(self, fleet: Fleet, each: List) -> None:
        after = each.page(fleet, limit=1).after
        for other in LISTS:
            if other is not each:
                with pytest.raises(
                    InvalidRequest, match=f"after is not from an answer of {other}|another request"
                ):
                    other.page(fleet, after=after)
        narrower = {"instance_id": uuid4()} if each in (CLAIMS, WAITING) else {"host": "h1"}
        with pytest.raises(InvalidRequest, match="after is from an answer to another request: call again"):
            each.page(fleet, after=after, **narrower)

    def test_anything_else_is_refused(self, fleet: Fleet) -> None:
        claim_id = "c0000000-0000-4000-8000-000000000001"
        for place in (
            None,
            [],
            {},
            {"host": 7},
            {"host": "\0"},
            {"host": "h1", "more": 1},
            {"host": "h1", "port": "p", "is_vf": 0, "address": "a"},
            {"arrival": -1},
            {"arrival": 2**63},
            {"arrival": 1.5},
            {"created_at": "yesterday", "claim_id": claim_id},
            {"created_at": "2026-03-02T09:00:00", "claim_id": claim_id},
            {"created_at": "2026-03-02T09:00:00+00:00", "claim_id": "c1"},
            {"created_at": "2026-03-02T09:00:00+00:00", "claim_id": claim_id, "step": 2**31},
        ):
            for each in LISTS:
                after = self._with(each.page(fleet, limit=1).after, place)
                with pytest.raises(
                    InvalidRequest, match=f"after is not from an answer of {each}: call again"
                ):
                    each.page(fleet, after=after)

    def test_text_that_is_no_cursor_at_all(self, fleet: Fleet) -> None:
        for after in ("", "h1", "%%%", "AAAA"):
            with pytest.raises(InvalidRequest, match="after is not from an answer of hosts"):
                HOSTS.page(fleet, after=after)
        with pytest.raises(InvalidMessage, match="after"):
            fleet.scheduler._call("hosts", HostFilter.model_construct(after="x" * 2001), Message)

    def test_a_place_that_the_database_does_not_know_is_only_a_place(self, fleet: Fleet) -> None:
        """A cursor is not signed: who makes one up gets the rows after that place."""
        made_up = self._with(
            HOSTS.page(fleet, limit=1).after, {"host": "h3\U0001f600'; DROP TABLE claims; --"}
        )
        assert HOSTS.names(HOSTS.page(fleet, after=made_up)) == ["h4", "h5", "h6", "h7"]

    @staticmethod
    def _with(after: str, place: object) -> str:
        digest, _ = json.loads(zlib.decompress(base64.urlsafe_b64decode(after)))
        return base64.urlsafe_b64encode(zlib.compress(json.dumps([digest, place]).encode())).decode()

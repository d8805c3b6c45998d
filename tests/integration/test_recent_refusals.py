"""Why was this claim refused: the newest refusals are kept with their explanation, and not one by one."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from portclaim.common.db import quotas
from portclaim.common.errors import ClaimNotFound, ClaimRefused, PortclaimError, ServiceUnavailable
from portclaim.common.pci.alias import Aliases
from portclaim.common.rpc.pages import pages
from portclaim.common.rpc.refusal_messages import Refusal, RefusalFilter
from portclaim.services.scheduler import recent_refusals
from portclaim.services.scheduler.refusal_counts import RefusalCounts
from tests.integration.test_cli import Run, assert_failed, done, done_in_json, portclaim, run
from tests.support.concurrency import at_once
from tests.support.fleet import ALIASES, Fleet, request_for
from tests.support.http_api import HttpApi, asked, http_api, problem

__all__ = ["portclaim"]

KNOWN = Aliases.parse(ALIASES)


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    with http_api(fleet, database_url) as api:
        yield api


def refuse(fleet: Fleet, alias: str = "nic-pf:2", **facts: Any) -> UUID:
    """Make a claim that is refused, and have the worker record it. Answers its id."""
    claim_id: UUID = facts.pop("claim_id", None) or uuid4()
    with pytest.raises(PortclaimError):
        fleet.claim(alias, claim_id, **facts)
    fleet.refusals.record()
    return claim_id


def listed(fleet: Fleet, **wanted: Any) -> list[Refusal]:
    fleet.refusals.record()
    return fleet.scheduler.refusals(RefusalFilter(**wanted)).refusals


def error(claim_id: UUID | None = None) -> ClaimRefused:
    return ClaimRefused(f"no host has {claim_id}", explanation={"reason": "available"})


class TestKept:
    def test_with_the_request_and_what_each_filter_left_then(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1)
        fleet.host("h2", ports=2)
        held = fleet.claim("nic-pf:1", hosts=["h1"])
        instance_id = uuid4()
        with pytest.raises(ClaimRefused) as refused:
            fleet.claim("nic-pf:2", UUID(int=1), instance_id, hosts=["h1"], project="web", wait=None)
        fleet.leave(held)  # what is explained is that moment, not now
        [kept] = listed(fleet, explained=True)
        assert (kept.claim_id, kept.instance_id, kept.project) == (UUID(int=1), instance_id, "web")
        assert (kept.reason, kept.alias, kept.times, kept.is_cut) == ("available", "nic-pf:2", 1, False)
        assert kept.message == refused.value.message
        assert kept.request == {"extra_specs": {"pci_passthrough:alias": "nic-pf:2"}, "hosts": ["h1"]}
        assert kept.explanation is not None
        assert kept.explanation.model_dump(mode="json") == refused.value.kwargs["explanation"]
        assert kept.explanation.misses[0].held_by == [held.instance_id]

    def test_also_when_no_filter_is_to_blame(self, fleet: Fleet) -> None:
        fleet.host("h1")
        with fleet.engine.begin() as connection:
            quotas.set_quota(connection, "web", None, quotas.Limits(max_vfs=1))
        refuse(fleet, "nic-vf:2", project="web")
        refuse(fleet, "no-such:1")
        kept = listed(fleet, explained=True)
        assert [(each.reason, each.explanation) for each in kept] == [("invalid", None), ("quota", None)]
        assert "no-such" in kept[0].message

    def test_each_of_a_batch(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=1, vfs=1)
        made = fleet.claim_many(["nic-vf:1", "nic-vf:1", "nic-pf:1"])
        assert [isinstance(each, ClaimRefused) for each in made] == [False, True, True]
        assert {each.alias for each in listed(fleet)} == {"nic-vf:1", "nic-pf:1"}

    def test_once_for_a_claim_that_is_repeated(self, fleet: Fleet) -> None:
        claim_id = refuse(fleet)
        for _ in range(2):
            with pytest.raises(ClaimRefused):
                fleet.claim("nic-pf:2", claim_id)
        refuse(fleet, claim_id=claim_id, project="web")  # another project's claim has an entry of its own
        assert [(each.project, each.times) for each in listed(fleet)] == [("web", 1), (None, 3)]

    def test_no_more_of_it_than_is_of_use(self, fleet: Fleet) -> None:
        for host in range(2):
            fleet.host(f"h{host}", ports=4, vfs=16)
            for _ in range(4 * 16):
                fleet.claim("nic-vf:1", hosts=[f"h{host}"])
        claim_id = refuse(fleet, "nic-pf:1", hosts=[f"h{number}" for number in range(101)])
        refuse(fleet, "nic-pf:1", unread="x" * 100_000)
        other, kept = listed(fleet, explained=True)
        assert (kept.claim_id, kept.is_cut, len(kept.request["hosts"])) == (claim_id, True, 100)
        assert kept.explanation is not None
        assert len(kept.explanation.misses) == 5
        assert {len(miss.held_by) for miss in kept.explanation.misses} == {8}
        assert list(other.request["extra_specs"]) == ["pci_passthrough:alias"]

    def test_nothing_is_written_before_the_counts_are(self, fleet: Fleet) -> None:
        with pytest.raises(ClaimRefused):
            fleet.claim("nic-pf:2")
        assert fleet.scheduler.refusals(RefusalFilter()).refusals == []

    def test_what_could_not_be_recorded_is_recorded_later(self, fleet: Fleet) -> None:
        claim_id = uuid4()
        fleet.sql("ALTER TABLE refused_requests RENAME TO away")
        for _ in range(2):
            with pytest.raises(ClaimRefused):
                fleet.claim("nic-pf:2", claim_id)
            with pytest.raises(ServiceUnavailable):
                fleet.refusals.record()
        fleet.sql("ALTER TABLE away RENAME TO refused_requests")
        [kept] = listed(fleet)
        assert (kept.claim_id, kept.times) == (claim_id, 2)
        assert fleet.sql("SELECT sum(refused) FROM refusals") == [(2,)], "it is not counted twice either"


class TestBounds:
    def test_a_worker_keeps_the_newest_between_two_writes(self, fleet: Fleet) -> None:
        most = recent_refusals.MOST
        ids = [UUID(int=number) for number in range(1, 3 * most)]
        for claim_id in ids:
            fleet.refusals.count(
                error(claim_id), request_for("nic-pf:1").model_copy(update={"claim_id": claim_id}), KNOWN
            )
        kept = listed(fleet, limit=1000)
        assert {each.claim_id for each in kept} == set(ids[-most:])
        assert fleet.sql("SELECT sum(refused) FROM refusals") == [(len(ids),)], "all are counted"

    def test_the_database_keeps_the_newest_of_all_workers(self, fleet: Fleet) -> None:
        for number in range(recent_refusals.KEPT // recent_refusals.MOST + 2):
            worker = RefusalCounts(fleet.engine)
            for _ in range(recent_refusals.MOST):
                worker.count(error(), request_for(f"nic-vf:{number + 1}"), KNOWN)
            worker.record()
        kept = listed(fleet, limit=10_000)
        assert len(kept) == recent_refusals.KEPT
        assert {each.alias for each in kept} == {f"nic-vf:{number}" for number in (3, 4, 5, 6, 7)}

    def test_workers_that_record_the_same_claims_at_once(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("portclaim.services.scheduler.refusal_counts.KEPT", 10)
        workers = [RefusalCounts(fleet.engine) for _ in range(8)]
        requests = [request_for("nic-pf:1") for _ in range(30)]
        for number, worker in enumerate(workers):
            for request in requests if number % 2 else reversed(requests):
                worker.count(error(), request, KNOWN)
        assert at_once([worker.record for worker in workers]) == [False] * 8
        RefusalCounts(fleet.engine).record()
        workers[0].count(error(), requests[0], KNOWN)
        workers[0].record()
        assert len(listed(fleet)) == 10

    def test_a_day(self, fleet: Fleet) -> None:
        old, young = refuse(fleet), refuse(fleet)
        fleet.sql(
            "UPDATE refused_requests SET at = at - interval '25 hours' WHERE claim_id = :claim_id",
            claim_id=old,
        )
        assert [each.claim_id for each in listed(fleet)] == [young]
        assert fleet.sql("SELECT claim_id FROM recent_refusals") == [(young,)]
        fleet.sql("SELECT remove_old_refusals(interval '7 days')")
        assert fleet.sql("SELECT claim_id FROM refused_requests") == [(young,)]


class TestList:
    def test_filters(self, fleet: Fleet) -> None:
        instance_id = uuid4()
        first = refuse(fleet, instance_id=instance_id)
        second = refuse(fleet, project="web")
        third = refuse(fleet, "no-such:1")
        ids = {
            name: [each.claim_id for each in listed(fleet, **wanted)]
            for name, wanted in {
                "all": {},
                "claim": {"claim_id": second},
                "instance": {"instance_id": instance_id},
                "project": {"project": "web"},
                "reason": {"reason": "invalid"},
            }.items()
        }
        assert ids == {
            "all": [third, second, first],
            "claim": [second],
            "instance": [first],
            "project": [second],
            "reason": [third],
        }
        assert {each.explanation for each in listed(fleet)} == {None}, "they are long"

    def test_pages(self, fleet: Fleet) -> None:
        made = [refuse(fleet) for _ in range(5)]
        fleet.sql("UPDATE refused_requests SET at = now()")  # the place of a row is not its time alone
        found = pages(fleet.scheduler.refusals, RefusalFilter(limit=2))
        ids = [[each.claim_id for each in page.refusals] for page in found]
        assert [len(page) for page in ids] == [2, 2, 1]
        assert {claim_id for page in ids for claim_id in page} == set(made)

    def test_a_newer_scheduler_may_have_kept_more(self, fleet: Fleet) -> None:
        fleet.host("h1")
        refuse(fleet, "gpu:1")
        fleet.sql("""UPDATE refused_requests SET explanation = explanation || '{"later": 1}'""")
        [kept] = listed(fleet, explained=True)
        assert kept.explanation is not None

    def test_a_claim_that_was_refused_is_none(self, fleet: Fleet) -> None:
        claim_id = refuse(fleet)
        with pytest.raises(ClaimNotFound):
            fleet.scheduler.show(claim_id)


class TestHttp:
    def test_a_reader_sees_all_and_a_claimer_its_project(self, fleet: Fleet, api: HttpApi) -> None:
        fleet.host("h1", ports=1)
        holder = fleet.claim("nic-pf:1", project="shop")
        ids = {}
        for project in ("web", "shop"):
            claim_id = str(uuid4())
            ids[project] = claim_id
            client = api.client("claimer", project)
            problem(client.put(f"/v1/claims/{claim_id}", json=asked("nic-pf:1")), 409, "claim-refused")
        fleet.refusals.record()
        everything = api.client("reader").get("/v1/refusals", params={"explained": "true"}).json()
        assert [each["claim_id"] for each in everything["refusals"]] == [ids["shop"], ids["web"]]
        assert str(holder.instance_id) in everything["refusals"][1]["message"]
        web = api.client("claimer", "web")
        [own] = web.get("/v1/refusals", params={"explained": "true"}).json()["refusals"]
        assert own["claim_id"] == ids["web"]
        assert own["explanation"]["misses"][0]["held_by"] == []
        assert "instance" in own["message"]
        assert str(holder.instance_id) not in str(own)
        foreign = {"claim_id": ids["shop"]}
        assert web.get("/v1/refusals", params=foreign).json()["refusals"] == []
        problem(web.get("/v1/refusals", params={"project": "shop"}), 403, "forbidden")


class TestCommand:
    def test_list_and_describe(self, portclaim: Run, fleet: Fleet) -> None:
        instance_id = uuid4()
        claim_id = refuse(fleet, "nic-pf:9", instance_id=instance_id, hosts=["h1", "h2"])
        shown = done(portclaim("claim", "refusals"))
        assert str(claim_id) in shown
        assert "nic-pf:9" in shown
        in_json = ("claim", "refusals", "--output", "json")
        [row] = done_in_json(portclaim(*in_json, "--instance", str(instance_id)))
        assert row["reason"] == "together"
        assert done_in_json(portclaim(*in_json, "--reason", "quota")) == []
        described = done(portclaim("describe", "claim", str(claim_id)))
        for words in ("refused at", "asked for", "h1 h2", "as it was then", "was refused: ", "next"):
            assert words in described
        assert "portclaim explain --alias nic-pf:9" in described
        facts = done_in_json(portclaim("describe", "claim", str(claim_id), "--output", "json"))
        assert facts["refusal"]["explanation"]["reason"] == "together"
        assert_failed(portclaim("describe", "claim", str(uuid4())), 1, "there is no claim")

    def test_over_http(self, fleet: Fleet, api: HttpApi) -> None:
        there = {"PORTCLAIM_URL": api.url, "PORTCLAIM_TOKEN": api.token("reader")}
        claim_id = refuse(fleet, "no-such:1")
        assert "no-such" in done(run("claim", "refusals", **there))
        assert "portclaim alias list" in done(run("describe", "claim", str(claim_id), **there))

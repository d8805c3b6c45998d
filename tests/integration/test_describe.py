"""``portclaim describe``: everything about one thing, its history, and what to do next."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import yaml

from portclaim.common.errors import ClaimNotFound, InvalidRequest, UnknownHost
from portclaim.common.rpc.history_messages import History, HistoryFilter
from tests.integration.test_cli import Run, assert_failed, done, done_in_json, portclaim, run
from tests.support.fleet import Fleet, pf, vf
from tests.support.http_api import HttpApi, asked, http_api, problem

__all__ = ["portclaim"]


def history(fleet: Fleet, **of: Any) -> History:
    return fleet.scheduler.history(HistoryFilter(**of))


@pytest.fixture
def api(fleet: Fleet, database_url: str) -> Iterator[HttpApi]:
    with http_api(fleet, database_url) as api:
        yield api


@pytest.fixture
def over_http(api: HttpApi, fleet: Fleet) -> Run:
    """The program over HTTP, where the fleet is one host with two ports of two VFs."""
    fleet.host("h1", ports=2, vfs=2)
    there = {"PORTCLAIM_URL": api.url, "PORTCLAIM_TOKEN": api.token("operator")}
    return lambda *words: run(*words, **there)


class TestHistory:
    def test_a_claim_has_its_devices_its_changes_and_its_step(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=1, vfs=4)
        claim = fleet.claim("nic-vf:2")
        made = history(fleet, claim_id=claim.claim_id)
        assert {held.address for held in made.holdings} == {device.address for device in claim.devices}
        assert [held.held_until for held in made.holdings] == [None, None]
        assert [change.to_status for change in made.changes] == ["claimed"]
        assert [(step.action, step.parked) for step in made.steps] == [("attach", False)]
        assert made.host_is_silent is False
        host.done(claim)
        host.done(fleet.release(claim))
        ended = history(fleet, claim_id=claim.claim_id)
        assert all(held.held_until is not None for held in ended.holdings)
        assert ended.changes[0].to_status == "released"
        assert ended.steps == []

    def test_a_device_names_all_who_have_held_it_the_newest_first(self, fleet: Fleet) -> None:
        host = fleet.host("h1", ports=2, vfs=2)
        whole = fleet.attached(fleet.claim("nic-pf:1"))
        host.done(fleet.release(whole))
        port = whole.devices[0].address
        sliced = fleet.claim("nic-vf:1", hosts=["h1"])
        other = history(fleet, host="h1", address=sliced.devices[0].parent_address)
        assert other.holdings[0].claim_id == sliced.claim_id
        assert [step.claim_id for step in other.steps] == [sliced.claim_id]
        assert whole.claim_id in {held.claim_id for held in history(fleet, host="h1", address=port).holdings}
        everything = history(fleet, host="h1")
        assert [held.claim_id for held in everything.holdings] == [sliced.claim_id, whole.claim_id]
        assert len(history(fleet, host="h1", limit=1).holdings) == 1

    def test_changes_that_no_claim_has_caused_are_those_of_the_device(self, fleet: Fleet) -> None:
        fleet.host("h1", ports=2, vfs=1)
        fleet.scheduler.drain("h1", "flapping", pf(1))
        [latest, *_] = history(fleet, host="h1", address=pf(1)).changes
        assert (latest.address, latest.to_status, latest.cause) == (
            pf(1),
            "unavailable",
            "port drained: flapping",
        )
        assert {change.address for change in history(fleet, host="h1", address=pf(0)).changes} == {
            pf(0),
            vf(0, 0),
        }

    def test_what_is_not_there_is_an_error(self, fleet: Fleet) -> None:
        fleet.host("h1")
        with pytest.raises(ClaimNotFound):
            history(fleet, claim_id=uuid4())
        with pytest.raises(UnknownHost, match="h9"):
            history(fleet, host="h9")
        with pytest.raises(InvalidRequest, match="h1 has no device"):
            history(fleet, host="h1", address="0000:99:00.0")

    def test_another_project_does_not_see_it(self, fleet: Fleet, api: HttpApi) -> None:
        fleet.host("h1")
        path = f"/v1/claims/{uuid4()}"
        with api.client("claimer", "red") as own, api.client("claimer", "blue") as other:
            own.put(path, json=asked()).raise_for_status()
            path += "/history"
            assert own.get(path).json()["steps"][0]["action"] == "attach"
            problem(other.get(path), 404, "claim-not-found")
            problem(own.get("/v1/hosts/h1/history"), 403, "forbidden")


@pytest.fixture(params=["portclaim", "over_http"], ids=["RPC", "HTTP"])
def program(request: pytest.FixtureRequest) -> Run:
    """The program, over RPC and over HTTP."""
    found: Run = request.getfixturevalue(request.param)
    return found


class TestAdvice:
    def test_a_claim_that_goes_well(self, program: Run, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        said = done(program("describe", "claim", str(claim.claim_id)))
        assert "steps that the agent has not answered" in said
        assert said.splitlines()[-1] == (
            f"  The agent of h1 prepares the devices: portclaim wait {claim.claim_id} --for prepared"
        )
        fleet.attached(claim)
        shown = done_in_json(program("describe", "claim", str(claim.claim_id), "--output", "json"))
        assert shown["claim"]["status"] == "allocated"
        assert shown["history"]["changes"][0]["to_status"] == "allocated"
        assert shown["next"] == [
            f"Nothing: the instance has its devices. To give them back: portclaim release {claim.claim_id}"
        ]

    def test_a_claim_on_a_silent_host(self, program: Run, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        fleet.falls_silent("h1")
        said = done(program("describe", "claim", str(claim.claim_id)))
        assert "The agent of h1 is silent" in said
        assert f"portclaim release {claim.claim_id} --force --reason WHY" in said

    def test_a_parked_step_names_the_failure_and_the_retry(self, program: Run, fleet: Fleet) -> None:
        claim = fleet.claim("nic-vf:1")
        fleet.sql(
            "UPDATE outbox SET send_after = 'infinity', sends = 100 WHERE claim_id = :id RETURNING 1",
            id=claim.claim_id,
        )
        for words in (
            ("claim", str(claim.claim_id)),
            ("host", "h1"),
            ("port", "h1", claim.devices[0].address),
        ):
            said = done(program("describe", *words))
            assert "is no longer sent, after 100 times" in said
            assert f"portclaim outbox retry {claim.claim_id}" in said

    def test_a_waiting_claim_has_a_position(self, program: Run, fleet: Fleet) -> None:
        claim = fleet.claim("nic-pf:3", wait=300)
        said = done(program("describe", "claim", str(claim.claim_id)))
        assert "It has position 1 in its queue" in said
        assert "portclaim explain --alias nic-pf:3" in said

    def test_a_drained_host_and_a_drained_port(self, program: Run, fleet: Fleet) -> None:
        assert "Nothing: it takes claims" in done(program("describe", "host", "h1"))
        fleet.scheduler.drain("h1", "flapping", pf(1))
        assert f"portclaim host undrain h1 --port {pf(1)}" in done(program("describe", "host", "h1"))
        assert f"portclaim host undrain h1 --port {pf(1)}" in done(
            program("describe", "port", "h1", vf(1, 0))
        )
        fleet.scheduler.drain("h1", "new fan")
        shown = yaml.safe_load(done(program("describe", "host", "h1", "--output", "yaml")))
        assert shown["host"]["drained_reason"] == "new fan"
        assert any(sentence.endswith("portclaim host undrain h1") for sentence in shown["next"])

    def test_a_device_that_did_not_come_back(self, program: Run, fleet: Fleet) -> None:
        fleet.sql(
            "UPDATE pci_devices SET unusable_reason = 'its VFs did not come back', status = 'unavailable' "
            "WHERE address = :address RETURNING 1",
            address=pf(0),
        )
        said = done(program("describe", "port", "h1", pf(0)))
        assert (
            "its VFs did not come back. On h1, this says what stands in the way: portclaim host scan" in said
        )

    def test_what_is_not_there(self, program: Run) -> None:
        assert_failed(program("describe", "claim", str(uuid4())), 1, "there is no claim")
        assert_failed(program("describe", "host", "h9"), 1, "no agent has ever reported for host h9")
        assert_failed(program("describe", "port", "h1", "0000:99:00.0"), 1, "h1 has no device 0000:99:00.0")


LISTS = {
    "claim list": lambda rows: rows[0]["claim_id"],
    "host list": lambda rows: rows[0]["host"],
    "devices": lambda rows: rows[0]["address"],
    "outbox list": lambda rows: rows[0]["action"],
    "alias list": lambda rows: rows[0]["name"],
}


@pytest.mark.parametrize("words", LISTS)
def test_yaml_says_what_json_says(portclaim: Run, fleet: Fleet, words: str) -> None:
    fleet.claim("nic-vf:1")
    pick: Callable[[Any], Any] = LISTS[words]
    in_json = done_in_json(portclaim(*words.split(), "--output", "json"))
    in_yaml = yaml.safe_load(done(portclaim(*words.split(), "--output", "yaml")))
    assert [sorted(row) for row in in_yaml] == [sorted(row) for row in in_json]
    assert pick(in_yaml) == pick(in_json)


def test_an_empty_list_is_an_empty_document(portclaim: Run) -> None:
    assert yaml.safe_load(done(portclaim("claim", "list", "--output", "yaml"))) == []

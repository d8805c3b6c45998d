"""The tables of allowed status changes of claims and moves: PostgreSQL, code and docs follow them."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa

from portclaim.common.db.life_cycle import LIVE, MOVE_TRANSITIONS, TRANSITIONS, Transition, diagram
from portclaim.common.rpc.fields import ClaimStatus, MoveStatus
from tests.support.fleet import CONNECTX5, Fleet

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
PAIRS = {(each.before, each.after) for each in TRANSITIONS}


@pytest.mark.parametrize("transitions", [TRANSITIONS, MOVE_TRANSITIONS])
def test_the_diagram_in_the_docs_matches_the_table(transitions: Sequence[Transition]) -> None:
    assert f"```mermaid\n{diagram(transitions)}\n```" in PAGE.read_text()


def test_no_change_is_listed_twice_and_ended_claims_do_not_change() -> None:
    assert len(PAIRS) == len(TRANSITIONS)
    assert {before for before, _ in PAIRS} == {None, "waiting", *LIVE}


def test_postgresql_accepts_exactly_these_changes(fleet: Fleet) -> None:
    fleet.host("h1")
    claim = fleet.claim("nic-vf:1")
    statuses = get_args(ClaimStatus)
    for before, after in product([None, *statuses], statuses):
        insert = sa.text(
            "INSERT INTO claim_events (claim_id, from_status, to_status, cause) VALUES (:id, :a, :b, 'x')"
        )
        with fleet.engine.connect() as connection:
            facts = {"id": claim.claim_id, "a": before, "b": after}
            if (before, after) in PAIRS:
                connection.execute(insert, facts)
            else:
                with pytest.raises(sa.exc.IntegrityError, match="is_a_transition"):
                    connection.execute(insert, facts)


def test_each_change_happens(fleet: Fleet) -> None:
    host = fleet.host("h1", ports=1, vfs=16)
    claims = {
        name: fleet.claim("nic-vf:1") for name in ("forced", "lost", "forced when attached", "released")
    }
    host.failed(fleet.claim("nic-vf:1"), "no such instance")
    for name in ("lost", "forced when attached", "released"):
        host.done(claims[name])
    prepared = {name: fleet.claim("nic-vf:1") for name in ("attached", "failed", "released", "given up")}
    for claim in prepared.values():
        host.prepared(claim)
    host.done(prepared["attached"])
    host.failed(prepared["failed"], "the guest has no slot left")
    host.done(fleet.release(prepared["released"]))
    host.failed(claims["lost"], "its instance is gone")
    fleet.release(claims["released"])
    host.failed(claims["released"], "the guest does not let go")
    host.done(claims["released"])

    whole = fleet.host("h2", ports=1, card=CONNECTX5)
    holder = fleet.claim("roce-pf:1")
    late, _, cancelled = (fleet.claim("roce-pf:1", wait=300) for _ in range(3))
    fleet.sql("UPDATE waiting_claims SET deadline = now() WHERE id = :id", id=late.claim_id)
    fleet.release(cancelled)
    whole.done(fleet.release(holder))
    fleet.serve()

    host.done(fleet.release(fleet.claim("nic-vf:1")))
    expiring = fleet.claim("nic-vf:1")
    fleet.sql("UPDATE claims SET created_at = '2000-01-01' WHERE id = :id", id=expiring.claim_id)
    fleet.expire()
    host.done(expiring)
    fleet.host("h3")
    migrating = fleet.move(fleet.attached(fleet.claim("nic-vf:1", hosts=["h1"])), hosts=["h3"], live=True)
    fleet.hosts["h3"].prepared(migrating.target)
    host.prepared(migrating.source)
    fleet.falls_silent("h1")
    for name in ("forced", "forced when attached"):
        fleet.force(claims[name])
    fleet.force(prepared["given up"])
    assert set(fleet.sql("SELECT DISTINCT from_status, to_status FROM claim_events")) == PAIRS
    assert fleet.faults() == []


class TestMoves:
    PAIRS = frozenset((each.before, each.after) for each in MOVE_TRANSITIONS)

    def test_postgresql_accepts_exactly_these_changes(self, fleet: Fleet) -> None:
        for name in ("h1", "h2"):
            fleet.host(name)
        source, target = (fleet.claim("nic-vf:1", hosts=[name]) for name in ("h1", "h2"))
        insert = sa.text(
            "INSERT INTO claim_moves (source_claim_id, target_claim_id, status)"
            " VALUES (:source, :target, :status)"
        )
        statuses = get_args(MoveStatus)
        for before, after in product([None, *statuses], statuses):
            with fleet.engine.connect() as connection:
                facts = {"source": source.claim_id, "target": target.claim_id, "status": after}
                change = insert
                if before is not None:
                    connection.execute(sa.text("ALTER TABLE claim_moves DISABLE TRIGGER is_a_transition"))
                    connection.execute(insert, facts | {"status": before})
                    connection.execute(sa.text("ALTER TABLE claim_moves ENABLE TRIGGER is_a_transition"))
                    change = sa.text("UPDATE claim_moves SET status = :status")
                if (before, after) in self.PAIRS:
                    connection.execute(change, facts)
                else:
                    with pytest.raises(sa.exc.IntegrityError, match="cannot become"):
                        connection.execute(change, facts)

    def test_each_change_happens(self, fleet: Fleet) -> None:
        hosts = {name: fleet.host(name, ports=1, vfs=16) for name in ("h1", "h2")}
        fleet.sql("CREATE TABLE seen (before text, after text)")
        fleet.sql("""
            CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO seen VALUES (OLD.status, NEW.status); RETURN NULL; END'
        """)
        fleet.sql(
            "CREATE TRIGGER see AFTER INSERT OR UPDATE OF status ON claim_moves"
            " FOR EACH ROW EXECUTE FUNCTION see()"
        )
        for is_completing, is_attached, ends in product([False, True], [False, True], ["complete", "revert"]):
            source = fleet.claim("nic-vf:1", hosts=["h1"])
            hosts["h1"].done(source)
            move = fleet.move(source)
            if is_completing:
                fleet.complete(move)
            if is_attached:
                hosts["h2"].done(move.target)
            if not (is_completing and is_attached):
                getattr(fleet, ends)(move)
        assert set(fleet.sql("SELECT before, after FROM seen")) == self.PAIRS

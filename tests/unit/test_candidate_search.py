"""The pure parts of the search for candidates: the cursor, and the order of hosts."""

import base64
import json
import zlib
from random import Random

import pytest

from portclaim.common.errors import InvalidRequest
from portclaim.services.scheduler import cursor
from portclaim.services.scheduler.candidate_order import Next, cut_off_at, in_order
from portclaim.services.scheduler.statements import FEW

ASKED = {"extra_specs": {"pci_passthrough:alias": "nic-vf:1"}, "hosts": None}


class TestCursor:
    @pytest.mark.parametrize("seen", [set(), {1}, {7, 3, 2**40}, set(range(1, 5000, 2))])
    def test_it_holds_the_hosts_that_were_seen(self, seen: set[int]) -> None:
        assert cursor.read(ASKED, cursor.write(ASKED, seen)) == seen

    def test_it_is_short(self) -> None:
        every_third = Random(1).sample(range(1, 300_000), 100_000)
        assert len(cursor.write(ASKED, range(1, 100_000))) < 1_000
        assert len(cursor.write(ASKED, every_third)) < 100_000

    def test_it_belongs_to_one_request(self) -> None:
        with pytest.raises(InvalidRequest, match="another request"):
            cursor.read({**ASKED, "hosts": ["h1"]}, cursor.write(ASKED, {1}))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no JSON",
            b"[]",
            b'"text"',
            b'["digest", 7]',
            b'["digest", [0]]',
            b'["digest", [-1]]',
            b'["digest", [1e30]]',
            b'["digest", [9999999999999999999]]',
            b'["digest", ["1"]]',
            b'["digest", [true]]',
            b'["digest", [1.5]]',
            b'["digest", [1], 2]',
            json.dumps(["digest", [1] * 1_000_000]).encode(),  # too long
        ],
    )
    def test_anything_else_is_refused(self, content: bytes) -> None:
        text = base64.urlsafe_b64encode(zlib.compress(content)).decode()
        with pytest.raises(InvalidRequest, match="call again without it"):
            cursor.read(ASKED, text)


def rows(part: str, *hosts: int, ranks: int = 0) -> list[Next]:
    """A list of rows of these hosts. Their ranks rise from ``ranks`` on."""
    return [Next(host, part, rank) for rank, host in enumerate(hosts, start=ranks)]


class TestOrder:
    def test_the_best_of_all_lists_comes_first_and_each_host_once(self) -> None:
        used, whole = rows("used", 3, 1, 3), rows("whole", 2, 1, 3, ranks=10)
        assert in_order([*used, *whole], set()) == [3, 1, 2]

    def test_a_claim_looks_at_the_first_few_rows_of_a_list_only(self) -> None:
        """The host whose rank is best stands too far down. It comes as soon as a claim would look at it."""
        hosts = list(range(FEW + 3))
        listed = [Next(host, "used", 0 if host == FEW + 1 else host + 1) for host in hosts]
        assert in_order(listed, set()) == [0, 1, FEW + 1, *range(2, FEW + 1), FEW + 2]

    def test_it_ends_where_a_list_may_go_on(self) -> None:
        listed = rows("used", *range(FEW + 2))
        assert cut_off_at(listed, FEW + 2) == {"used"}
        assert in_order(listed, {"used"}) == [0, 1, 2]
        assert cut_off_at(listed, FEW + 3) == set()

    def test_pages_make_the_order_of_one_long_list(self) -> None:
        chance = Random(7)
        for _ in range(200):
            lists = {
                part: [(chance.randrange(20), chance.random()) for _ in range(40)]
                for part in ("used", "whole")
            }
            every = [Next(h, part, r) for part, of_part in lists.items() for h, r in of_part]  # type: ignore[arg-type]
            taken: list[int] = []
            few = FEW + chance.randrange(5)
            while True:
                left = [row for row in every if row.node_id not in taken]
                read = [row for part in lists for row in [row for row in left if row.part == part][:few]]
                more = in_order(read, cut_off_at(read, few))
                if not more:
                    break
                taken += more
            assert taken == in_order(every, set())

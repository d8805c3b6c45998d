"""What one worker takes from each host, before it reads a message: rules without a server."""

import time
from typing import Any

import pytest

from portclaim.common.rpc.host_exchange import AGENTS, exchange_of_host, host_of_exchange, own_exchange
from portclaim.common.rpc.transport import EXCHANGE
from portclaim.common.trust.arrivals import Arrivals, Bounds
from portclaim.common.trust.refusals import Refusals
from tests.support.configured import configured

H1, H2 = ({"exchange": exchange_of_host(host)} for host in ("h1", "h2"))


def arrivals(rate: float = 1000, at_once: int = 2, most_refused: int = 3) -> tuple[Arrivals, list[str]]:
    cut_off: list[str] = []
    bounds = Bounds(rate, at_once, most_refused)
    return Arrivals("conductor", bounds, cut_off.append, Refusals()), cut_off


def entered(made: Arrivals, delivery: dict[str, Any], count: int, size: int = 10) -> list[bool]:
    return [made.enter(delivery, size) for _ in range(count)]


def test_what_comes_through_no_hosts_exchange_always_enters() -> None:
    made, cut_off = arrivals(rate=1, at_once=1)
    for exchange in (EXCHANGE, AGENTS, "", "amq.topic"):
        assert all(entered(made, {"exchange": exchange}, 50))
    assert all(entered(made, {}, 50))
    assert cut_off == []


def test_a_host_has_so_many_in_hand_and_others_have_theirs() -> None:
    made, _ = arrivals(most_refused=0)
    assert entered(made, H1, 3) == [True, True, False]
    assert entered(made, H2, 2) == [True, True]
    made.leave("h1")
    assert entered(made, H1, 2) == [True, False]


def test_a_long_message_counts_as_several() -> None:
    made, _ = arrivals(rate=1, at_once=100, most_refused=0)  # ten at once
    assert entered(made, H1, 2, size=9 * 64 * 1024) == [True, False]


def test_a_host_is_cut_off_after_so_many_refused_or_broken_ones() -> None:
    made, cut_off = arrivals()
    entered(made, H1, 4)
    assert cut_off == []
    made.leave("h1", is_broken=True)
    assert cut_off == ["h1"]
    assert all(entered(made, H2, 2))


def test_what_a_host_has_sent_before_it_was_cut_off_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    made, cut_off = arrivals()
    assert entered(made, H1, 5) == [True, True, False, False, False]
    made.leave("h1")
    made.leave("h1")
    assert entered(made, H1, 50) == [False] * 50  # nothing of it is in hand
    assert all(entered(made, H2, 2))
    assert cut_off == ["h1"]
    clock += 11  # an operator has readmitted it
    assert entered(made, H1, 4) == [True, True, False, False]
    assert cut_off == ["h1"]
    entered(made, H1, 1)  # or it goes on
    assert cut_off == ["h1", "h1"]


def test_no_host_is_cut_off_if_that_is_turned_off() -> None:
    made, cut_off = arrivals(most_refused=0)
    entered(made, H1, 5000)
    assert cut_off == []


def test_an_agent_uses_the_exchange_of_its_own_user_only() -> None:
    def used(url: str) -> str | None:
        conf = configured(url)
        conf.set_override("host", "h1")
        return own_exchange(conf)

    assert used("rabbit://host-h1:b@127.0.0.1/") == exchange_of_host("h1")
    assert used("rabbit://host-h2:b@127.0.0.1/") is None
    assert used("rabbit://portclaim:b@127.0.0.1/") is None
    assert used("fake://") is None
    assert host_of_exchange(exchange_of_host("h1.example")) == "h1.example"
    assert host_of_exchange(EXCHANGE) is None

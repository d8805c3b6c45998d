"""Rights at the broker, bounds of messages, and what a service warns of: rules without a server."""

import json
import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portclaim.cli import broker
from portclaim.common.rpc import envelope
from portclaim.common.rpc.envelope import BadEnvelope
from portclaim.common.rpc.insecure import warnings
from portclaim.common.trust.broker_rights import Role, rights_of, user_of
from tests.support.configured import configured


class TestBrokerRights:
    """The patterns are RabbitMQ's own: it searches, so each must have both ends."""

    @pytest.mark.parametrize("role", get_args(Role))
    def test_every_pattern_has_both_ends(self, role: Role) -> None:
        rights = rights_of(role, "h1", user_of(role, "h1"))
        patterns = [rights.configure, rights.write, rights.read]
        assert all(re.fullmatch(r"\^.*\$", pattern) for pattern in patterns)

    def test_a_host_reaches_what_is_its_own(self) -> None:
        rights = rights_of("host", "h1.x", "host-h1.x")
        for name in ("compute_agent.h1.x", "reply_host-h1.x/0a"):
            assert re.search(rights.configure, name)
        for name in (
            "compute_agent",
            "compute_agent.h1",
            "compute_agent.h1.x.y",
            "compute_agent.h1yx",
            "reply_host-h1/0a",
            "reply_host-h1.x.y/0a",
            "conductor",
            "portclaim",
            "portclaim.events",
            "amq.default",
        ):
            assert not re.search(rights.configure, name)
        assert not re.search(rights.write, "amq.default")
        assert re.search(rights.write, "portclaim.from.h1.x")
        for exchange in ("portclaim", "portclaim.agents", "portclaim.from.h1", "portclaim.from.h1yx"):
            assert not re.search(rights.write, exchange)
        topic = rights.topics["portclaim.from.h1.x"]
        assert re.search(topic.write, "conductor")
        for key in ("conductor.one", "scheduler", "scheduler_operators", "compute_agent.h1.x", "#"):
            assert not re.search(topic.write, key)
        topic = rights.topics["portclaim"]
        assert not re.search(topic.write, "conductor")
        for key in ("conductor", "#", "*", "compute_agent.*", "compute_agent.h2"):
            assert not re.search(topic.read, key)

    def test_a_claimer_is_no_operator(self) -> None:
        topic = rights_of("claimer", "web", "claimer-web").topics["portclaim"]
        assert re.search(topic.write, "scheduler")
        assert not re.search(topic.write, "scheduler_operators")

    def test_the_command_knows_all_roles(self) -> None:
        assert get_args(Role) == broker.ROLES


class TestEnvelopes:
    @pytest.mark.parametrize("depth", [1, envelope.MOST_DEPTH - 2])
    def test_what_is_not_too_deep_is_read(self, depth: int) -> None:
        body: Any = "[" * 1000 + '"\\{'
        for _ in range(depth):
            body = [body]
        message = json.dumps({"method": "ping", "args": body})
        assert envelope.read(json.dumps({"oslo.version": "2.0", "oslo.message": message}))["args"] == body

    @pytest.mark.parametrize("depth", [envelope.MOST_DEPTH + 1, 1_000_000])
    def test_what_is_too_deep_is_not_parsed(self, depth: int) -> None:
        message = '{"args": ' + "[" * depth + "]" * depth + "}"
        with pytest.raises(BadEnvelope, match="deep"):
            envelope.read(json.dumps({"oslo.version": "2.0", "oslo.message": message}))

    def test_what_is_too_long_is_not_parsed(self) -> None:
        with pytest.raises(BadEnvelope, match="bytes"):
            envelope.read(b" " * (envelope.MOST_BYTES + 1))

    @given(st.binary() | st.text())
    def test_anything_is_read_or_refused(self, body: bytes | str) -> None:
        with pytest.raises(BadEnvelope):
            envelope.read(body)


def test_an_operator_hears_of_plain_text_and_of_unchecked_signatures() -> None:
    assert warnings(configured("rabbit://a:b@127.0.0.1/"), "conductor") == []
    assert warnings(configured("rabbit://a:b@bus.example/?ssl=true"), "conductor") == []
    [line] = warnings(configured("rabbit://a:b@bus.example/"), "scheduler")
    assert "bus.example is not encrypted" in line
    assert "a:b" not in line
    [line] = warnings(configured(trust={"require": "off"}), "conductor")
    assert "require = off" in line

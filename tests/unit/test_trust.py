"""Signatures, the gates that check them, and the rights at the broker: rules without a server."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portclaim.common.errors import InvalidConfiguration, NotAuthorized
from portclaim.common.rpc.trust_messages import ServicesKeys
from portclaim.common.trust import keys
from portclaim.common.trust.caller import caller
from portclaim.common.trust.gate import HostGate, MethodGate, OpenGate, Policy, ServiceGate
from portclaim.common.trust.keys import PrivateKey, PublicKey
from portclaim.common.trust.rates import HostRates
from portclaim.common.trust.refusals import Refusals
from portclaim.common.trust.seen import MOST, SeenNumbers
from portclaim.common.trust.services_key import ServicesKey, learned
from portclaim.common.trust.signature import (
    CONTEXT,
    SERVICES,
    Head,
    KeySigner,
    Numbers,
    canonical,
    of_host,
    signed_bytes,
)
from tests.support.configured import configured

KEY, OTHER = PrivateKey.make(), PrivateKey.make()
BODY = {"host": "h1", "digest": "d", "devices": [{"address": "0000:01:00.0"}], "removed": []}


class Keys:
    """The keys of hosts: h1 has one, h2 had one."""

    def is_enrolled(self, host: str) -> bool:
        return host in {"h1", "h2"}

    def find(self, host: str, key_id: str) -> PublicKey | None:
        return PublicKey(KEY.public) if (host, key_id) == ("h1", KEY.id) else None


def gate_of(require: str = "enrolled", rate: float = 1000, threads: int = 8) -> tuple[HostGate, Refusals]:
    refusals = Refusals()
    policy = Policy(require, 120, rate, threads, ("ping",), ("holdings",))
    return HostGate("conductor", Keys(), policy, refusals), refusals


def enter(gate: Any, context: Mapping[str, Any], method: str, body: Mapping[str, Any]) -> None:
    with gate.admitted(context, method, body):
        pass


def signed(host: str = "h1", key: PrivateKey = KEY, to: str = "conductor", **more: Any) -> dict[str, Any]:
    return KeySigner(of_host(host), key).sign(to, "report", BODY | more)


def altered(**fields: Any) -> dict[str, Any]:
    """A good signature with other fields."""
    return {CONTEXT: signed()[CONTEXT] | fields}


# Signed when the test runs: a signature grows stale.
OTHERS: dict[str, tuple[Callable[[], dict[str, Any]], dict[str, Any], str]] = {
    "unsigned": (dict, BODY, "unsigned"),
    "unsigned, of another host": (dict, BODY | {"host": "h2"}, "unsigned"),
    "of another host": (signed, BODY | {"host": "h2"}, "foreign-host"),
    "another value": (signed, BODY | {"digest": "e"}, "altered"),
    "one field more": (signed, BODY | {"more": None}, "altered"),
    "to another service": (lambda: signed(to="scheduler"), BODY, "altered"),
    "another key": (lambda: signed(key=OTHER), BODY, "unknown-key"),
    "a host without a key": (lambda: signed(host="h2"), BODY | {"host": "h2"}, "unknown-key"),
    "a service": (lambda: KeySigner(SERVICES, KEY).sign("conductor", "report", BODY), BODY, "not-allowed"),
    "no object": (lambda: {CONTEXT: "text"}, BODY, "malformed-signature"),
    "a number that is none": (lambda: altered(number=True), BODY, "malformed-signature"),
    "a value that is none": (lambda: altered(value="?"), BODY, "malformed-signature"),
    "too old": (lambda: altered(number=10**15), BODY, "stale"),
    "too early": (lambda: altered(number=10**16), BODY, "stale"),
    "an empty value": (lambda: altered(key=KEY.id, value=""), BODY, "altered"),
}


def reason(act: Callable[[], object]) -> str:
    with pytest.raises(NotAuthorized) as refused:
        act()
    return str(refused.value.kwargs["reason"])


class TestHostGate:
    def test_a_signed_message_is_admitted_with_its_sender(self) -> None:
        gate, refusals = gate_of()
        context = signed()
        with gate.admitted(context, "report", BODY):
            assert caller() == ("h1", context[CONTEXT]["number"])
        assert caller() == (None, None)
        assert refusals.counts() == {}

    @pytest.mark.parametrize("what", OTHERS)
    def test_any_other_is_refused_and_counted(self, what: str) -> None:
        gate, refusals = gate_of()
        make, body, why = OTHERS[what]
        assert reason(lambda: enter(gate, make(), "report", body)) == why
        assert refusals.counts() == {("conductor", why): 1}

    def test_another_method_is_another_message(self) -> None:
        gate, _ = gate_of()
        assert reason(lambda: enter(gate, signed(), "holdings", BODY)) == "altered"

    def test_a_message_is_taken_once(self) -> None:
        gate, _ = gate_of()
        context = signed()
        enter(gate, context, "report", BODY)
        assert reason(lambda: enter(gate, context, "report", BODY)) == "replayed"

    def test_a_forged_message_does_not_use_up_the_number_of_a_real_one(self) -> None:
        gate, _ = gate_of()
        context = signed()
        forged = {CONTEXT: context[CONTEXT] | {"value": signed()[CONTEXT]["value"]}}
        assert reason(lambda: enter(gate, forged, "report", BODY)) == "altered"
        enter(gate, context, "report", BODY)

    def test_hosts_without_a_key_need_not_sign_unless_all_must(self) -> None:
        unknown = BODY | {"host": "h3"}
        enter(gate_of()[0], {}, "report", unknown)
        assert reason(lambda: enter(gate_of("all")[0], {}, "report", unknown)) == "unsigned"
        enter(gate_of("off")[0], {}, "report", BODY)
        enter(gate_of("all")[0], {}, "ping", {})

    def test_a_host_that_sends_too_much_is_refused(self) -> None:
        gate, _ = gate_of(rate=1)
        for _ in range(10):
            enter(gate, signed(), "report", BODY)
        assert reason(lambda: enter(gate, signed(), "report", BODY)) == "too-many"

    def test_what_costs_something_without_a_signature_has_a_rate(self) -> None:
        policy = Policy("enrolled", 120, 1, 8, ("ping", "enrol"), (), ("enrol",))
        gate = HostGate("conductor", Keys(), policy, Refusals())
        for _ in range(10):
            enter(gate, {}, "enrol", BODY)
        assert reason(lambda: enter(gate, {}, "enrol", BODY)) == "too-many"
        enter(gate, {}, "ping", {})

    def test_a_host_never_has_all_threads(self) -> None:
        gate, _ = gate_of(threads=4)
        with gate.admitted(signed(), "report", BODY), gate.admitted(signed(), "report", BODY):
            assert reason(lambda: enter(gate, signed(), "report", BODY)) == "too-many"
        enter(gate, signed(), "report", BODY)


class TestOtherGates:
    def test_a_hosts_key_opens_no_other_service(self) -> None:
        assert reason(lambda: enter(OpenGate("scheduler"), signed(), "report", BODY)) == "not-allowed"
        enter(OpenGate("scheduler"), {}, "report", BODY)

    def test_operators_methods_have_a_queue_of_their_own(self) -> None:
        callers = MethodGate("scheduler", "call the other", refused={"drain"})
        operators = MethodGate("operators", "call the other", only={"drain"})
        enter(callers, {}, "claim", {})
        enter(operators, {}, "drain", {})
        enter(operators, {}, "ping", {})
        assert reason(lambda: enter(callers, {}, "drain", {})) == "not-allowed"
        assert reason(lambda: enter(operators, {}, "claim", {})) == "not-allowed"

    def test_an_agent_takes_orders_of_services_for_its_host_only(self) -> None:
        class Services:
            def find(self, key_id: str) -> PublicKey | None:
                return PublicKey(KEY.public) if key_id == KEY.id else None

        gate = ServiceGate("compute_agent.h1", Services(), max_age=120, open_to_all=("ping",))
        services = KeySigner(SERVICES, KEY)
        enter(gate, services.sign("compute_agent.h1", "attach", BODY), "attach", BODY)
        enter(gate, {}, "ping", {})
        for context, why in (
            ({}, "unsigned"),
            (services.sign("compute_agent.h2", "attach", BODY), "altered"),
            (KeySigner(SERVICES, OTHER).sign("compute_agent.h1", "attach", BODY), "unknown-key"),
            (signed(to="compute_agent.h1"), "not-allowed"),
        ):
            assert reason(lambda context=context: enter(gate, context, "attach", BODY)) == why


class TestSignatures:
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=20,
        )
    )
    def test_the_canonical_form_survives_the_way_over_the_bus(self, value: Any) -> None:
        assert canonical(json.loads(json.dumps(value))) == canonical(value)

    def test_the_form_is_as_it_is_documented(self) -> None:
        assert signed_bytes(
            Head("host:h1", "ab", 7), "conductor", "ping", {"b": "\u00e9", "a": [1, None]}
        ) == (
            rb'{"body":{"a":[1,null],"b":"\u00e9"},"key":"ab","method":"ping","number":7,"portclaim":1,'
            rb'"signer":"host:h1","to":"conductor"}'
        )

    def test_numbers_rise_even_if_the_clock_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        numbers = Numbers()
        first = numbers.next()
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        assert numbers.next() == first + 1
        numbers.exceed(first + 100)
        assert numbers.next() == first + 101

    def test_numbers_may_come_in_another_order(self) -> None:
        seen = SeenNumbers()
        assert all(seen.is_new("h1", number) for number in (5, 3, 4))
        assert not seen.is_new("h1", 3)
        assert seen.is_new("h2", 3)
        assert all(seen.is_new("h1", number) for number in range(10, 10 + MOST))
        assert not seen.is_new("h1", 4)

    def test_a_bucket_fills_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        rates = HostRates(2)
        assert [rates.may_send("h1") for _ in range(21)] == [True] * 20 + [False]
        assert rates.may_send("h2")
        now[0] = 1.0
        assert [rates.may_send("h1") for _ in range(3)] == [True, True, False]


class TestKeys:
    def test_a_file_that_everybody_can_open_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        keys.write(file, KEY)
        assert file.stat().st_mode & 0o777 == 0o600
        assert [key.id for key in keys.read(file)] == [KEY.id]
        file.chmod(0o644)
        with pytest.raises(InvalidConfiguration, match="chmod"):
            keys.read(file)

    def test_a_file_may_have_several_keys(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        keys.write_privately(file, KEY.pem() + OTHER.pem())
        assert [key.id for key in keys.read(file)] == [KEY.id, OTHER.id]

    @pytest.mark.parametrize("text", [b"", b"-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----\n"])
    def test_other_files_are_refused(self, tmp_path: Path, text: bytes) -> None:
        file = tmp_path / "key.pem"
        keys.write_privately(file, text)
        with pytest.raises(InvalidConfiguration, match=str(file)):
            keys.read(file)
        with pytest.raises(InvalidConfiguration, match="cannot be read"):
            keys.read(tmp_path / "none")

    def test_an_agent_learns_keys_from_one_that_it_knows(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        keys.write_privately(file, KEY.pem() + OTHER.pem())
        answer = ServicesKey(configured(trust={"services_key_file": file})).announce("00" * 32)
        assert learned(answer, "00" * 32, [OTHER.public.hex()]) == [KEY.public.hex(), OTHER.public.hex()]
        assert learned(answer, "11" * 32, [OTHER.public.hex()]) is None  # of another question
        assert learned(answer, "00" * 32, [PrivateKey.make().public.hex()]) is None
        forged = ServicesKeys(services_keys=["22" * 32], signatures=answer.signatures)
        assert learned(forged, "00" * 32, [KEY.public.hex()]) is None

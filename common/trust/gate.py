"""The gate of a service: it lets a message in, or refuses it with the reason."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from portclaim.common.errors import NotAuthorized
from portclaim.common.trust import signature
from portclaim.common.trust.caller import Caller, sent_by
from portclaim.common.trust.keys import PublicKey
from portclaim.common.trust.rates import HostRates
from portclaim.common.trust.refusals import REFUSALS, Reason, Refusals
from portclaim.common.trust.seen import SeenNumbers
from portclaim.common.trust.signature import SERVICES, Signature

_MICROSECONDS = 1_000_000
# An agent calls from one thread. A second call is one that it has given up and made again.
_CALLS_AT_ONCE = 2
_TOO_MANY = "the host sends more than [trust] host_rate allows"
_ALL_TOGETHER = " "  # no host has this name


class Gate(Protocol):
    """Decides about each message before a method of the service gets it."""

    def admitted(self, context: Mapping[str, Any], method: str, body: Mapping[str, Any]) -> Any:
        """A context manager: in its block, the message is handled. Raises :class:`NotAuthorized`."""


class OpenGate:
    """Lets in whatever no host has signed: a host's key opens nothing here."""

    def __init__(self, topic: str, refusals: Refusals = REFUSALS) -> None:
        self._topic = topic
        self._refusals = refusals

    @contextmanager
    def admitted(self, context: Mapping[str, Any], method: str, _body: Mapping[str, Any]) -> Iterator[None]:
        refuse = _Refusal(self._refusals, self._topic, method)
        signed = refuse.read(context)
        if signed is not None and signed.host is not None:
            raise refuse("not-allowed", signed.signer, "a compute agent does not call this service")
        yield


class MethodGate:
    """Lets in some methods of a service, because others have a queue of their own.

    ``refused``: methods that this queue does not serve; with ``only``, all but these. ``instead`` says where
    they belong.
    """

    def __init__(
        self,
        topic: str,
        instead: str,
        *,
        refused: Collection[str] = (),
        only: Collection[str] | None = None,
        refusals: Refusals = REFUSALS,
    ) -> None:
        self._inner = OpenGate(topic, refusals)
        self._topic = topic
        self._instead = instead
        self._refused = frozenset(refused)
        self._only = None if only is None else frozenset({*only, "ping", "about"})
        self._refusals = refusals

    @contextmanager
    def admitted(self, context: Mapping[str, Any], method: str, body: Mapping[str, Any]) -> Iterator[None]:
        """In the block, the message is handled. Raises :class:`NotAuthorized`."""
        if method in self._refused or (self._only is not None and method not in self._only):
            raise _Refusal(self._refusals, self._topic, method)(
                "not-allowed", "an unknown sender", self._instead
            )
        with self._inner.admitted(context, method, body):
            yield


class KeysOfHosts(Protocol):
    """The hosts' public keys."""

    def is_enrolled(self, host: str) -> bool:
        """Whether the host has a key, or had one that was revoked."""

    def find(self, host: str, key_id: str) -> PublicKey | None:
        """The host's key of this id, if it is valid."""


class Policy(NamedTuple):
    """What hosts may do.

    ``require``, ``max_age`` and ``rate`` are options of ``[trust]``. ``threads`` of a worker handle messages:
    one host never has all of them. ``open_to_all``: methods that need no signature, because they tell nothing
    or prove their sender themselves. ``work``: those of them that cost a look into the database or a
    signature; all senders together have the rate of one host for them. ``calls``: methods whose answer an
    agent awaits, so that it makes one call at a time.
    """

    require: str
    max_age: float
    rate: float
    threads: int
    open_to_all: Collection[str]
    calls: Collection[str]
    work: Collection[str] = ()


class HostGate:
    """The conductor's: a host speaks for itself only."""

    def __init__(self, topic: str, keys: KeysOfHosts, policy: Policy, refusals: Refusals = REFUSALS) -> None:
        self._topic = topic
        self._keys = keys
        self._policy = policy
        self._seen = SeenNumbers()
        self._rates = HostRates(policy.rate)
        self._at_once = max(policy.threads - 2, _CALLS_AT_ONCE)
        self._refusals = refusals

    @contextmanager
    def admitted(self, context: Mapping[str, Any], method: str, body: Mapping[str, Any]) -> Iterator[None]:
        """In the block, the message is handled. Raises :class:`NotAuthorized`."""
        refuse = _Refusal(self._refusals, self._topic, method)
        if self._policy.require == "off" or method in self._policy.open_to_all:
            if method in self._policy.work and not self._rates.may_send(_ALL_TOGETHER):
                raise refuse("too-many", "unknown senders", "wait a minute: too many ask for this at once")
            yield
            return
        host = body.get("host")
        signed = refuse.read(context)
        if signed is None:
            if isinstance(host, str) and (self._policy.require == "all" or self._keys.is_enrolled(host)):
                raise refuse(
                    "unsigned",
                    host,
                    "the host is to sign what it sends: enrol it, see `portclaim host enroll`",
                )
            yield
            return
        self._check(signed, host, body, refuse)
        assert signed.host is not None  # noqa: S101 - _check has seen to it
        if not self._rates.may_send(signed.host):
            raise refuse("too-many", signed.signer, _TOO_MANY)
        kind = (signed.host, method in self._policy.calls)
        if not self._rates.begin(kind, _CALLS_AT_ONCE if kind[1] else self._at_once):
            raise refuse("too-many", signed.signer, "the host's last messages are still being handled")
        try:
            with sent_by(Caller(signed.host, signed.number)):
                yield
        finally:
            self._rates.end(kind)

    def _check(self, signed: Signature, host: object, body: Mapping[str, Any], refuse: _Refusal) -> None:
        if signed.host is None:
            raise refuse("not-allowed", signed.signer, "only compute agents call the conductor")
        if signed.host != host:
            raise refuse("foreign-host", signed.signer, "a host speaks for itself only")
        # Only messages that were verified use up the rate: nobody can use up that of another host. And what
        # is over it need not be verified.
        if self._rates.is_used_up(signed.host):
            raise refuse("too-many", signed.signer, _TOO_MANY)
        key = self._keys.find(signed.host, signed.key_id)
        if key is None:
            raise refuse(
                "unknown-key",
                signed.signer,
                "its key is not registered, or was revoked: enrol the host, see `portclaim host enroll`",
            )
        refuse.check(signed, key, self._topic, body, self._policy.max_age)
        if not self._seen.is_new(signed.host, signed.number):
            raise refuse("replayed", signed.signer, "the message has come before, or after many later ones")


class KeysOfServices(Protocol):
    """The public keys of the services, as an agent knows them."""

    def find(self, key_id: str) -> PublicKey | None:
        """The key of this id."""


class ServiceGate:
    """A compute agent's: only services give it steps. ``address`` is ``compute_agent.<host>``."""

    def __init__(
        self,
        address: str,
        keys: KeysOfServices,
        *,
        max_age: float,
        open_to_all: Collection[str],
        refusals: Refusals = REFUSALS,
    ) -> None:
        self._address = address
        self._keys = keys
        self._max_age = max_age
        self._open = frozenset(open_to_all)
        self._seen = SeenNumbers()
        self._refusals = refusals

    @contextmanager
    def admitted(self, context: Mapping[str, Any], method: str, body: Mapping[str, Any]) -> Iterator[None]:
        refuse = _Refusal(self._refusals, self._address.partition(".")[0], method)
        if method in self._open:
            yield
            return
        signed = refuse.read(context)
        if signed is None:
            raise refuse(
                "unsigned", "an unknown sender", "set [trust] services_key_file where the step was sent"
            )
        if signed.signer != SERVICES:
            raise refuse("not-allowed", signed.signer, "only services give steps to an agent")
        key = self._keys.find(signed.key_id)
        if key is None:
            raise refuse(
                "unknown-key", signed.signer, f"no key {signed.key_id} of the services is known here"
            )
        refuse.check(signed, key, self._address, body, self._max_age)
        # Several services send at the same time, each with numbers of its own. A step that comes again is
        # harmless: it is done once.
        yield


class _Refusal:
    """Counts and logs a refusal, and makes its error."""

    def __init__(self, refusals: Refusals, topic: str, method: str) -> None:
        self._refusals = refusals
        self._topic = topic
        self._method = method

    def __call__(self, reason: Reason, who: str, detail: str) -> NotAuthorized:
        self._refusals.note(self._topic, reason, who, f"{self._method}: {detail}")
        now = time.time_ns() // 1000
        return NotAuthorized(f"{self._method} is refused ({reason}): {detail}", reason=reason, number=now)

    def read(self, context: Mapping[str, Any]) -> Signature | None:
        try:
            return signature.read(context)
        except ValueError as error:
            raise self("malformed-signature", "an unknown sender", str(error)) from None

    def check(
        self, signed: Signature, key: PublicKey, to: str, body: Mapping[str, Any], max_age: float
    ) -> None:
        """Refuse a message that is too old, or that the key has not signed as it is."""
        age = time.time() - signed.number / _MICROSECONDS
        if abs(age) > max_age:
            raise self(
                "stale",
                signed.signer,
                f"it was signed {abs(age):.0f} s {'ago' if age > 0 else 'ahead of time'}, [trust] max_age is "
                f"{max_age:.0f} s: if messages do not wait so long, set the clocks of the host and of the "
                "services",
            )
        try:
            content = signature.signed_bytes(signed.head, to, self._method, body)
        except (ValueError, TypeError, RecursionError):
            content = b""
        if not key.has_signed(signed.value, content):
            raise self("altered", signed.signer, "the signature is not of this message and this key")

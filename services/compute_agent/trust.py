"""The agent's part in trust: it enrols its host, signs what it sends, and checks who sends it steps."""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oslo_config import cfg

from portclaim.common.errors import NotAuthorized, PortclaimError, ServiceUnavailable
from portclaim.common.rpc.compute_agent import UNSIGNED
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.trust_messages import Enrolment, Rotation
from portclaim.common.trust import enrolment, services_key
from portclaim.common.trust.gate import OpenGate, ServiceGate
from portclaim.common.trust.keys import PublicKey
from portclaim.common.trust.signature import KeySigner, Numbers, of_host
from portclaim.services.compute_agent.host_keys import KeyStore

LOG = logging.getLogger(__name__)

_DAY = 86_400.0
_PAUSE = 60.0  # seconds from a failure to the next attempt
_LEARN_PAUSE = 10.0  # seconds between two questions for the services' keys
_MICROSECONDS = 1_000_000


class HostTrust:
    """The trust of one host. Threads may share it.

    ``wake`` has :meth:`ready` called soon. Raises :class:`InvalidConfiguration` if the host's key cannot be
    read.
    """

    def __init__(self, conf: cfg.ConfigOpts, place: Path, wake: Callable[[], None] = lambda: None) -> None:
        self._host: str = conf.host
        self._options = conf.compute_agent
        self._is_checking = conf.trust.require != "off"
        self._max_age: float = conf.trust.max_age
        self._store = KeyStore(place)
        self._numbers = Numbers()
        self._wake = wake
        self._not_before = 0.0
        self._learn_at = 0.0
        self._learn_again_at = 0.0
        self._must_learn = True
        self._signer: KeySigner | None = None
        self._services: dict[str, PublicKey] = {}
        self._take_over()

    @property
    def is_enrolled(self) -> bool:
        """Whether the agent signs what it sends."""
        return self._signer is not None

    def sign(self, to: str, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The signature of a message; empty before the host is enrolled."""
        return self._signer.sign(to, method, body) if self._signer else {}

    def find(self, key_id: str) -> PublicKey | None:
        """The services' key of this id. If it is not known, the conductor is asked soon."""
        key = self._services.get(key_id)
        if key is None:
            self._must_learn = True
            self._wake()
        return key

    def gate(self, topic: str) -> AgentGate:
        """What lets steps in."""
        checking = ServiceGate(f"{topic}.{self._host}", self, max_age=self._max_age, open_to_all=UNSIGNED)
        return AgentGate(self, checking if self._is_checking else None, OpenGate(topic))

    def ready(self, conductor: ConductorClient) -> None:
        """Enrol the host, replace its key, or learn the services' keys, if it is time for it.

        Raises :class:`ServiceUnavailable`. Any other failure is logged and tried again later.
        """
        if time.monotonic() < self._not_before:
            return
        try:
            token = self._new_token()
            if token is not None:
                self._enrol(conductor, token)
            if self.is_enrolled and self._is_time_to_learn():
                self._learn(conductor)
            if self._is_old():
                self._rotate(conductor)
        except ServiceUnavailable:
            raise
        except (PortclaimError, OSError) as error:
            self._not_before = time.monotonic() + _PAUSE
            LOG.error("the host's key is as it was, and this is tried again: %s", error)  # noqa: TRY400

    def heed(self, error: NotAuthorized) -> None:
        """Go on above the number of the host's last message, which the refusal names.

        The clock was set back while the agent did not run. A number far ahead of the clock is not believed.
        """
        last = error.kwargs.get("last_number")
        if isinstance(last, int) and last / _MICROSECONDS < time.time() + self._max_age:
            self._numbers.exceed(last)

    def _take_over(self) -> None:
        state, key = self._store.state, self._store.key
        if state is not None and key is not None:
            self._signer = KeySigner(of_host(self._host), key, self._numbers)
            known = (PublicKey(bytes.fromhex(each)) for each in state.services_keys)
            self._services = {each.id: each for each in known}

    def _new_token(self) -> str | None:
        """The token in the file, unless it was used already, or there is none."""
        file = self._options.enrolment_token_file
        if not file:
            return None
        try:
            token = Path(file).read_text().strip()
        except FileNotFoundError:
            return None
        used = self._store.state.token if self._store.state else None
        return token if token and _fingerprint(token) != used else None

    def _enrol(self, conductor: ConductorClient, token: str) -> None:
        key, digest = self._store.following(), enrolment.digest(token)
        public = key.public.hex()
        answer = conductor.enrol(
            Enrolment(
                host=self._host,
                public_key=public,
                proof=enrolment.proof_of_host(digest, self._host, public),
            )
        )
        expected = enrolment.proof_of_services(digest, self._host, public, answer.services_keys)
        if not enrolment.is_equal(answer.proof, expected):
            raise NotAuthorized(
                "the answer to the enrolment does not prove that it comes from a conductor: somebody else "
                "may write to the message bus"
            )
        self._store.take(key, _fingerprint(token), answer.services_keys)
        self._take_over()
        self._must_learn = False
        LOG.info("host %s is enrolled with the key %s", self._host, key.id)

    def _is_old(self) -> bool:
        state, days = self._store.state, self._options.rotate_key_after
        if state is None:
            return False
        return self._store.has_following() or (days > 0 and time.time() > state.made_at + days * _DAY)

    def _rotate(self, conductor: ConductorClient) -> None:
        assert self._store.state is not None  # noqa: S101 - _is_old has seen to it
        key = self._store.following()
        wanted = Rotation(
            host=self._host,
            public_key=key.public.hex(),
            proof=enrolment.rotation_proof(key, self._host),
        )
        try:
            conductor.rotate_key(wanted)
        except NotAuthorized as error:
            if error.kwargs.get("reason") != "unknown-key":
                raise
            # The key was registered before, and the answer was lost: the old one has ended meanwhile.
            self._signer = KeySigner(of_host(self._host), key, self._numbers)
            conductor.rotate_key(wanted)
        self._store.take(key, self._store.state.token, list(self._store.state.services_keys))
        self._take_over()
        LOG.info("host %s has the new key %s", self._host, key.id)

    def _is_time_to_learn(self) -> bool:
        """A host that gets no step must learn a new key, and forget a replaced one, as well."""
        now = time.monotonic()
        return now >= self._learn_at and (self._must_learn or now >= self._learn_again_at)

    def _learn(self, conductor: ConductorClient) -> None:
        now, interval = time.monotonic(), self._options.services_keys_interval
        self._must_learn, self._learn_at = False, now + min(_LEARN_PAUSE, interval)
        # Ten thousand agents that started together do not ask together.
        self._learn_again_at = now + interval * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        nonce = secrets.token_hex(32)
        known = [key.bytes.hex() for key in self._services.values()]
        found = services_key.learned(conductor.services_keys(nonce), nonce, known)
        if found is None:
            LOG.error(
                "no key of the services that is known has signed the list of their keys: it is ignored. If "
                "the host was off while the key was replaced, enrol it again: portclaim host enroll %s",
                self._host,
            )
        elif found != list(self._store.state.services_keys if self._store.state else ()):
            self._store.learn(found)
            self._take_over()
            LOG.info("the services' keys are %s", ", ".join(self._services))


class AgentGate:
    """Lets in any step before the host is enrolled, and only signed ones after that."""

    def __init__(self, trust: HostTrust, checking: ServiceGate | None, is_open: OpenGate) -> None:
        self._trust = trust
        self._checking = checking
        self._open = is_open

    @contextmanager
    def admitted(self, context: Mapping[str, Any], method: str, body: Mapping[str, Any]) -> Iterator[None]:
        """In the block, the message is handled. Raises :class:`NotAuthorized`."""
        is_checked = self._checking is not None and self._trust.is_enrolled
        gate = self._checking if is_checked and self._checking is not None else self._open
        with gate.admitted(context, method, body):
            yield


def _fingerprint(token: str) -> str:
    """What the agent keeps of a token that it has used. It proves nothing to a conductor."""
    return hashlib.sha256(b"used" + token.encode()).hexdigest()

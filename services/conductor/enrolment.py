"""The conductor's part in enrolling hosts: it registers their keys, and announces those of the services."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from portclaim.common.db import host_keys
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import InvalidRequest, NotAuthorized
from portclaim.common.rpc.trust_messages import Enrolled, Enrolment, KeysRequest, Rotation, ServicesKeys
from portclaim.common.trust import enrolment
from portclaim.common.trust.keys import PublicKey
from portclaim.common.trust.refusals import REFUSALS
from portclaim.common.trust.services_key import ServicesKey

LOG = logging.getLogger(__name__)


class Registrar:
    """Registers keys. Threads may share it."""

    def __init__(self, engine: sa.Engine, services_key: ServicesKey | None) -> None:
        self._engine = engine
        self._services_key = services_key

    def enrol(self, wanted: Enrolment) -> Enrolled:
        """Register a host's first key. Raises :class:`NotAuthorized`, and :class:`InvalidRequest`."""
        known = self._services_key.public if self._services_key else []
        if not known:
            raise InvalidRequest(
                "this conductor has no [trust] services_key_file, so no host can be enrolled: make a key "
                "with `portclaim trust new-key`, and give it to all conductors and schedulers"
            )
        _check_key(wanted.public_key)
        try:
            digest = in_transaction(
                self._engine, lambda c: host_keys.enrol(c, wanted.host, wanted.public_key, wanted.proof)
            )
        except NotAuthorized as error:
            REFUSALS.note("conductor", error.kwargs["reason"], wanted.host, error.message)
            raise
        LOG.info("host %s is enrolled", wanted.host)
        proof = enrolment.proof_of_services(digest, wanted.host, wanted.public_key, known)
        return Enrolled(services_keys=known, proof=proof)

    def rotate(self, wanted: Rotation) -> None:
        """Register a host's next key. Raises :class:`NotAuthorized`, and :class:`InvalidRequest`."""
        new = _check_key(wanted.public_key)
        if not enrolment.has_proved(new, wanted.host, wanted.proof):
            raise InvalidRequest("the new key has not signed its registration")
        in_transaction(self._engine, lambda c: host_keys.rotate(c, wanted.host, new.bytes))
        LOG.info("host %s has a new key, %s", wanted.host, new.id)

    def services_keys(self, request: KeysRequest) -> ServicesKeys:
        """The services' public keys, signed."""
        if self._services_key is None:
            raise InvalidRequest("the services have no key")
        return self._services_key.announce(request.nonce)


def _check_key(public_key: str) -> PublicKey:
    try:
        return PublicKey(bytes.fromhex(public_key))
    except ValueError:
        raise InvalidRequest("public_key is no Ed25519 key") from None

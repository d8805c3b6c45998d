"""The services' own keys, from ``[trust] services_key_file``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oslo_config import cfg

from portclaim.common.rpc.trust_messages import KeySignature, ServicesKeys
from portclaim.common.trust import enrolment, keys
from portclaim.common.trust.signature import SERVICES, KeySigner, Signer, Unsigned


class ServicesKey:
    """The keys of ``[trust] services_key_file``; it has none if the option is not set.

    Raises :class:`InvalidConfiguration` if the file has no key or can be read by everybody.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        file: str | None = conf.trust.services_key_file
        self._keys = [] if not file else keys.read(Path(file))

    @property
    def public(self) -> list[str]:
        """The public keys in hexadecimal digits, the one that signs first."""
        return [key.public.hex() for key in self._keys]

    def signer(self) -> Signer:
        """What signs messages to agents."""
        return KeySigner(SERVICES, self._keys[0]) if self._keys else Unsigned()

    def announce(self, nonce: str) -> ServicesKeys:
        """The public keys, signed with each of them: an agent knows at least one, and learns the others."""
        message = enrolment.announcement(nonce, self.public)
        return ServicesKeys(
            services_keys=self.public,
            signatures=[KeySignature(key_id=key.id, value=key.sign(message).hex()) for key in self._keys],
        )


def learned(answer: ServicesKeys, nonce: str, known: Sequence[str]) -> list[str] | None:
    """The keys that an answer announces. None: no key that is known has signed it."""
    by_id = {key.id: key for key in (keys.PublicKey(bytes.fromhex(each)) for each in known)}
    message = enrolment.announcement(nonce, answer.services_keys)
    for signature in answer.signatures:
        key = by_id.get(signature.key_id)
        if key is not None and key.has_signed(bytes.fromhex(signature.value), message):
            return list(answer.services_keys)
    return None

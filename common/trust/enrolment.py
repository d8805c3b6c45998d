"""Proofs with which an agent and a conductor show each other that they know the same token.

The token crosses the bus in no message. Who reads the bus, or the database, does not learn it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from portclaim.common.trust.keys import PrivateKey, PublicKey
from portclaim.common.trust.signature import canonical

PREFIX = "portclaim_host_"
"""What every token begins with, so that a search for leaked secrets finds it."""


def new_token() -> str:
    """A token with 256 random bits, so that its hash is enough to keep it secret."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """What is kept of a token, and the key of the proofs."""
    return hashlib.sha256(token.encode()).digest()


def proof_of_host(digest: bytes, host: str, public_key: str) -> str:
    """The agent's proof, in hexadecimal digits."""
    return _hmac(digest, ["portclaim-enrolment", host, public_key])


def proof_of_services(digest: bytes, host: str, public_key: str, services_keys: Sequence[str]) -> str:
    """The conductor's proof, in hexadecimal digits."""
    return _hmac(digest, ["portclaim-enrolled", host, public_key, *services_keys])


def rotation_message(host: str, public_key: str) -> bytes:
    """What a new key signs, so that nobody registers a key that is not its own."""
    return canonical(["portclaim-rotation", host, public_key])


def announcement(nonce: str, services_keys: Sequence[str]) -> bytes:
    """What the services' keys sign when an agent asks for them."""
    return canonical(["portclaim-services-keys", nonce, *services_keys])


def is_equal(one: str, other: str) -> bool:
    """Compare proofs in a time that tells nothing."""
    return hmac.compare_digest(one, other)


def has_proved(new: PublicKey, host: str, proof: str) -> bool:
    """Whether the new key has signed its rotation."""
    return new.has_signed(bytes.fromhex(proof), rotation_message(host, new.bytes.hex()))


def rotation_proof(new: PrivateKey, host: str) -> str:
    """The new key's signature of its rotation, in hexadecimal digits."""
    return new.sign(rotation_message(host, new.public.hex())).hex()


def _hmac(digest: bytes, parts: Sequence[str]) -> str:
    return hmac.new(digest, canonical(list(parts)), hashlib.sha256).hexdigest()

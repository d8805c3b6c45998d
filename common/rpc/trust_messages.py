"""Messages with which an agent registers its key, and learns those of the services."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from portclaim.common.rpc.fields import Host, Message

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Enrolment(Message):
    """A host's public key, with the proof that its agent has the token of `portclaim host enroll`."""

    host: Host = Field(description="The host.")
    public_key: Hex32 = Field(description="Its Ed25519 public key, 32 bytes in hexadecimal digits.")
    proof: Hex32 = Field(
        description="HMAC-SHA256 of the other fields; the key is the SHA-256 of the token. The token itself "
        "is in no message."
    )


class Enrolled(Message):
    """The answer to an enrolment."""

    services_keys: list[Hex32] = Field(description="The public keys of the services.")
    proof: Hex32 = Field(
        description="HMAC-SHA256 of them and of the host's key, made like the one of the request: whoever "
        "does not know the token cannot have made it."
    )


class Rotation(Message):
    """A new key of a host, in a message that is signed with its present one."""

    host: Host = Field(description="The host.")
    public_key: Hex32 = Field(description="Its new public key.")
    proof: Hex64 = Field(description="The signature of the host and the new public key with the new key.")


class KeysRequest(Message):
    """The question which keys the services sign with."""

    nonce: Hex32 = Field(description="32 random bytes: so the answer is none of an earlier question.")


class KeySignature(Message):
    """The signature of a list of keys with one of them."""

    key_id: KeyId = Field(description="Which key.")
    value: Hex64 = Field(description="The signature.")


class ServicesKeys(Message):
    """The public keys of the services. An agent takes them if a key that it knows has signed them."""

    services_keys: list[Hex32] = Field(description="The keys. The first one signs steps now.")
    signatures: list[KeySignature] = Field(description="Their signatures of the nonce and of all keys.")

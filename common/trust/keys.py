"""Ed25519 keys: how they are made, kept in files, and named.

The library that signs is loaded with the first key. It is 8 MB, and most agents have no key.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from portclaim.common.errors import InvalidConfiguration

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_BLOCK = re.compile(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----", re.DOTALL)
_OTHERS = 0o007  # a group may read a key: that is how containers get theirs


class PrivateKey:
    """An Ed25519 key pair."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()
        self.id = key_id(self.public)

    @classmethod
    def make(cls) -> PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        return cls(Ed25519PrivateKey.generate())

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(message)

    def pem(self) -> bytes:
        """The key as PKCS #8 in PEM, as ``openssl genpkey -algorithm ed25519`` writes it."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


class PublicKey:
    """The public half of a key. Raises ValueError if it is not 32 bytes."""

    def __init__(self, public: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        self._key = Ed25519PublicKey.from_public_bytes(public)
        self.bytes = public
        self.id = key_id(public)

    def has_signed(self, signature: bytes, message: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def key_id(public: bytes) -> str:
    """The name of a key: the first 16 hexadecimal digits of the SHA-256 of its public half."""
    return hashlib.sha256(public).hexdigest()[:16]


def read(file: Path) -> list[PrivateKey]:
    """The keys of a file, which has one PEM block after the other.

    Raises :class:`InvalidConfiguration` if the file cannot be read, if everybody can read it, or if it has no
    Ed25519 key.
    """
    try:
        mode = file.stat().st_mode
        text = file.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(f"the key file {file} cannot be read: {error.strerror}") from None
    if mode & _OTHERS:
        raise InvalidConfiguration(f"everybody can open the key file {file}: chmod o= {file}")
    keys = [_loaded(block, file) for block in _BLOCK.findall(text)]
    if not keys:
        raise InvalidConfiguration(
            f"{file} has no private key: make one with `portclaim trust new-key {file}`"
        )
    return keys


def write(file: Path, key: PrivateKey) -> None:
    """Write a key to a file that only its owner can read. The file has all of the key, or is not there."""
    write_privately(file, key.pem())


def write_privately(file: Path, content: bytes) -> None:
    """Replace a file at once with one that only its owner can read, and that survives a power loss."""
    partial = file.with_name(f".{file.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    partial.replace(file)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _loaded(block: bytes, file: Path) -> PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    try:
        key = serialization.load_pem_private_key(block, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidConfiguration(f"{file} has a key that cannot be read: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidConfiguration(
            f"{file} has a key of another kind: make an Ed25519 key with `portclaim trust new-key {file}`"
        )
    return PrivateKey(key)

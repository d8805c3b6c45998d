"""The hosts' public keys in a worker's memory. No message costs a look into the database."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from portclaim.common.db import host_keys
from portclaim.common.db.transaction import in_transaction
from portclaim.common.errors import ServiceUnavailable
from portclaim.common.trust.keys import PublicKey

LOG = logging.getLogger(__name__)

REFRESH = 2.0
"""Seconds, at most, until a worker knows a change: a key that was revoked, for example."""

_SOON = 0.2  # seconds between two looks for keys that are not known
_ALL = 60.0  # seconds between two times that all keys are read
_OVERLAP = timedelta(seconds=120)


class HostKeyRing:
    """All keys of all hosts. It reads those that were changed, every two seconds while messages come.

    It costs about 1 kB of memory for each host. Threads may share it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._keys: dict[str, dict[str, tuple[PublicKey, datetime | None, bool]]] = {}
        self._lock = threading.Lock()
        self._read_at = self._all_read_at = float("-inf")

    def is_enrolled(self, host: str) -> bool:
        """Whether the host has a key, or had one. Raises :class:`ServiceUnavailable`."""
        self._refresh(REFRESH)
        return host in self._keys

    def find(self, host: str, key_id: str) -> PublicKey | None:
        """The host's key of this id, if it is valid. Raises :class:`ServiceUnavailable`."""
        self._refresh(REFRESH)
        if key_id not in self._keys.get(host, {}):
            self._refresh(_SOON)
        key, valid_until, is_revoked = self._keys.get(host, {}).get(key_id, (None, None, True))
        is_over = valid_until is not None and valid_until < datetime.now(UTC)
        return None if is_revoked or is_over else key

    def _refresh(self, pause: float) -> None:
        """Read what was changed, unless that was done in the last ``pause`` seconds."""
        if time.monotonic() < self._read_at + pause:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._read_at + pause:
                return
            is_all = now > self._all_read_at + _ALL
            try:
                changed = in_transaction(
                    self._engine, lambda c: host_keys.changed_keys(c, None if is_all else _OVERLAP)
                )
            except ServiceUnavailable as error:
                if self._all_read_at == float("-inf"):
                    raise
                LOG.warning("changes of host keys are not known for now: %s", error)
                self._read_at = now
                return
            found: dict[str, dict[str, tuple[PublicKey, datetime | None, bool]]] = {}
            for each in changed:
                key = PublicKey(each.public_key)
                found.setdefault(each.host, {})[each.key_id] = (
                    key,
                    each.valid_until,
                    each.revoked_at is not None,
                )
            # Whole dictionaries are replaced: other threads read them meanwhile.
            if is_all:
                self._keys, self._all_read_at = found, now
            elif found:
                merged = {host: {**self._keys.get(host, {}), **keys} for host, keys in found.items()}
                self._keys = {**self._keys, **merged}
            self._read_at = now

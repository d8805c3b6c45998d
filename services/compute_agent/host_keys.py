"""What an agent keeps of trust on its host: its key, and the services' public keys."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.trust import keys
from portclaim.common.trust.keys import PrivateKey

_KEY, _NEXT, _STATE = "key.pem", "key.next.pem", "trust.json"


class State(NamedTuple):
    """What is known besides the key. Times are seconds since 1970."""

    key_id: str
    made_at: float
    token: str
    services_keys: tuple[str, ...]


class KeyStore:
    """The files ``key.pem``, ``key.next.pem`` and ``trust.json`` in the agent's directory.

    A key is in ``key.next.pem`` until the conductor has registered it. So an agent that is killed in between
    offers the same key again. Raises :class:`InvalidConfiguration` if a file is not as an agent writes it.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self.state = self._read_state()
        self.key: PrivateKey | None = None
        if self.state is not None:
            following = self._read(_NEXT)
            if following is not None and following.id == self.state.key_id:
                (place / _NEXT).replace(place / _KEY)
            self.key = self._read(_KEY)
            if self.key is None or self.key.id != self.state.key_id:
                raise InvalidConfiguration(
                    f"{place / _KEY} is not the key that was registered: remove {place / _STATE}, and enrol "
                    "the host again with `portclaim host enroll`"
                )

    def following(self) -> PrivateKey:
        """The key that comes next. It is the same until it is taken."""
        key = self._read(_NEXT)
        if key is None:
            key = PrivateKey.make()
            self._place.mkdir(parents=True, exist_ok=True)
            keys.write(self._place / _NEXT, key)
        return key

    def has_following(self) -> bool:
        return (self._place / _NEXT).exists()

    def take(self, key: PrivateKey, token: str, services_keys: list[str]) -> None:
        """The next key is registered: use it from now on."""
        self._write_state(State(key.id, time.time(), token, tuple(services_keys)))
        with suppress(FileNotFoundError):
            (self._place / _NEXT).replace(self._place / _KEY)
        self.key = key

    def learn(self, services_keys: list[str]) -> None:
        """These are the services' keys now."""
        if self.state is not None:
            self._write_state(self.state._replace(services_keys=tuple(services_keys)))

    def _read(self, name: str) -> PrivateKey | None:
        file = self._place / name
        return keys.read(file)[0] if file.exists() else None

    def _read_state(self) -> State | None:
        file = self._place / _STATE
        try:
            found = json.loads(file.read_bytes())
            return State(found["key_id"], found["made_at"], found["token"], tuple(found["services_keys"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidConfiguration(
                f"{file} cannot be read ({error!r}): remove it, and enrol the host again with "
                "`portclaim host enroll`"
            ) from None

    def _write_state(self, state: State) -> None:
        keys.write_privately(self._place / _STATE, json.dumps(state._asdict()).encode())
        self.state = state

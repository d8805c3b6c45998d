"""The statuses of a host's devices. A change of one device also changes its PF or VFs (Nova's rules)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.errors import InvalidTransition, WrongOwner


class DeviceStatus(StrEnum):
    """Nova's ``PciDeviceStatus`` words."""

    AVAILABLE = "available"
    CLAIMED = "claimed"
    ALLOCATED = "allocated"
    UNCLAIMABLE = "unclaimable"
    UNAVAILABLE = "unavailable"
    REMOVED = "removed"


HELD = frozenset({DeviceStatus.CLAIMED, DeviceStatus.ALLOCATED})
"""The statuses in which a device belongs to a claim."""

_BLOCKED = frozenset({DeviceStatus.UNCLAIMABLE, DeviceStatus.UNAVAILABLE})
_UNHELD = frozenset({DeviceStatus.AVAILABLE}) | _BLOCKED

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class TreeDevice(Generic[Key]):
    """A device. ``parent`` is the key of the PF, if the device is a VF. ``owner`` holds the device."""

    dev_type: DeviceType
    parent: Key | None = None
    status: DeviceStatus = DeviceStatus.AVAILABLE
    owner: str | None = None


class DeviceTree(Generic[Key]):
    """The devices of a host by key. An operation makes all its changes, or raises and changes nothing.

    A VF whose PF is not tracked, or was removed, has no effect on other devices.
    """

    def __init__(self, devices: Mapping[Key, TreeDevice[Key]]) -> None:
        self._types = {key: device.dev_type for key, device in devices.items()}
        self._parents = {key: device.parent for key, device in devices.items()}
        self._children: dict[Key, list[Key]] = {key: [] for key in devices}
        for key, device in devices.items():
            if device.parent is not None and device.parent in self._children:
                self._children[device.parent].append(key)
        self._status = {key: device.status for key, device in devices.items()}
        self._owner = {key: device.owner for key, device in devices.items()}

    def status(self, key: Key) -> DeviceStatus:
        """The status of one device."""
        return self._status[key]

    def owner(self, key: Key) -> str | None:
        """The owner that holds the device; None if nobody does."""
        return self._owner[key]

    def claim(self, key: Key, owner: str) -> None:
        """Claim a device. Then the VFs of a claimed PF, or the PF of a claimed VF, cannot be claimed."""
        self._require(key, (DeviceStatus.AVAILABLE,))
        vfs, pf = self._vfs(key), self._pf(key)
        self._require_all(vfs, _UNHELD, key)
        self._require_all(pf, _UNHELD, key)
        self._set(vfs, DeviceStatus.UNCLAIMABLE)
        self._set(
            (one for one in pf if self._status[one] is DeviceStatus.AVAILABLE), DeviceStatus.UNCLAIMABLE
        )
        self._hold(key, DeviceStatus.CLAIMED, owner)

    def allocate(self, key: Key, owner: str) -> None:
        """Allocate a device that is free or claimed by ``owner``. Its PF or VFs become unavailable."""
        self._require(key, (DeviceStatus.AVAILABLE, DeviceStatus.CLAIMED))
        if self._status[key] is DeviceStatus.CLAIMED:
            self._require_owner(key, owner)
        vfs, pf = self._vfs(key), self._pf(key)
        self._require_all(vfs, (DeviceStatus.AVAILABLE, DeviceStatus.UNCLAIMABLE), key)
        self._require_all(pf, _UNHELD, key)
        self._set((*vfs, *pf), DeviceStatus.UNAVAILABLE)
        self._hold(key, DeviceStatus.ALLOCATED, owner)

    def free(self, key: Key, owner: str | None = None) -> frozenset[Key]:
        """Free a device. Answers all devices that became available.

        A PF frees its VFs too. A VF frees its PF too, if all other VFs of that PF are available. With
        ``owner`` None, the owner is not checked.
        """
        self._require(key, HELD)
        if owner is not None:
            self._require_owner(key, owner)
        freed = {key}
        freed.update(vf for vf in self._vfs(key) if self._status[vf] in _BLOCKED)
        for pf in self._pf(key):
            others = [vf for vf in self._vfs(pf) if vf != key]
            if all(self._status[vf] is DeviceStatus.AVAILABLE for vf in others):
                freed.add(pf)
        self._set(freed, DeviceStatus.AVAILABLE)
        self._owner[key] = None
        return frozenset(freed)

    def remove(self, key: Key) -> None:
        """Remove a device that has left the host. Raises :class:`InvalidTransition` if somebody holds it."""
        self._require(key, _UNHELD)
        if self._owner[key] is not None:
            raise WrongOwner(f"{key} belongs to {self._owner[key]}")
        self._status[key] = DeviceStatus.REMOVED

    def _vfs(self, key: Key) -> tuple[Key, ...]:
        """The VFs of a PF that are still there; none for any other device."""
        if self._types[key] is not DeviceType.PF:
            return ()
        return tuple(vf for vf in self._children[key] if self._status[vf] is not DeviceStatus.REMOVED)

    def _pf(self, key: Key) -> tuple[Key, ...]:
        """The PF of a VF, if it is tracked and still there."""
        parent = self._parents[key]
        if parent is None or self._status.get(parent, DeviceStatus.REMOVED) is DeviceStatus.REMOVED:
            return ()
        return (parent,)

    def _require(self, key: Key, allowed: Collection[DeviceStatus]) -> None:
        if self._status[key] not in allowed:
            wanted = " or ".join(sorted(allowed))
            raise InvalidTransition(f"{key} is {self._status[key]}; this change needs it to be {wanted}")

    def _require_all(self, partners: Iterable[Key], allowed: Collection[DeviceStatus], key: Key) -> None:
        for partner in partners:
            if self._status[partner] not in allowed:
                raise InvalidTransition(
                    f"{key} is not free: {partner} of the same port is {self._status[partner]}"
                )

    def _require_owner(self, key: Key, owner: str) -> None:
        if self._owner[key] != owner:
            raise WrongOwner(f"{key} belongs to {self._owner[key]}, not to {owner}")

    def _set(self, keys: Iterable[Key], status: DeviceStatus) -> None:
        self._status.update(dict.fromkeys(keys, status))

    def _hold(self, key: Key, status: DeviceStatus, owner: str) -> None:
        self._status[key] = status
        self._owner[key] = owner

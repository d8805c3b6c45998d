"""Portclaim hands out SR-IOV ports to virtual machines: whole (PF) or in slices (VF), never twice.

The names in ``__all__`` are the public API, for an API layer or any other program that claims devices::

    from uuid import uuid4
    from portclaim import ClaimRefused, ClaimRequest, connect

    with connect("rabbit://portclaim:secret@broker.example/portclaim") as scheduler:
        request = ClaimRequest(
            claim_id=uuid4(),
            instance_id=uuid4(),
            extra_specs={"pci_passthrough:alias": "nic-vf:1"},
        )
        try:
            claim = scheduler.claim(request)
            print(claim.host, [device.address for device in claim.devices])
        except ClaimRefused as refused:
            print(refused.message)

Everything else in this package is private: modules, functions and classes may change with any release. The
exceptions are the plug-in interfaces, ``portclaim.services.scheduler.packing`` and
``portclaim.services.compute_agent.drivers.base``.

``import portclaim`` loads nothing else. A name is loaded when it is used first. No name loads a database
driver or the compute agent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portclaim.common.errors import (
        ClaimConflict,
        ClaimEnded,
        ClaimNotFound,
        ClaimRefused,
        HostInUse,
        HostIsAlive,
        InvalidConfiguration,
        InvalidMessage,
        InvalidRequest,
        MoveConflict,
        MoveNotFound,
        PortclaimError,
        QuotaExceeded,
        ServiceFailed,
        ServiceUnavailable,
        UnknownHost,
        UnknownSchema,
        UnsupportedVersion,
        WaitTimeout,
    )
    from portclaim.common.events.schema import Event, EventDevice, EventFilter
    from portclaim.common.events.stream import EventStream
    from portclaim.common.rpc.candidate_messages import (
        Candidate,
        CandidateDevice,
        Candidates,
        CandidatesRequest,
        DevicesLeft,
    )
    from portclaim.common.rpc.claim_messages import (
        Claim,
        ClaimRequest,
        Device,
        DeviceFilter,
        Devices,
        ExplainRequest,
        Explanation,
    )
    from portclaim.common.rpc.claim_xml import hostdev_xml, migration_xml
    from portclaim.common.rpc.claimed_device import ClaimedDevice
    from portclaim.common.rpc.connection import Connection, connect
    from portclaim.common.rpc.device_request import DeviceRequest
    from portclaim.common.rpc.history_messages import History, HistoryFilter
    from portclaim.common.rpc.move_messages import Move, MoveRequest
    from portclaim.common.rpc.network_settings import DeviceNetworkSettings, NetworkSettings, VlanSettings
    from portclaim.common.rpc.operator_messages import (
        AwaitedSteps,
        ClaimFilter,
        Claims,
        HostFilter,
        Hosts,
        StepFilter,
        WaitingClaims,
        WaitingFilter,
    )
    from portclaim.common.rpc.pages import pages
    from portclaim.common.rpc.refusal_messages import Refusal, RefusalFilter, Refusals
    from portclaim.common.rpc.scheduler import SchedulerClient

__all__ = [
    "AwaitedSteps",
    "Candidate",
    "CandidateDevice",
    "Candidates",
    "CandidatesRequest",
    "Claim",
    "ClaimConflict",
    "ClaimEnded",
    "ClaimFilter",
    "ClaimNotFound",
    "ClaimRefused",
    "ClaimRequest",
    "ClaimedDevice",
    "Claims",
    "Connection",
    "Device",
    "DeviceFilter",
    "DeviceNetworkSettings",
    "DeviceRequest",
    "Devices",
    "DevicesLeft",
    "Event",
    "EventDevice",
    "EventFilter",
    "EventStream",
    "ExplainRequest",
    "Explanation",
    "History",
    "HistoryFilter",
    "HostFilter",
    "HostInUse",
    "HostIsAlive",
    "Hosts",
    "InvalidConfiguration",
    "InvalidMessage",
    "InvalidRequest",
    "Move",
    "MoveConflict",
    "MoveNotFound",
    "MoveRequest",
    "NetworkSettings",
    "PortclaimError",
    "QuotaExceeded",
    "Refusal",
    "RefusalFilter",
    "Refusals",
    "SchedulerClient",
    "ServiceFailed",
    "ServiceUnavailable",
    "StepFilter",
    "UnknownHost",
    "UnknownSchema",
    "UnsupportedVersion",
    "VlanSettings",
    "WaitTimeout",
    "WaitingClaims",
    "WaitingFilter",
    "connect",
    "hostdev_xml",
    "migration_xml",
    "pages",
]

_MODULES = {
    "portclaim.common.events.schema": ("Event", "EventDevice", "EventFilter"),
    "portclaim.common.events.stream": ("EventStream",),
    "portclaim.common.rpc.candidate_messages": (
        "Candidate",
        "CandidateDevice",
        "Candidates",
        "CandidatesRequest",
        "DevicesLeft",
    ),
    "portclaim.common.rpc.claim_messages": (
        "Claim",
        "ClaimRequest",
        "Device",
        "DeviceFilter",
        "Devices",
        "ExplainRequest",
        "Explanation",
    ),
    "portclaim.common.rpc.claim_xml": ("hostdev_xml", "migration_xml"),
    "portclaim.common.rpc.claimed_device": ("ClaimedDevice",),
    "portclaim.common.rpc.connection": ("Connection", "connect"),
    "portclaim.common.rpc.device_request": ("DeviceRequest",),
    "portclaim.common.rpc.history_messages": ("History", "HistoryFilter"),
    "portclaim.common.rpc.move_messages": ("Move", "MoveRequest"),
    "portclaim.common.rpc.network_settings": ("DeviceNetworkSettings", "NetworkSettings", "VlanSettings"),
    "portclaim.common.rpc.operator_messages": (
        "AwaitedSteps",
        "ClaimFilter",
        "Claims",
        "HostFilter",
        "Hosts",
        "StepFilter",
        "WaitingClaims",
        "WaitingFilter",
    ),
    "portclaim.common.rpc.pages": ("pages",),
    "portclaim.common.rpc.refusal_messages": ("Refusal", "RefusalFilter", "Refusals"),
    "portclaim.common.rpc.scheduler": ("SchedulerClient",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name when it is used first (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'portclaim' has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF.get(name, "portclaim.common.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

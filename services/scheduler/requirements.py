"""What a claim request asks for, as PCI requests and limits on hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.extra_specs import requests_from_extra_specs
from portclaim.common.pci.network_settings import TAG
from portclaim.common.pci.request import NumaPolicy, PciRequest
from portclaim.common.rpc.candidate_messages import CandidatesRequest
from portclaim.common.rpc.claim_messages import ClaimRequest, ExplainRequest
from portclaim.common.rpc.network_settings import DeviceNetworkSettings
from portclaim.services.scheduler.fleet import Requirements

MAX_REQUESTS = 16
"""PCI requests of one claim. Exact matching looks at every subset of them."""


def requirements_of(
    request: ClaimRequest | ExplainRequest | CandidatesRequest, aliases: Aliases
) -> Requirements:
    """The requirements of a claim.

    Raises :class:`InvalidRequest`, and ``PciError`` for invalid extra specs.
    """
    from_specs = requests_from_extra_specs(request.extra_specs, aliases)
    requests = from_specs.requests + tuple(
        PciRequest(more.count, more.alternatives, numa_policy=NumaPolicy(more.numa_policy))
        for more in request.requests
    )
    for asked in requests:
        _check(asked)
    requests = _with_network(requests, request.network_settings)
    if not requests:
        raise InvalidRequest(
            "the claim asks for no device: give the extra spec pci_passthrough:alias, or requests"
        )
    if len(requests) > MAX_REQUESTS:
        raise InvalidRequest(f"the claim has {len(requests)} requests: at most {MAX_REQUESTS} are allowed")
    return Requirements(
        requests,
        from_specs.group_policy,
        None if request.hosts is None else tuple(request.hosts),
        tuple(request.avoid_hosts),
        frozenset(request.numa_cells),
        tuple(request.near),
        tuple(request.apart_from),
    )


def _check(request: PciRequest) -> None:
    """Refuse what Nova may ask for and no device of Portclaim has."""
    if any(alternative.get("dev_type") == DeviceType.VDPA for alternative in request.spec):
        raise InvalidRequest(
            "Portclaim hands out no vDPA devices: ask for type-VF, and remove the vDPA device of the VF on "
            "its host (vdpa dev del)"
        )
    if any("parent_ifname" in alternative for alternative in request.spec):
        raise InvalidRequest(
            "Portclaim does not compare parent_ifname: give the port a tag of its own in device_spec, and "
            "ask for this tag; or name the host in hosts"
        )


def _with_network(
    requests: tuple[PciRequest, ...], settings: Sequence[DeviceNetworkSettings]
) -> tuple[PciRequest, ...]:
    """The requests, those with network settings only for devices that can have them, on hosts that set them.

    Raises :class:`InvalidRequest`.
    """
    changed = list(requests)
    for entry in settings:
        place = f"network_settings of request {entry.request_index}, device {entry.device_index}"
        if entry.request_index >= len(requests):
            raise InvalidRequest(f"{place}: the claim has {len(requests)} requests, counted from 0")
        asked = changed[entry.request_index]
        if entry.device_index >= asked.count:
            raise InvalidRequest(f"{place}: that request is for {asked.count} devices, counted from 0")
        needed = {TAG: "true"} | ({} if entry.dev_type is None else {"dev_type": entry.dev_type})
        fitting = tuple(
            {**alternative, **needed}
            for alternative in asked.spec
            if alternative.get("dev_type") in {None, needed.get("dev_type", alternative.get("dev_type"))}
        )
        if not fitting:
            raise InvalidRequest(
                f"{place}: only a {entry.dev_type} can have them, and the request excludes it"
            )
        changed[entry.request_index] = replace(asked, spec=fitting)
    return tuple(changed)

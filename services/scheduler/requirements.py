"""What a claim request asks for, as PCI requests and limits on hosts."""

from __future__ import annotations

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.device import DeviceType
from portclaim.common.pci.extra_specs import requests_from_extra_specs
from portclaim.common.pci.request import NumaPolicy, PciRequest
from portclaim.common.rpc.candidate_messages import CandidatesRequest
from portclaim.common.rpc.claim_messages import ClaimRequest, ExplainRequest
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

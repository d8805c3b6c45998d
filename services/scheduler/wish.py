"""What a caller asks for, in the words of PCI requests."""

from __future__ import annotations

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.extra_specs import requests_from_extra_specs
from portclaim.common.pci.request import NumaPolicy, PciRequest
from portclaim.common.rpc.messages import ClaimRequest, ExplainRequest
from portclaim.services.scheduler.fleet import Wanted

MAX_REQUESTS = 16
"""Of one claim: exact matching looks at every subset of them."""


def wanted_by(request: ClaimRequest | ExplainRequest, aliases: Aliases) -> Wanted:
    """Raises :class:`InvalidRequest`, and ``PciError`` for extra specs that mean nothing here."""
    wish = requests_from_extra_specs(request.extra_specs, aliases)
    requests = wish.requests + tuple(
        PciRequest(more.count, tuple(more.spec), numa_policy=NumaPolicy(more.numa_policy))
        for more in request.requests
    )
    if not requests:
        raise InvalidRequest("no device is asked for: neither pci_passthrough:alias nor requests")
    if len(requests) > MAX_REQUESTS:
        raise InvalidRequest(f"{len(requests)} requests in one claim; at most {MAX_REQUESTS} are matched")
    return Wanted(
        requests,
        wish.group_policy,
        None if request.hosts is None else tuple(request.hosts),
        tuple(request.avoid_hosts),
        frozenset(request.numa_cells),
    )

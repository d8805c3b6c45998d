"""The PCI requests that Nova keeps with an instance, as a claim's request. Rules only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from portclaim.cli.nova.cell import NovaDevice
from portclaim.common.rpc import versions
from portclaim.common.rpc.claim_messages import ClaimRequest
from portclaim.common.rpc.device_request import DeviceRequest

_IDS = ("vendor_id", "product_id", "dev_type")
# What Nova writes into a request beside ids and tags.
_NO_TAGS = frozenset({*_IDS, "address", "resource_class", "traits", "live_migratable", "remote_managed"})
_OF_PLACEMENT = "rp_uuids"


class Requests:
    """The requests of one instance, in Nova's order. Those that no claim can make are left out."""

    def __init__(self, requests: Iterable[Mapping[str, Any]]) -> None:
        read = ((request.get("request_id"), _as_message(request)) for request in requests)
        self._requests = [(id_, message) for id_, message in read if message is not None]

    def index_of(self, device: NovaDevice) -> int | None:
        """The index of the request that the device is for; None: it is not known.

        Nova names the request of a device by its id. Requests that were made before Nova had such ids have
        none, and neither have their devices: then ids and type decide.
        """
        for index, (id_, request) in enumerate(self._requests):
            if id_ == device.request_id and (id_ is not None or _alternative(request, device) is not None):
                return index
        return None

    def tags_of(self, device: NovaDevice) -> dict[str, str]:
        """The tags that the device must have, because its request asked for them."""
        index = self.index_of(device)
        asked = None if index is None else _alternative(self._requests[index][1], device)
        return {
            key: value for key, value in (asked or {}).items() if key not in _NO_TAGS and value is not None
        }

    def as_claim_request(self, claim_id: UUID, instance_id: str) -> dict[str, Any]:
        """What the claim's row keeps. A move asks for the same again."""
        messages = [message for _, message in self._requests]
        request = ClaimRequest(claim_id=claim_id, instance_id=UUID(instance_id), requests=messages)
        asked, _ = versions.to_send(request)
        return {name: value for name, value in asked.items() if name not in {"claim_id", "wait"}}


def _as_message(request: Mapping[str, Any]) -> DeviceRequest | None:
    """Nova's request as ours; None: it says something that ours cannot say."""
    try:
        spec = [
            {key: value for key, value in alternative.items() if key != _OF_PLACEMENT}
            for alternative in request["spec"]
        ]
        policy = request.get("numa_policy") or "legacy"
        facts = {"count": request["count"], "spec": spec, "numa_policy": policy}
        return DeviceRequest.model_validate(facts)
    except (ValidationError, KeyError, TypeError, AttributeError):
        return None


def _alternative(request: DeviceRequest, device: NovaDevice) -> Mapping[str, str | None] | None:
    """The first alternative that the ids and the type of the device satisfy."""
    for spec in request.spec:
        if all(
            (spec.get(key) or getattr(device, key)).lower() == getattr(device, key).lower() for key in _IDS
        ):
            return spec
    return None

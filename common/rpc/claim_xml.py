"""The devices of a claim as libvirt's domain XML has them."""

from __future__ import annotations

from portclaim.common.errors import InvalidRequest
from portclaim.common.pci.address import PciAddress
from portclaim.common.pci.hostdev_xml import hostdev_element
from portclaim.common.rpc.claim_messages import Claim
from portclaim.common.rpc.move_messages import Move

_GIVEN_UP = frozenset({"releasing", "released", "failed", "expired"})


def hostdev_xml(claim: Claim, managed: bool = True) -> list[str]:
    """The ``<hostdev>`` elements that give a guest the devices of a claim, one for each device.

    Put them into ``<devices>`` of the domain's definition, and add what the guest needs besides, for example
    ``<boot>`` or ``<rom>``. Keep the alias: it names the claim. Start the guest when the claim is
    ``prepared``, not before.

    With ``managed``, libvirt also binds the devices to vfio-pci itself. The guest can then start after a
    reboot of its host even if the agent does not run yet. A device whose device_spec entry says ``managed:
    no`` is never managed.

    Raises :class:`InvalidRequest` if the claim holds no devices, because it waits or ends or has ended.

    Example::

        request = ClaimRequest(
            claim_id=uuid4(),
            instance_id=uuid4(),
            extra_specs={"pci_passthrough:alias": "nic-vf:2"},
        )
        claim = scheduler.claim(request)
        for element in hostdev_xml(claim):
            print(element)
    """
    if not claim.devices or claim.status in _GIVEN_UP:
        raise InvalidRequest(
            f"claim {claim.claim_id} is {claim.status}: it has no devices to give to a guest",
            claim_id=str(claim.claim_id),
        )
    return [
        hostdev_element(
            PciAddress.parse(device.address),
            claim.claim_id,
            managed=managed and device.tags.get("managed", "").lower() != "false",
        )
        for device in claim.devices
    ]


def migration_xml(move: Move, managed: bool = True) -> dict[str, str]:
    """The elements of a live move's target, for the devices of its source that go with the guest.

    The keys are PCI addresses on the source's host. Give the migration the domain's definition with these
    elements in place of the present ones. Devices that do not go with the guest are not in it: the agents
    unplug and attach them.

    Raises :class:`InvalidRequest` if the target has ended, or if it has other devices than the source.
    """
    elements = hostdev_xml(move.target, managed)
    goes = [device.tags.get("live_migratable", "").lower() == "true" for device in move.source.devices]
    if any(goes) and [device.request_index for device in move.source.devices] != [
        device.request_index for device in move.target.devices
    ]:
        raise InvalidRequest(
            f"claim {move.target.claim_id} has other devices than claim {move.source.claim_id}: a guest that "
            "is resized cannot take devices with it",
            claim_id=str(move.target.claim_id),
        )
    pairs = zip(move.source.devices, elements, goes, strict=False)
    return {device.address: element for device, element, it_goes in pairs if it_goes}

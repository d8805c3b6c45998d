"""Check ``[pci] alias`` of a nova.conf: which devices each alias gets, and why it gets none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from portclaim.common.pci.address_spec import ANY
from portclaim.common.pci.alias import Aliases, read_alias
from portclaim.common.pci.device import DeviceType, PciDevice
from portclaim.common.pci.device_spec_entry import DeviceSpec
from portclaim.common.pci.errors import InvalidAlias
from portclaim.common.pci.filters import Kind, has_requested_management, has_tags, satisfies
from portclaim.common.pci.finding import Finding, in_short, number
from portclaim.common.pci.placement_names import (
    CLASS_OF_IDS,
    RESOURCE_CLASS,
    TRAITS,
    class_name,
    default_class,
)
from portclaim.common.pci.request import NumaPolicy, PciRequest

_ALL_NODES_KNOWN = frozenset({NumaPolicy.REQUIRED, NumaPolicy.SOCKET})
Alternative = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Offer:
    """A device that an entry of device_spec takes, and its pool's properties."""

    device: PciDevice
    kind: Kind


def check_aliases(
    entries: Sequence[str],
    offers: Sequence[Offer] | None = None,
    others: Sequence[PciDevice] = (),
    *,
    specs: Sequence[DeviceSpec] = (),
    by_class: bool = False,
) -> list[Finding]:
    """Check the values of ``[pci] alias``.

    ``offers`` are the devices that device_spec takes on a host, and ``others`` its other devices. None: the
    aliases are not tried on a host, but compared with ``specs``, the entries of device_spec.
    """
    findings: list[Finding] = []
    aliases = Aliases({}, by_class)
    for place, text in enumerate(entries, 1):
        source = f"alias {place}"
        try:
            one = read_alias(source, text)
            aliases = aliases.plus(source, one)
        except InvalidAlias as error:
            findings.append(Finding(source, refused=error.about_entry))
            continue
        [alternative] = aliases.spec_of(one)
        if offers is None:
            findings.append(Finding(source, warnings=tuple(_unknown_to(specs, alternative))))
        else:
            findings.append(replace(_on_host(alternative, one.numa_policy, offers, others), entry=source))
    return findings


def but_for_type(alternatives: Sequence[Alternative], kind: Kind) -> bool:
    """Would a device of this kind satisfy one of the alternatives if it were of another type?"""
    wanted = PciRequest(1, tuple(_without(alternative, "dev_type") for alternative in alternatives))
    asked = PciRequest(1, tuple(alternatives))
    return has_tags(wanted, kind) and has_requested_management(wanted, kind) and not satisfies(asked, kind)


def types_asked_for(alternatives: Sequence[Alternative]) -> str:
    """The types of devices that the alternatives get, in words."""
    types = sorted({alternative.get("dev_type") or "" for alternative in alternatives})
    return " or ".join(each or "type-PCI or type-VF" for each in types)


def _on_host(
    alternative: Alternative, policy: NumaPolicy, offers: Sequence[Offer], others: Sequence[PciDevice]
) -> Finding:
    request = PciRequest(1, (alternative,))
    takes = tuple(offer.device for offer in offers if satisfies(request, offer.kind))
    if not takes:
        why = next(iter(_why_nothing(alternative, offers, others)), None)
        return Finding("", takes=(), warnings=() if why is None else (why,))
    nowhere = [str(device.address) for device in takes if device.numa_node is None]
    if not nowhere or policy not in _ALL_NODES_KNOWN:
        return Finding("", takes=takes)
    return Finding(
        "",
        takes=takes,
        warnings=(
            f"numa_policy {policy}: the host does not say the NUMA node of {in_short(nowhere)}, so no "
            "instance with a NUMA topology gets them: write legacy or preferred",
        ),
    )


def _why_nothing(
    alternative: Alternative, offers: Sequence[Offer], others: Sequence[PciDevice]
) -> Iterable[str]:
    """The reasons why no device of a host suits, the best first."""
    types: Counter[str] = Counter(
        offer.kind.dev_type for offer in offers if but_for_type([alternative], offer.kind)
    )
    unoffered = [device for device in others if _has_ids(alternative, device)]
    if types:
        yield _of_other_types(alternative, types)
    if unoffered:
        them = "it" if len(unoffered) == 1 else "them"
        addresses = in_short([str(device.address) for device in unoffered])
        wrong: Counter[str] = Counter(device.dev_type for device in unoffered)
        for fitting in _types(alternative):
            del wrong[fitting]
        yield f"{addresses}: no entry of device_spec takes {them}, so no claim gets {them}" + (
            f"; and {_of_other_types(alternative, wrong)}" if wrong else ""
        )
    alike = [offer for offer in offers if _has_ids(alternative, offer.device)]
    if alike and alternative.get(RESOURCE_CLASS):
        classes = sorted({offer.kind.resource_class for offer in alike})
        yield (
            f"{number(len(alike), 'device')} that device_spec takes may suit, but the resource class is "
            f"{in_short(classes)}, not {class_name(alternative[RESOURCE_CLASS] or '')}"
        )
    if alike:
        wanted = in_short(
            sorted(alternative.keys() - {"vendor_id", "product_id", "dev_type", RESOURCE_CLASS})
        )
        yield f"{number(len(alike), 'device')} that device_spec takes may suit, " + (
            f"but for {wanted}: write the same in device_spec" if wanted else "but a DPU manages them"
        )
    product = alternative.get("product_id")
    ports = [
        str(device.address)
        for device in (*others, *(offer.device for offer in offers))
        if product is not None and device.vf_product_id == product and not device.num_vfs
    ]
    if ports and DeviceType.VF in _types(alternative):
        yield f"{in_short(ports)} can have such VFs, but has none now: create VFs (sriov_numvfs)"


def _of_other_types(alternative: Alternative, types: Mapping[str, int]) -> str:
    """That devices would match but for their type, and what to write."""
    found = [f"{number(count, 'device')} of {dev_type}" for dev_type, count in sorted(types.items())]
    asked = alternative.get("dev_type")
    why = f"it asks for {asked}" if asked else "without device_type it gets only type-PCI and type-VF"
    advice = " or ".join(f'"device_type": "{dev_type}"' for dev_type in sorted(types))
    return f"{in_short(found)} would match, but {why}: write {advice}"


def _types(alternative: Alternative) -> frozenset[str]:
    asked = alternative.get("dev_type")
    return frozenset({DeviceType.PCI, DeviceType.VF} if asked is None else {asked})


def _has_ids(alternative: Alternative, device: PciDevice) -> bool:
    """Do the ids that the alternative names agree, or, if it names none, the class of these ids?"""
    vendor_id, product_id = alternative.get("vendor_id"), alternative.get("product_id")
    if vendor_id is None and product_id is None:
        return class_name(alternative.get(RESOURCE_CLASS) or "") == default_class(
            device.vendor_id, device.product_id
        )
    return vendor_id in {None, device.vendor_id} and product_id in {None, device.product_id}


def _unknown_to(specs: Sequence[DeviceSpec], alternative: Alternative) -> Iterable[str]:
    """What no entry of device_spec can give to the alias, as far as the entries tell without a host."""
    if not specs:
        return
    fitting = [spec for spec in specs if _may_have_ids(spec, alternative)]
    if not fitting:
        yield "no entry of device_spec takes devices with these ids"
        return
    wanted = class_name(alternative.get(RESOURCE_CLASS) or "")
    of_ids = {None} if wanted.startswith(CLASS_OF_IDS) else set()
    if wanted and not any(_class_of(spec) in {wanted, *of_ids} for spec in fitting):
        classes = sorted({name for spec in fitting if (name := _class_of(spec)) is not None})
        others = f"; they have {in_short(classes)}" if classes else ""
        yield f"no entry of device_spec has the resource class {wanted}{others}"
        return
    for key in (TRAITS, "live_migratable"):
        kinds = [Kind(DeviceType.VF, spec.vendor_id, spec.product_id, spec.tags) for spec in fitting]
        if key in alternative and not any(
            has_tags(PciRequest(1, ({key: alternative[key]},)), kind) for kind in kinds
        ):
            yield f"no entry of device_spec has {key} {alternative[key]}: write the same there"


def _may_have_ids(spec: DeviceSpec, alternative: Alternative) -> bool:
    return all(
        ANY in {own, wanted or ANY} or own == wanted
        for own, wanted in (
            (spec.vendor_id, alternative.get("vendor_id")),
            (spec.product_id, alternative.get("product_id")),
        )
    )


def _class_of(spec: DeviceSpec) -> str | None:
    """The class of the entry's devices; None: it depends on the device."""
    if named := class_name(spec.tags.get(RESOURCE_CLASS, "")):
        return named
    return (
        None if ANY in {spec.vendor_id, spec.product_id} else default_class(spec.vendor_id, spec.product_id)
    )


def _without(alternative: Alternative, key: str) -> Alternative:
    return {name: value for name, value in alternative.items() if name != key}

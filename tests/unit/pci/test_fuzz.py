"""Any text of an operator is either parsed or refused with its entry and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.config_check import Finding, check_aliases, check_device_spec
from portclaim.common.pci.device_spec import DeviceSpecs
from portclaim.common.pci.errors import InvalidAlias, InvalidDeviceSpec, InvalidOption
from portclaim.common.pci.extra_specs import requests_from_extra_specs
from portclaim.common.pci.request import MAX_COUNT
from tests.unit.pci.support import PORT, card, pf, vf

Read = TypeVar("Read")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
IDS = st.sampled_from(["8086", "15B3", "*", " 8086 ", "0x8086", "86", "zz", ""])
PATTERNS = st.sampled_from([".*", "0", "(a+)+$", "(|||||){20}", "[", "81", "(?i)0A", "0{1,3}", "(?!81)"])
PLACES = st.one_of(
    st.text(alphabet="0189afg*:. x", max_size=14),
    st.dictionaries(
        st.sampled_from(["domain", "bus", "slot", "function", "Bus"]), PATTERNS | JSON, max_size=4
    ),
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "vendor_id": IDS | JSON,
        "product_id": IDS | JSON,
        "address": PLACES | JSON,
        "devname": st.sampled_from(["ens1f0", "lo"]) | JSON,
        "remote_managed": st.sampled_from(["true", "no"]) | JSON,
        "managed": st.sampled_from(["yes", "off", 1]) | JSON,
        "reconfigurable": st.sampled_from(["yes", "no"]) | JSON,
        "num_vfs": st.integers(-1, 70_000) | JSON,
        "physical_network": JSON,
    },
)
SPECS = st.one_of(
    st.text(max_size=20), ENTRIES.map(json.dumps), st.lists(ENTRIES | JSON, max_size=3).map(json.dumps)
)
ALIASES = st.one_of(
    st.text(max_size=20),
    JSON.map(json.dumps),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b"]), "vendor_id": IDS, "product_id": st.just("1018")},
        optional={
            "device_type": st.sampled_from(["type-PF", "type-VF", "vdpa"]) | JSON,
            "numa_policy": st.sampled_from(["socket", "legacy"]) | JSON,
            "live_migratable": st.sampled_from(["yes", "2"]) | JSON,
            "traits": JSON,
        },
    ).map(json.dumps),
)


@given(st.lists(SPECS, max_size=3))
@settings(max_examples=200, deadline=None)
def test_device_spec_is_parsed_or_refused_with_the_entry(entries: list[str]) -> None:
    findings = check_device_spec(entries, [pf(), vf(), card()])
    specs, error = understood(lambda: DeviceSpecs.parse(entries, PORT))
    assert first_refused(findings) == (error and error.entry)
    for device in (pf(), vf(), card()) if specs else ():
        match = specs.match(device, PORT)
        takers = [finding.entry for finding in findings if device in (finding.takes or ())]
        assert takers == ([] if match is None else [match.spec.source])
        if match is not None:
            "".join((*match.tags, *match.tags.values())).encode()  # a database can hold them


@given(st.lists(ALIASES, max_size=3), st.text(alphabet="ab:,0123 -", max_size=12), st.text(max_size=8))
@settings(max_examples=200, deadline=None)
def test_aliases_are_parsed_or_refused(entries: list[str], value: str, policy: str) -> None:
    aliases, error = understood(lambda: Aliases.parse(entries))
    assert first_refused(check_aliases(entries)) == (error and error.entry)
    if aliases is not None:
        extra_specs = {"pci_passthrough:alias": value, "hw:pci_numa_affinity_policy": policy}
        requested, _ = understood(lambda: requests_from_extra_specs(extra_specs, aliases))
        assert requested is None or all(1 <= request.count <= MAX_COUNT for request in requested.requests)


def understood(read: Callable[[], Read]) -> tuple[Read, None] | tuple[None, InvalidOption]:
    """The parsed value, or the refusal."""
    try:
        return read(), None
    except (InvalidDeviceSpec, InvalidAlias) as error:
        return None, error


def first_refused(findings: list[Finding]) -> str | None:
    return next((finding.entry for finding in findings if finding.refused), None)

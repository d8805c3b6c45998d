"""Look-ups for tests: the devices of a claim, and columns of a device from the database."""

from typing import Any

from portclaim.common.rpc.claim_messages import Claim
from tests.support.fleet import Fleet


def addresses(claim: Claim) -> list[str]:
    return [device.address for device in claim.devices]


def fact_of(fleet: Fleet, host: str, address: str, column: str) -> Any:
    """One column of the device at this address of this host."""
    [(value,)] = fleet.sql(
        f"SELECT d.{column} FROM pci_devices d JOIN compute_nodes n ON n.id = d.compute_node_id"
        " WHERE n.host = :host AND d.address = :address",
        host=host,
        address=address,
    )
    return value


def all_are(status: str, *addresses: str) -> dict[str, str]:
    return dict.fromkeys(addresses, status)


def fact(fleet: Fleet, address: str, column: str) -> Any:
    """One column of the device at this address, in a fleet of one host."""
    [(value,)] = fleet.sql(f"SELECT {column} FROM pci_devices WHERE address = :address", address=address)
    return value


def present(fleet: Fleet) -> set[str]:
    """The addresses that the latest report of each host listed."""
    return {address for (address,) in fleet.sql("SELECT address FROM pci_devices WHERE present")}

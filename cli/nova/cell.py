"""Read what a Nova cell's database says of PCI devices: read only, in one snapshot."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from portclaim.common.errors import InvalidConfiguration, InvalidRequest, ServiceUnavailable

_DRIVERS = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
_GONE = ("removed", "deleted")
_CONNECT_TIMEOUT = 10  # seconds

_NODES = sa.table("compute_nodes", *map(sa.column, ("id", "host", "deleted")))
_DEVICES = sa.table(
    "pci_devices",
    *map(
        sa.column,
        (
            "compute_node_id",
            "address",
            "dev_type",
            "vendor_id",
            "product_id",
            "numa_node",
            "parent_addr",
            "status",
            "instance_uuid",
            "request_id",
            "deleted",
        ),
    ),
)
_INSTANCES = sa.table("instances", *map(sa.column, ("uuid", "host", "vm_state", "task_state", "deleted")))
_EXTRA = sa.table("instance_extra", *map(sa.column, ("instance_uuid", "pci_requests", "deleted")))


@dataclass(frozen=True, slots=True)
class NovaDevice:
    """A row of ``pci_devices``. ``address`` and ``parent_address`` are as Nova wrote them."""

    address: str
    dev_type: str
    vendor_id: str
    product_id: str
    numa_node: int | None
    parent_address: str | None
    status: str
    instance_id: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class NovaInstance:
    """An instance that has devices. ``requests`` are the PCI requests that Nova keeps with it."""

    uuid: str
    host: str | None
    vm_state: str | None
    task_state: str | None
    requests: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class NovaCell:
    """The compute nodes of a cell with their devices by host, and the instances of these devices by UUID.

    A host without devices has an empty list. A host of several compute nodes has the devices of all.
    """

    hosts: Mapping[str, Sequence[NovaDevice]]
    instances: Mapping[str, NovaInstance]


def read_cell(url: str, only: Collection[str] = ()) -> NovaCell:
    """Read a cell, or ``only`` these hosts of it.

    Raises :class:`InvalidConfiguration` for a URL or a database that is no cell's,
    :class:`ServiceUnavailable` if the database cannot be read, :class:`InvalidRequest` for an unknown host.
    """
    engine = _engine(url)
    try:
        with engine.connect() as connection, connection.begin():
            return _read(connection, sorted(only))
    except exc.ProgrammingError as error:
        raise InvalidConfiguration(
            "--database is not the database of a Nova cell, or its role may not read it: give the one that "
            f"[database] connection of that cell's nova.conf names ({_said(error)})"
        ) from error
    except exc.DBAPIError as error:
        raise ServiceUnavailable(f"Nova's database cannot be read: {_said(error)}") from error
    finally:
        engine.dispose()


def _engine(text: str) -> sa.Engine:
    try:
        url = sa.make_url(text)
    except exc.ArgumentError as error:
        raise InvalidConfiguration(
            "--database is no URL: write postgresql://USER:PASSWORD@HOST/DATABASE or mysql://…"
        ) from error
    kind = url.get_backend_name()
    if kind not in _DRIVERS:
        raise InvalidConfiguration(f"--database is {kind}: Nova's database is postgresql or mysql")
    options: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT}
    if kind == "postgresql":
        options["application_name"] = "portclaim import nova"
    return sa.create_engine(
        url.set(drivername=_DRIVERS[kind]),
        poolclass=sa.NullPool,
        isolation_level="REPEATABLE READ",  # all that is read is of one moment
        connect_args=options,
    )


def _read(connection: sa.Connection, only: Sequence[str]) -> NovaCell:
    is_wanted = sa.and_(_NODES.c.deleted == 0, _NODES.c.host.is_not(None))
    if only:
        is_wanted = sa.and_(is_wanted, _NODES.c.host.in_(only))
    hosts: dict[str, list[NovaDevice]] = {
        host: [] for host in connection.scalars(sa.select(_NODES.c.host).where(is_wanted))
    }
    if unknown := sorted(set(only) - set(hosts)):
        raise InvalidRequest(f"Nova has no compute node of host {', '.join(unknown)}")
    of_nodes = sa.and_(
        is_wanted,
        _DEVICES.c.compute_node_id == _NODES.c.id,
        _DEVICES.c.deleted == 0,
        _DEVICES.c.status.not_in(_GONE),
    )
    about = _DEVICES.c
    devices = sa.select(
        _NODES.c.host,
        about.address,
        about.dev_type,
        about.vendor_id,
        about.product_id,
        about.numa_node,
        about.parent_addr,
        about.status,
        about.instance_uuid,
        about.request_id,
    ).where(of_nodes)
    for host, *facts in connection.execute(devices):
        hosts[host].append(NovaDevice(*facts))
    holders = sa.select(_DEVICES.c.instance_uuid).where(of_nodes, about.instance_uuid.is_not(None))
    instances = (
        sa.select(
            _INSTANCES.c.uuid,
            _INSTANCES.c.host,
            _INSTANCES.c.vm_state,
            _INSTANCES.c.task_state,
            _EXTRA.c.pci_requests,
        )
        .select_from(
            _INSTANCES.outerjoin(
                _EXTRA, sa.and_(_EXTRA.c.instance_uuid == _INSTANCES.c.uuid, _EXTRA.c.deleted == 0)
            )
        )
        .where(_INSTANCES.c.deleted == 0, _INSTANCES.c.uuid.in_(holders))
    )
    found: dict[str, NovaInstance] = {}
    for uuid, host, vm_state, task_state, requests in connection.execute(instances):
        found[uuid] = NovaInstance(uuid, host, vm_state, task_state, _requests(requests))
    return NovaCell(hosts, found)


def _requests(text: str | None) -> Sequence[Mapping[str, Any]]:
    """The PCI requests of an instance. Without a meaning to us they count as none: each device says so."""
    try:
        requests = json.loads(text or "[]")
    except ValueError:
        return ()
    return [each for each in requests if isinstance(each, dict)] if isinstance(requests, list) else ()


def _said(error: exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]

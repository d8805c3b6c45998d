"""Quotas: how much the claims of a project may have. Set here, kept by the claim's transaction.

The functions are in common/db/sql/quotas.sql.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from portclaim.common.db import audit
from portclaim.common.db.audit import NOT_SAID, Order
from portclaim.common.errors import InvalidRequest

_SET = sa.text("SELECT set_quota(:project, :alias, :max_pfs, :max_vfs, :max_waiting)")
_UNSET = sa.text("SELECT unset_quota(:project, :alias)")
_LIST = sa.text("""
    SELECT project, nullif(alias, ''), max_pfs, pfs, max_vfs, vfs, max_waiting, waiting
      FROM project_quotas
     WHERE (cast(:project AS text) IS NULL OR project = :project)
       AND (project, alias) > (:after_project, :after_alias)
     ORDER BY project_quotas.project, project_quotas.alias
     LIMIT :limit
""")


class Limits(NamedTuple):
    """The most that the claims of a project may have. Null: no limit.

    PFs include devices without VFs.
    """

    max_pfs: int | None = None
    max_vfs: int | None = None
    max_waiting: int | None = None


class Quota(NamedTuple):
    """A quota and its use. ``alias``: it counts what is requested by this alias; null: everything.

    ``waiting``: claims that wait in queues.
    """

    project: str
    alias: str | None
    max_pfs: int | None
    pfs: int
    max_vfs: int | None
    vfs: int
    max_waiting: int | None
    waiting: int


def set_quota(
    connection: sa.Connection, project: str, alias: str | None, limits: Limits, order: Order = NOT_SAID
) -> None:
    """Set the quota of a project for an alias, or for everything. Claims beyond it stay.

    Raises :class:`InvalidRequest` if it limits nothing.
    """
    if limits == Limits():
        raise InvalidRequest("the quota limits nothing: give max_pfs, max_vfs or max_waiting, or unset it")
    connection.execute(_SET, {"project": project, "alias": alias or "", **limits._asdict()})
    most = ", ".join(f"{name} {value}" for name, value in limits._asdict().items() if value is not None)
    audit.record(connection, order.who, "set-quota", f"{_place(project, alias)}: {most}", order.reason)


def unset_quota(connection: sa.Connection, project: str, alias: str | None, order: Order = NOT_SAID) -> None:
    """Remove a quota. Raises :class:`InvalidRequest` if there is none."""
    if not connection.scalar(_UNSET, {"project": project, "alias": alias or ""}):
        of = "all devices" if alias is None else f"alias {alias!r}"
        raise InvalidRequest(f"project {project!r} has no quota for {of}")
    audit.record(connection, order.who, "unset-quota", _place(project, alias), order.reason)


def _place(project: str, alias: str | None) -> str:
    return project if alias is None else f"{project} {alias}"


def quotas(
    connection: sa.Connection,
    project: str | None = None,
    after: tuple[str, str | None] | None = None,
    limit: int | None = None,
) -> list[Quota]:
    """Quotas by project and alias, those after this project and alias."""
    after_project, after_alias = after or ("", "")
    facts = {"project": project, "after_project": after_project, "after_alias": after_alias or ""}
    return [Quota(*row) for row in connection.execute(_LIST, {**facts, "limit": limit})]

"""Quotas of projects over HTTP: set, list and unset them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from portclaim.common.db import quotas
from portclaim.common.db.audit import Order
from portclaim.common.db.quotas import Limits
from portclaim.common.rpc.fields import Message, Number, Text
from portclaim.common.rpc.fields import Project as ProjectName
from portclaim.common.rpc.operator_messages import Reason
from portclaim.services.api.access import Anyone, Operator
from portclaim.services.api.bodies import PageLimit, ReasonInQuery, answer
from portclaim.services.api.problems import Forbidden, responses

router = APIRouter(prefix="/v1", tags=["quotas"])

AliasName = Annotated[Text, Field(min_length=1, max_length=255)]


class _Limits(Message):
    alias: AliasName | None = Field(
        default=None, description="Count what is requested by this alias. Null: everything."
    )
    max_pfs: Number | None = Field(default=None, description="PFs, and devices without VFs. Null: no limit.")
    max_vfs: Number | None = Field(default=None, description="VFs. Null: no limit.")
    max_waiting: Number | None = Field(
        default=None, description="Claims that wait in queues. Null: no limit."
    )


class QuotaBody(_Limits):
    """How much the claims of a project may have. At least one limit is given."""

    reason: Reason | None = Field(default=None, description="Why, for the audit.")


class QuotaRow(_Limits):
    """A quota and its use."""

    project: str
    pfs: int = Field(description="PFs, and devices without VFs, that the claims hold.")
    vfs: int = Field(description="VFs that the claims hold.")
    waiting: int = Field(description="Claims that wait.")


class QuotaRows(Message):
    """A list of quotas."""

    quotas: list[QuotaRow]
    more: bool = Field(description="True: there are more than `limit`.")
    after: str | None = Field(
        description="Give it to the next call to get the next page. Null: there is none."
    )


@router.get("/quotas", response_model=QuotaRows, responses=responses())
async def list_quotas(
    caller: Anyone,
    project: Annotated[ProjectName | None, Query()] = None,
    limit: PageLimit = 100,
    after: Annotated[Text | None, Query(max_length=2000, description="`after` of the last answer.")] = None,
) -> Response:
    """List quotas and their use, by project and alias."""
    if caller.project is not None and project not in {None, caller.project}:
        raise Forbidden(f"the token is for project {caller.project!r}")
    of, _, alias = (after or "").partition("/")
    rows = await caller.backend.query(
        lambda c: quotas.quotas(c, caller.project or project, (of, alias), limit + 1)
    )
    shown = [QuotaRow(**row._asdict()) for row in rows[:limit]]
    more = len(rows) > limit
    last = f"{shown[-1].project}/{shown[-1].alias or ''}" if more else None
    return answer(QuotaRows(quotas=shown, more=more, after=last))


@router.put("/quotas/{project}", status_code=204, responses=responses())
async def set_quota(project: ProjectName, body: QuotaBody, caller: Operator) -> Response:
    """Set a quota of a project. Claims that are beyond it already stay."""
    limits = Limits(body.max_pfs, body.max_vfs, body.max_waiting)
    order = Order(caller.name, body.reason)
    await caller.backend.query(lambda c: quotas.set_quota(c, project, body.alias, limits, order))
    return Response(status_code=204)


@router.delete("/quotas/{project}", status_code=204, responses=responses())
async def unset_quota(
    project: ProjectName,
    caller: Operator,
    alias: Annotated[AliasName | None, Query()] = None,
    reason: ReasonInQuery = None,
) -> Response:
    """Remove the quota of a project for an alias, or without `alias` the one for everything."""
    order = Order(caller.name, reason)
    await caller.backend.query(lambda c: quotas.unset_quota(c, project, alias, order))
    return Response(status_code=204)

"""What operators did, over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from portclaim.common.db import audit
from portclaim.common.db.audit import Action, Wanted
from portclaim.common.rpc.fields import Message, Text
from portclaim.services.api.access import Operator
from portclaim.services.api.bodies import PageLimit, answer
from portclaim.services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["audit"])

_Wanted = Annotated[Text | None, Query(max_length=1000)]


class ActRow(Message):
    """What an operator did."""

    id: int
    at: str
    who: str | None = Field(description="The token's name, or what a caller over RPC gave. Null: nothing.")
    action: str
    object: str = Field(description="The claim, host, port, token or quota.")
    reason: str | None


class ActRows(Message):
    """A list of acts."""

    acts: list[ActRow]
    more: bool = Field(description="True: there are more than `limit`.")
    after: int | None = Field(
        description="Give it to the next call to get the next page. Null: there is none."
    )


@router.get("/audit", response_model=ActRows, responses=responses())
async def list_audit(
    caller: Operator,
    who: _Wanted = None,
    action: Annotated[Action | None, Query()] = None,
    object: _Wanted = None,
    limit: PageLimit = 100,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="`after` of the last answer.")] = None,
) -> Response:
    """List what operators did, the newest first: who, what, when and why."""
    rows = await caller.backend.query(lambda c: audit.acts(c, Wanted(who, action, object), limit + 1, after))
    shown = [ActRow(**{**row._asdict(), "at": row.at.isoformat()}) for row in rows[:limit]]
    more = len(rows) > limit
    return answer(ActRows(acts=shown, more=more, after=shown[-1].id if more else None))

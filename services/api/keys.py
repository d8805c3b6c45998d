"""Tokens over HTTP: make, list and revoke them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path
from starlette.responses import Response

from portclaim.common.db import audit, tokens
from portclaim.common.db.audit import Order
from portclaim.common.errors import InvalidRequest
from portclaim.common.rpc.fields import Text
from portclaim.services.api.access import Anyone, Operator
from portclaim.services.api.bodies import (
    Holder,
    NewToken,
    ReasonInQuery,
    TokenBody,
    TokenRow,
    TokenRows,
    answer,
)
from portclaim.services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["tokens"])


@router.post("/tokens", response_model=NewToken, responses=responses())
async def create_token(body: TokenBody, caller: Operator) -> Response:
    """Make a token. Only this answer has it."""
    if caller.backend.keystone is not None:
        raise InvalidRequest("[api] auth = keystone: ask Keystone for tokens")
    valid_for = None if body.valid_for is None else timedelta(seconds=body.valid_for)

    def create(connection: sa.Connection) -> str:
        made = tokens.create(connection, body.name, body.role, body.project, valid_for)
        audit.record(connection, caller.name, "create-token", body.name, body.reason)
        return made

    token = await caller.backend.query(create)
    return answer(NewToken(name=body.name, token=token))


@router.get("/token", response_model=Holder, responses=responses())
async def show_token(caller: Anyone) -> Response:
    """Say whose token this is."""
    return answer(Holder(name=caller.name, role=caller.role, project=caller.project))


@router.get("/tokens", response_model=TokenRows, responses=responses())
async def list_tokens(caller: Operator, all: bool = False) -> Response:
    """List the valid tokens by name; with `all` also those that were revoked or have expired."""
    rows = await caller.backend.query(lambda c: tokens.tokens(c, every=all))
    times = ("created_at", "expires_at", "revoked_at")
    shown = [
        TokenRow(
            **{
                **row._asdict(),
                **{each: value.isoformat() if (value := getattr(row, each)) else None for each in times},
            }
        )
        for row in rows
    ]
    return answer(TokenRows(tokens=shown))


@router.delete("/tokens/{name}", status_code=204, responses=responses())
async def revoke_token(
    name: Annotated[Text, Path(min_length=1, max_length=255)], caller: Operator, reason: ReasonInQuery = None
) -> Response:
    """Make a token invalid, within 5 seconds everywhere."""
    await caller.backend.query(lambda c: tokens.revoke(c, name, Order(caller.name, reason)))
    return Response(status_code=204)

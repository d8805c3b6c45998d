"""Who sends a request, and what the role and the project of the token allow."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from portclaim.common.db import tokens
from portclaim.common.db.tokens import Holder, Role
from portclaim.common.errors import ClaimNotFound, ClaimRefused, PortclaimError
from portclaim.common.rpc.claim_messages import Explanation
from portclaim.services.api.backend import Backend
from portclaim.services.api.problems import Forbidden, Unauthorized

REMEMBERED = 5.0  # seconds: a token that was revoked works for at most so much longer
_MOST_REMEMBERED = 10_000

_bearer = HTTPBearer(auto_error=False, description="A token of `portclaim token create`.")

_FOREIGN = sa.text("""
    SELECT wanted.id
      FROM unnest(cast(:claim_ids AS uuid[])) AS wanted (id)
      LEFT JOIN claims c ON c.id = wanted.id
     WHERE c.request ->> 'project' IS DISTINCT FROM :project
     LIMIT 1
""")
_INSTANCE = re.compile(r"instance [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Remembered(NamedTuple):
    holder: Holder
    until: float


class Caller(NamedTuple):
    """Who sends the request, and the backend that serves it."""

    name: str
    role: Role
    project: str | None
    backend: Backend
    is_valid: Callable[[], Awaitable[bool]]
    """Whether the token is still good. It is asked for during a request that takes long."""

    async def check_claims(self, claim_ids: Collection[UUID]) -> None:
        """Raise :class:`ClaimNotFound` unless all these claims are of the caller's project."""
        if self.project is None or not claim_ids:
            return
        facts = {"claim_ids": list(claim_ids), "project": self.project}
        foreign = await self.backend.query(lambda c: c.scalar(_FOREIGN, facts))
        if foreign is not None:
            raise ClaimNotFound(f"there is no claim {foreign}", claim_id=str(foreign))

    def project_of(self, asked: str | None) -> str | None:
        """The project of a new claim. Raises :class:`Forbidden` for another one than the token's."""
        if self.project is not None and asked not in {None, self.project}:
            raise Forbidden(f"the token is for project {self.project!r}: it cannot claim for {asked!r}")
        return self.project if self.project is not None else asked

    def hide(self, text: str | None) -> str | None:
        """Text without the instances of others, for a caller that has a project."""
        if self.project is None or text is None:
            return text
        return _INSTANCE.sub("another instance", text)

    def hide_holders(self, why: Explanation) -> Explanation:
        """An explanation without the instances of others, for a caller that has a project."""
        if self.project is None:
            return why
        misses = [miss.model_copy(update={"held_by": []}) for miss in why.misses]
        return why.model_copy(update={"misses": misses, "nearest_miss": self.hide(why.nearest_miss)})

    def refusal(self, error: PortclaimError) -> PortclaimError:
        """A refused claim says who holds the devices. A caller that has a project does not hear that."""
        if self.project is None or not isinstance(error, ClaimRefused):
            return error
        why = dict(error.kwargs.get("explanation", {}))
        why["misses"] = [{**miss, "held_by": []} for miss in why.get("misses", ())]
        why["nearest_miss"] = self.hide(why.get("nearest_miss"))
        return ClaimRefused(self.hide(error.message) or "", **{**error.kwargs, "explanation": why})


class Doorkeeper:
    """Knows who has which token. It remembers this for some seconds."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._remembered: dict[str, _Remembered] = {}

    async def caller(self, request: Request, given: str | None) -> Caller:
        """Who sends the request, with the bearer token ``given``. Raises :class:`Unauthorized`.

        With Keystone the token may be in X-Auth-Token too.
        """
        token = given or (request.headers.get("X-Auth-Token") if self._backend.keystone else None)
        if not token:
            raise Unauthorized("the request has no token: send the header Authorization: Bearer TOKEN")
        known = self._remembered.get(token)
        if known is None or known.until < time.monotonic():
            self._remembered.pop(token, None)
            holder, lasts = await self._holder(request, token)
            known = _Remembered(holder, time.monotonic() + REMEMBERED)
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            if lasts:
                self._remembered[token] = known
        return Caller(*known.holder, self._backend, lambda: self._is_valid(request, given))

    async def _holder(self, request: Request, token: str) -> tuple[Holder, bool]:
        """Who has the token, and whether that holds for other requests too."""
        if keystone := self._backend.keystone:
            return await self._backend.call(keystone.holder, token, request.method, request.url.path)
        holder = await self._backend.query(lambda c: tokens.holder(c, token))
        if holder is None:
            raise Unauthorized("the token is unknown, was revoked or has expired")
        return holder, True

    async def _is_valid(self, request: Request, given: str | None) -> bool:
        try:
            await self.caller(request, given)
        except (Unauthorized, Forbidden):
            return False
        except PortclaimError:  # nobody knows now
            return True
        return True


def _allow(
    roles: Collection[Role], whole_fleet: bool
) -> Callable[[Request, HTTPAuthorizationCredentials | None], Awaitable[Caller]]:
    async def caller(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
    ) -> Caller:
        doorkeeper: Doorkeeper = request.app.state.doorkeeper
        found = await doorkeeper.caller(request, None if given is None else given.credentials)
        if found.role not in roles:
            raise Forbidden(f"this needs a token with the role {' or '.join(sorted(roles))}")
        if whole_fleet and found.project is not None:
            raise Forbidden(f"the token is for project {found.project!r}: this shows all projects")
        return found

    return caller


Anyone = Annotated[Caller, Depends(_allow({"reader", "claimer", "operator"}, whole_fleet=False))]
FleetReader = Annotated[Caller, Depends(_allow({"reader", "operator"}, whole_fleet=True))]
Claimer = Annotated[Caller, Depends(_allow({"claimer", "operator"}, whole_fleet=False))]
Operator = Annotated[Caller, Depends(_allow({"operator"}, whole_fleet=False))]

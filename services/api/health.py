"""Whether the API runs, and whether what it needs answers. These paths need no token."""

from __future__ import annotations

import asyncio
import time

import sqlalchemy as sa
from fastapi import APIRouter, Request
from starlette.responses import Response

from portclaim.common.errors import PortclaimError
from portclaim.services.api.backend import Backend
from portclaim.services.api.bodies import Health, answer
from portclaim.services.api.problems import RETRY_AFTER

router = APIRouter(tags=["health"])

_FRESH = 1.0  # seconds for which a result is answered again: anybody may ask
_PATIENCE = 5.0  # seconds
_SCHEMA = sa.text("SELECT count(*) FROM api_tokens WHERE false")


class Readiness:
    """Asks a scheduler over the bus and the database, at most once a second."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._asking: asyncio.Task[Health] | None = None
        self._until = 0.0

    async def ask(self) -> Health:
        if self._asking is None or (self._asking.done() and time.monotonic() > self._until):
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Health:
        bus, database = await asyncio.gather(
            _outcome(self._backend.call(self._backend.scheduler.ping)),
            _outcome(self._backend.query(lambda c: c.scalar(_SCHEMA))),
        )
        self._until = time.monotonic() + _FRESH
        status = "ok" if bus == database == "ok" else "unavailable"
        return Health(status=status, checks={"scheduler": bus, "database": database})


async def _outcome(check) -> str:  # type: ignore[no-untyped-def]
    try:
        await asyncio.wait_for(check, _PATIENCE)
    except TimeoutError:
        return f"does not answer within {_PATIENCE:g} s"
    except PortclaimError as error:
        return error.message
    except sa.exc.SQLAlchemyError as error:
        return type(error).__name__
    return "ok"


@router.get("/healthz", response_model=Health)
async def healthz() -> Response:
    """The API runs."""
    return answer(Health(status="ok"))


@router.get("/readyz", response_model=Health, responses={503: {"model": Health, "description": "It is not."}})
async def readyz(request: Request) -> Response:
    """A scheduler answers over the bus, and the database answers."""
    readiness: Readiness = request.app.state.readiness
    health = await readiness.ask()
    if health.status == "ok":
        return answer(health)
    response = answer(health, 503)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response

"""The application: its paths, its limits, and its OpenAPI document."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import JSONResponse, Response

from portclaim.services.api import (
    audit,
    claims,
    fleet,
    health,
    history,
    keys,
    links,
    map,
    moves,
    page,
    problems,
    quotas,
    refusals,
    stream,
)
from portclaim.services.api.access import Anyone, Doorkeeper
from portclaim.services.api.backend import Backend
from portclaim.services.api.health import Readiness
from portclaim.services.api.limits import BodyLimits
from portclaim.services.api.observed import Observed
from portclaim.services.api.problems import Problem

_ABOUT = """\
Claims of SR-IOV ports over HTTP. Every request but `/healthz` and `/readyz` needs a bearer token.

Every error is a problem (RFC 9457). Every request can be repeated safely.
"""

document = APIRouter(prefix="/v1", tags=["document"])


@document.get("/openapi.json", responses=problems.responses(), response_class=JSONResponse)
async def openapi(request: Request, _caller: Anyone) -> Response:
    """This document."""
    return JSONResponse(request.app.openapi())


class Api(FastAPI):
    """FastAPI with problems in place of its own errors, in the document too."""

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            made = super().openapi()
            schemas = made["components"]["schemas"]
            schemas["Problem"] = Problem.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            links.add_to(made)
            self.openapi_schema = made
        return self.openapi_schema


def create_app(backend: Backend | None) -> FastAPI:
    """The application. Without a backend it is good for its OpenAPI document only."""
    app = Api(
        title="Portclaim",
        description=_ABOUT,
        version=version("portclaim"),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        telemetry={"metrics": False, "logs": False, "operation_spans": False},  # only a span of the request
        generate_unique_id_function=lambda route: route.name,
    )
    for part in (claims, refusals, moves, fleet, map, history, stream, quotas, keys, audit, health, page):
        app.include_router(part.router)
    app.include_router(document)
    problems.install(app)
    if backend is not None:
        app.state.doorkeeper = Doorkeeper(backend)
        app.state.readiness = Readiness(backend)
        app.add_middleware(
            BodyLimits, max_body=backend.options.max_body, timeout=backend.options.request_timeout
        )
        app.add_middleware(Observed)
    return app

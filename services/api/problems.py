"""Errors as problems (RFC 9457): which status and which ``type`` each has.

docs/reference/problems.md is made from this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from portclaim.common import errors
from portclaim.common.errors import PortclaimError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 1  # seconds

_TYPE = "urn:portclaim:problem:"


class Unauthorized(PortclaimError):
    """The request has no token, or an unknown, revoked or expired one. Send `Authorization: Bearer TOKEN`."""


class Forbidden(PortclaimError):
    """The role or the project of the token does not allow the request."""


class NotFound(PortclaimError):
    """There is nothing at this path."""


class MethodNotAllowed(PortclaimError):
    """The path does not take this method."""


class RequestTimeout(PortclaimError):
    """The body of the request did not arrive in time."""


class ContentTooLarge(PortclaimError):
    """The body of the request is longer than `[api] max_body`."""


class Busy(PortclaimError):
    """Too many requests wait already. Repeat the request after `Retry-After` seconds."""


STATUSES: dict[type[PortclaimError], HTTPStatus] = {
    errors.InvalidMessage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ClaimRefused: HTTPStatus.CONFLICT,
    errors.QuotaExceeded: HTTPStatus.FORBIDDEN,
    errors.ClaimConflict: HTTPStatus.CONFLICT,
    errors.ClaimNotFound: HTTPStatus.NOT_FOUND,
    errors.MoveConflict: HTTPStatus.CONFLICT,
    errors.MoveNotFound: HTTPStatus.NOT_FOUND,
    errors.UnknownHost: HTTPStatus.NOT_FOUND,
    errors.HostIsAlive: HTTPStatus.CONFLICT,
    errors.HostInUse: HTTPStatus.CONFLICT,
    errors.UnsupportedVersion: HTTPStatus.NOT_IMPLEMENTED,
    errors.ServiceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServiceFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    RequestTimeout: HTTPStatus.REQUEST_TIMEOUT,
    ContentTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Busy: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The errors that the API answers, with the status of each."""


class Problem(BaseModel):
    """An error, as RFC 9457 has it. Some types have more members, such as ``explanation``."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Says what went wrong, for programs. It never changes.")
    title: str = Field(description="The same in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong here and what to do, for people.")


class Fault(NamedTuple):
    """An error as the API answers it."""

    status: HTTPStatus
    body: dict[str, Any]
    headers: Mapping[str, str]

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers, MEDIA_TYPE)


def name_of(kind: type[PortclaimError]) -> str:
    """The last word of the type, for example ``claim-refused``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


def type_of(kind: type[PortclaimError]) -> str:
    """The type of the problem, for example ``urn:portclaim:problem:claim-refused``."""
    return _TYPE + name_of(kind)


def fault_of(error: PortclaimError) -> Fault:
    """How the API answers this error. One that it does not know is a failure of a service."""
    kind = type(error) if type(error) in STATUSES else errors.ServiceFailed
    status = STATUSES[kind]
    headers = {}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER)
    if kind is Unauthorized:
        headers["WWW-Authenticate"] = "Bearer"
    title = name_of(kind).replace("-", " ")
    body = {**error.kwargs, "type": type_of(kind), "title": title, "status": status, "detail": error.message}
    return Fault(status, body, headers)


def invalid(faults: list[dict[str, Any]] | Any) -> errors.InvalidMessage:
    """The error for what pydantic says of a request."""
    found = [
        {"field": ".".join(str(part) for part in fault["loc"]), "fault": fault["msg"]} for fault in faults
    ]
    said = "; ".join(
        f"{each['field']}: {each['fault']}" if each["field"] else each["fault"] for each in found[:5]
    )
    return errors.InvalidMessage(said or "the request is not valid", faults=found)


def responses(*kinds: type[PortclaimError]) -> dict[int | str, dict[str, Any]]:
    """The answers of a path that are problems, for the OpenAPI document."""
    every = (*kinds, *EVERYWHERE)
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({STATUSES[kind] for kind in every}):
        types = ", ".join(f"`{name_of(kind)}`" for kind in every if STATUSES[kind] == status)
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        found[int(status)] = {"description": f"Problem: {types}", "content": content}
    return found


EVERYWHERE = (
    Unauthorized,
    Forbidden,
    errors.InvalidMessage,
    errors.InvalidRequest,
    RequestTimeout,
    ContentTooLarge,
    Busy,
    errors.ServiceUnavailable,
    errors.ServiceFailed,
    errors.UnsupportedVersion,
)


def install(app: FastAPI) -> None:
    """Answer every error of the application as a problem."""

    @app.exception_handler(PortclaimError)
    async def _ours(_request: Request, error: PortclaimError) -> JSONResponse:
        return fault_of(error).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return fault_of(invalid(error.errors())).response()

    @app.exception_handler(ValidationError)
    async def _invalid_message(_request: Request, error: ValidationError) -> JSONResponse:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        return fault_of(invalid(faults)).response()

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        match error.status_code:
            case 404:
                fault = fault_of(NotFound("there is nothing at this path: see the HTTP API's reference"))
            case 405:
                fault = fault_of(MethodNotAllowed("the path does not take this method"))
            case 400:
                fault = fault_of(errors.InvalidMessage(f"the body cannot be read: {error.detail}"))
            case _:
                fault = fault_of(errors.ServiceFailed(str(error.detail)))
        response = fault.response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
        failed = errors.ServiceFailed("the request failed because of a fault in the API: read its log")
        return fault_of(failed).response()

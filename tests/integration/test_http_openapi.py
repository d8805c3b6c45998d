"""Generated requests: every answer of the HTTP API is one that its OpenAPI document describes.

``PORTCLAIM_SCHEMATHESIS=1000`` sends so many requests to each operation, and not a few.
"""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from portclaim.services.api.app import create_app
from tests.support import postgresql
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi, http_api

REQUESTS = int(os.environ.get("PORTCLAIM_SCHEMATHESIS", "5"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def small(part: Any) -> Any:
    """The document with short lists: a thousand claims in a body take minutes to generate."""
    if isinstance(part, dict):
        shorter = {"maxItems": 2} if part.get("type") == "array" and "maxItems" in part else {}
        return {name: small(value) for name, value in part.items()} | shorter
    return [small(value) for value in part] if isinstance(part, list) else part


schema = schemathesis.openapi.from_dict(small(create_app(None).openapi()))
OPERATIONS = [found.ok() for found in schema.get_all_operations()]


@pytest.fixture(scope="module")
def api() -> Iterator[HttpApi]:
    """One API for all requests. What they claim stays claimed."""
    url = postgresql.create_database()
    fleet = Fleet(url)
    for number in range(4):
        fleet.host(f"h{number}", ports=4, vfs=4)
    with http_api(fleet, url) as api:
        yield api
    fleet.close()
    postgresql.drop_database(url)


@pytest.fixture(scope="module")
def token(api: HttpApi) -> str:
    return api.token("operator")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_every_answer_is_as_the_document_says(
    operation: Any, mode: GenerationMode, api: HttpApi, token: str
) -> None:
    parts = (operation.path_parameters, operation.query, operation.headers, operation.body)
    if mode is GenerationMode.NEGATIVE and not any(len(list(part)) for part in parts):
        return  # there is nothing in the request that can be wrong

    @settings(
        max_examples=REQUESTS,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if case.path in {"/v1/events", "/v1/device-events", "/v1/map"}:
            case.query["until"] = 0.05  # a stream that never ends has no answer to look at
        headers = {"Authorization": f"Bearer {token}"}
        answer = case.call(base_url=api.url, headers=headers, timeout=30)
        case.validate_response(answer, checks=CHECKS)

    ask()


def test_the_document_is_served_to_who_has_a_token(api: HttpApi, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    served = httpx.get(f"{api.url}/v1/openapi.json", headers=headers).json()
    assert served["openapi"].startswith("3.1")
    assert served == create_app(None).openapi()

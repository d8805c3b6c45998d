"""Generated sequences of requests that follow the links of the OpenAPI document.

``PORTCLAIM_SCHEMATHESIS=1000`` runs so many sequences, and not a few.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from portclaim.services.api.app import create_app
from tests.support import postgresql
from tests.support.fleet import Fleet
from tests.support.http_api import HttpApi, asked, http_api

SEQUENCES = int(os.environ.get("PORTCLAIM_SCHEMATHESIS", "6"))
INSTANCE = "a0000000-0000-4000-8000-000000000001"
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
OPERATIONS = ["put_claim", "get_claim", "delete_claim", "set_quota", "unset_quota"]


@contextmanager
def new_api() -> Iterator[HttpApi]:
    """An API on a database of its own."""
    url = postgresql.create_database()
    fleet = Fleet(url)
    fleet.host("h1", ports=2, vfs=2)
    with http_api(fleet, url) as api:
        yield api
    fleet.close()
    postgresql.drop_database(url)


def test_every_sequence_of_requests_is_answered_as_the_document_says() -> None:
    schema = schemathesis.openapi.from_dict(create_app(None).openapi())
    machine = schema.include(operation_id=OPERATIONS).as_state_machine()
    answered: Counter[tuple[str, int]] = Counter()

    class Sequences(machine):  # type: ignore[misc, valid-type]
        """Each sequence has a database of its own, so that the same one has the same answers."""

        def setup(self) -> None:
            self.until_end = ExitStack()
            self.api = self.until_end.enter_context(new_api())
            self.headers = {"Authorization": f"Bearer {self.api.token('operator')}"}

        def teardown(self) -> None:
            assert self.api.fleet.faults() == []
            self.until_end.close()

        def before_call(self, case: Any) -> None:
            match case.operation.definition.raw["operationId"]:
                case "put_claim":  # what is generated is nearly always refused
                    case.body = asked("nic-vf:1", instance_id=INSTANCE, wait=60)
                case "get_claim":  # nothing happens while a request waits
                    case.query = {}

        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            return {"base_url": self.api.url, "headers": self.headers, "timeout": 30}

        def after_call(self, response: Any, case: Any) -> None:
            answered[case.operation.definition.raw["operationId"], response.status_code] += 1

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            case.validate_response(response, checks=CHECKS)

    Sequences.run(
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
    )
    assert answered["put_claim", 200] > 0, answered
    assert answered["get_claim", 200] > 0, answered  # by a link: a random id is not found
    assert answered["delete_claim", 200] > 0, answered

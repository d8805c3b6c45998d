"""Problems that the HTTP API answers, as the errors that the scheduler would have raised."""

from __future__ import annotations

import json

from portclaim.common import errors
from portclaim.common.errors import InvalidRequest, PortclaimError


def error_of(status: int, said: bytes) -> PortclaimError:
    """The error that the API answered, as the class that the scheduler would have raised."""
    try:
        problem = json.loads(said)
        name = str(problem["type"]).rpartition(":")[2].title().replace("-", "")
        detail = str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return errors.ServiceFailed(
            f"the API answered with status {status}: {said.decode(errors='replace')[:500]!r}"
        )
    kind = getattr(errors, name, InvalidRequest if status < 500 else errors.ServiceUnavailable)
    facts = {key: value for key, value in problem.items() if key not in {"type", "title", "status", "detail"}}
    made: PortclaimError = kind(detail, **facts)
    return made

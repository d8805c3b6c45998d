"""The services' methods and messages, from their endpoints, clients and schemas."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from portclaim.common import errors
from portclaim.common.rpc import versions
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.endpoint import Endpoint
from portclaim.common.rpc.fields import Message, Nothing
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.services.compute_agent.endpoint import ComputeAgentEndpoint
from portclaim.services.conductor.service import ConductorEndpoint
from portclaim.services.scheduler.endpoint import SchedulerEndpoint

from .text import cell, docstring, table

SERVICES: list[tuple[type[Client], type[Endpoint]]] = [
    (SchedulerClient, SchedulerEndpoint),
    (ConductorClient, ConductorEndpoint),
    (ComputeAgentClient, ComputeAgentEndpoint),
]

_INTRODUCTION = """\
# RPC

The services call each other with oslo.messaging RPC over RabbitMQ. A caller uses the typed clients, as [Write
a client](../how-to/write-a-client.md) shows, and never writes a method's name as a string. This page is for
those who read the bus, or who speak to it from another language.

- A call goes to the topic of its service. The compute agent's topic needs the server's name too: the host.
- The arguments of a method are the fields of its message. A message is strict: an unknown field, a missing
  field or a value of the wrong type is refused with [`InvalidMessage`](#InvalidMessage), and nothing has
  changed.
- Every method is idempotent: a caller that got no answer calls again with the same arguments.
- Every service also has the method `ping`, without arguments and without an answer's fields, and since 1.1
  `about`, which answers the `release` and the `clock` (seconds since 1970) of the service.
- A list is answered page by page: if there are more rows than `limit`, the answer has `after`, for the next
  call with the same filter. Its text means nothing to the caller, and stays valid.
- Besides its own errors, each method can raise [`InvalidMessage`](#InvalidMessage),
  [`ServiceUnavailable`](#ServiceUnavailable), [`ServiceFailed`](#ServiceFailed) and
  [`UnsupportedVersion`](#UnsupportedVersion).
"""


class Method(NamedTuple):
    """A method of a service."""

    name: str
    about: str
    request: type[Message]
    answer: type[Message] | None
    errors: list[str]


def page() -> str:
    parts = [_INTRODUCTION]
    messages: dict[str, type[Message]] = {}
    for client, endpoint in SERVICES:
        parts.append(_service(client))
        for method in methods(client, endpoint):
            parts.append(_method(client, method))
            for message in (method.request, method.answer):
                messages.update(_with_parts(message) if message else {})
    parts.append("\n## Messages\n\nTimes are text in ISO 8601.\n")
    parts += [_message(messages[name]) for name in sorted(messages)]
    parts.append("\n## Errors\n\nAll are classes of `portclaim.common.errors`.\n")
    parts += [_error(kind) for kind in error_classes()]
    return "".join(parts)


def methods(client: type[Client], endpoint: type[Endpoint]) -> Iterator[Method]:
    """The methods that the endpoint exposes, in the order in which it has them.

    They are read from its source: oslo.messaging's decorator keeps no signature.
    """
    names = vars(sys.modules[endpoint.__module__])
    (definition,) = ast.parse(inspect.getsource(endpoint)).body
    for node in ast.walk(definition):
        if not isinstance(node, ast.FunctionDef):
            continue
        match node.decorator_list:
            case [ast.Call(func=ast.Name("exposed"), args=[ast.Name(request)])]:
                answer = names.get(ast.unparse(node.returns)) if node.returns else None
                caller = _caller(client, node.name)
                errors = sorted(_errors(client, caller))
                yield Method(node.name, docstring(getattr(client, caller)), names[request], answer, errors)


def _caller(client: type[Client], method: str) -> str:
    """The client's method that calls it. A cast may have another name, and one method sends all steps."""
    return next(name for name in (method, f"cast_{method}", "send") if hasattr(client, name))


def error_classes() -> list[type[errors.PortclaimError]]:
    """The errors that a call can raise, or a service at its start."""
    kinds = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    return [kind for kind in kinds if issubclass(kind, errors.PortclaimError)]


def _errors(client: type[Client], name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The errors that a method's docstring names, itself or by naming another method."""
    text = inspect.getdoc(getattr(client, name, None)) or ""
    known = {kind.__name__ for kind in error_classes()}
    found = set(re.findall(r"\b[A-Z]\w+\b", text)) & known
    for other in set(re.findall(r"[Rr]aises what :meth:`(\w+)`", text)) - seen - {name}:
        found |= _errors(client, other, seen | {name})
    return found


def _service(client: type[Client]) -> str:
    topic = client.topic
    where = f"{client.__module__}.{client.__name__}"
    return (
        f"\n## {topic}\n\n"
        f"{docstring(client)}\n\n"
        f"Topic `{topic}`, version {versions.spoken(topic)}, client `{where}`.\n"
    )


def _method(client: type[Client], method: Method) -> str:
    answer = "nothing" if method.answer is None else _link(method.answer.__name__)
    request = "nothing" if method.request is Nothing else _link(method.request.__name__)
    facts = [["Arguments", request], ["Answer", answer]]
    if method.errors:
        facts.append(["Errors", ", ".join(map(_link, method.errors))])
    rows = "".join(f"- {name}: {value}\n" for name, value in facts)
    return f"\n### {method.name} {{ #{client.topic}.{method.name} }}\n\n{method.about}\n\n{rows}"


def _message(message: type[Message]) -> str:
    schema = message.model_json_schema()
    needed = schema.get("required", [])
    rows = [
        [
            f"`{name}`",
            _type(field),
            "" if name in needed else f"`{json.dumps(field.get('default'))}`",
            cell(field.get("description", "")),
        ]
        for name, field in schema.get("properties", {}).items()
    ]
    head = ["Field", "Type", "Default", "Meaning"]
    fields = table(head, rows) if rows else "No fields.\n"
    name = message.__name__
    return f"\n### {name} {{ #{name} }}\n\n{docstring(message)}\n\n{fields}"


def _error(kind: type[errors.PortclaimError]) -> str:
    return f"\n### {kind.__name__} {{ #{kind.__name__} }}\n\n{docstring(kind)}\n"


def _link(name: str) -> str:
    return f"[`{name}`](#{name})"


def _with_parts(message: type[Message]) -> dict[str, type[Message]]:
    """A message and those that it contains, by name."""
    found = {} if message is Nothing else {message.__name__: message}
    waiting: list[Any] = [field.annotation for field in message.model_fields.values()]
    while waiting:
        kind = waiting.pop()
        waiting.extend(typing.get_args(kind))
        if inspect.isclass(kind) and issubclass(kind, Message) and kind.__name__ not in found:
            found[kind.__name__] = kind
            waiting.extend(field.annotation for field in kind.model_fields.values())
    return found


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema in words."""
    match schema:
        case {"$ref": where}:
            words = _link(where.rpartition("/")[2])
        case {"anyOf": choices}:
            words = "; or ".join(map(_type, choices))
        case {"enum": values}:
            words = ", ".join(f"`{value}`" for value in values)
        case {"type": "array"}:
            words = f"list of {_type(schema['items'])}{_limits(schema, 'minItems', 'maxItems')}"
        case {"type": "object", "additionalProperties": dict(values)}:
            words = f"object of {_type(values)}"
        case {"type": "string", "format": "uuid"}:
            words = "UUID"
        case {"type": "string", "pattern": pattern}:
            shape = pattern.replace("|", r"\|")
            words = f"text that matches `{shape}`"
        case {"type": "string"}:
            words = f"text{_limits(schema, 'minLength', 'maxLength')}"
        case {"type": "integer" | "number" as kind}:
            kind = {"integer": "whole number", "number": "number"}[kind]
            words = f"{kind}{_limits(schema, 'minimum', 'maximum')}"
        case {"type": kind}:
            words = {"boolean": "true or false"}.get(kind, kind)
        case _:
            words = "any"
    return words


def _limits(schema: dict[str, Any], least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if high is not None:
        return f", {low or 0} to {high:,}"
    return f", at least {low}" if low else ""

"""The HTTP API from its OpenAPI document, and its problems from their classes."""

from __future__ import annotations

import re
from typing import Any

from portclaim.services.api import problems
from portclaim.services.api.app import create_app

from . import rpc
from .text import cell, docstring, plain, table

_INTRODUCTION = """\
# HTTP API

JSON over HTTP for programs that do not speak [RPC](rpc.md). [On one machine](../how-to/serve.md) shows how to
start it and how to get a token. The API's own OpenAPI document is at `/v1/openapi.json`; this page is made
from it. Bodies and answers are the messages of RPC, on [their page](rpc.md#messages).

- Every path but `/healthz` and `/readyz` needs the header `Authorization: Bearer TOKEN`.
- A body is strict: an unknown field, a missing field or a value of the wrong type is refused.
- Every request can be repeated: a claim has an id that the caller chooses, and a release is a release.
- A list is answered page by page: give `after` of the answer to the next request with the same parameters.
- An error is a [problem](problems.md) of the type `application/problem+json`. 503 has `Retry-After`.
- A token with a project sees the claims of that project only, and not the hosts and devices of the fleet.
"""

_PROBLEMS = """\
# Problems

An error of the [HTTP API](http-api.md) is a problem, as RFC 9457 has it: a JSON object with `type`, `title`,
`status` and `detail`. `type` is `urn:portclaim:problem:` and a name of this page. It never changes. `detail`
is for people. Some problems have more members, with the facts.
"""

_MORE = {
    "claim-refused": "`explanation` has the fields of [Explanation](rpc.md#Explanation).",
    "quota-exceeded": "`project`, `alias`, `kind`, `quota`, `used` and `asked` say what is used up.",
    "invalid-message": "`faults` is a list with the `field` and the `fault` of each.",
}
_METHODS = ("get", "put", "post", "delete")


def page() -> str:
    document = create_app(None).openapi()
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in _METHODS
    ]
    parts = [_INTRODUCTION]
    tag = None
    for method, path, operation in operations:
        if operation["tags"] != tag:
            tag = operation["tags"]
            parts.append(f"\n## {tag[0].capitalize()}\n")
        parts.append(_operation(method, path, operation, document["components"]["schemas"]))
    return "".join(parts)


def problems_page() -> str:
    parts = [_PROBLEMS]
    for kind, status in sorted(problems.STATUSES.items(), key=lambda item: problems.name_of(item[0])):
        name = problems.name_of(kind)
        about = docstring(kind).partition("\n\n``kwargs")[0].partition("\n\n`kwargs")[0]
        more = f"\n\n{_MORE[name]}" if name in _MORE else ""
        parts.append(f"\n## {name} {{ #{name} }}\n\nStatus {int(status)}. {about}{more}\n")
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    title = f"{method.upper()} {path}"
    parts = [f"\n### {title} {{ #{operation['operationId']} }}\n\n{plain(operation['description'])}\n\n"]
    if body := operation.get("requestBody"):
        parts.append(f"- Body: {_message(body['content']['application/json']['schema'], schemas)}\n")
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if "application/json" in content:
            schema = content["application/json"]["schema"]
            parts.append(f"- {status}: {_message(schema, schemas) or 'JSON'}\n")
        elif int(status) < 400:
            parts.append(f"- {status}: {answer['description']}\n")
    names = _problems(operation)
    if names:
        links = ", ".join(f"[{name}](problems.md#{name})" for name in names)
        parts.append(f"- Problems: {links}\n")
    if rows := [_parameter(each) for each in operation.get("parameters", ())]:
        parts.append("\n" + table(["Parameter", "In", "Default", "Meaning"], rows))
    return "".join(parts)


def _problems(operation: dict[str, Any]) -> list[str]:
    """The problems of the operation itself, without those that every operation has."""
    everywhere = {problems.name_of(kind) for kind in problems.EVERYWHERE}
    said = " ".join(
        answer["description"] for status, answer in operation["responses"].items() if int(status) >= 400
    )
    return [name for name in re.findall(r"`([a-z-]+)`", said) if name not in everywhere]


def _parameter(parameter: dict[str, Any]) -> list[str]:
    default = parameter["schema"].get("default")
    about = parameter.get("description") or parameter["schema"].get("description") or ""
    shown = "" if default is None else f"`{default}`"
    return [f"`{parameter['name']}`", parameter["in"], shown, cell(about)]


def _message(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    schema = next((each for each in schema.get("anyOf", ()) if "$ref" in each), schema)  # or nothing
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if not name:
        return ""
    if name in _RPC:
        return f"[`{name}`](rpc.md#{name})"
    about = schemas[name].get("description", "").partition("\n")[0]
    fields = ", ".join(f"`{field}`" for field in schemas[name].get("properties", {}))
    return f"`{name}`: {plain(about)} Fields: {fields}."


_RPC = set(re.findall(r"\{ #(\w+) \}", rpc.page()))

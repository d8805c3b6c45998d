"""Messages that no client sends, made at random from the schemas of the services and from below them.

The seed makes them the same in every run. None of them is one that changes something.
"""

from __future__ import annotations

import copy
import json
import random
import string
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from docs._generate import rpc
from portclaim.common.rpc.fields import Message

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**70,
    10**400,
    1e308,
    -0.0,
    "",
    "\0",
    "\ud800",
    "\u202e",
    "'; DROP TABLE claims; --",
    "%s%n{0}",
    "../../etc/passwd",
    "x" * 10_000,
    [],
    {},
    [[[[[]]]]],
    {"": {"": {}}},
    [None] * 1000,
]
# What these do is to answer. They may be called as their schema says.
READS = {
    *("ping", "about", "show", "aliases", "explain", "candidates", "claims", "waiting", "devices", "hosts"),
    *("awaited_steps", "history", "summary", "holdings", "unknown_claims"),
}


class Call(NamedTuple):
    """A message on the bus."""

    topic: str
    body: bytes


class Fuzzer:
    """Makes messages. ``host``: a host that has an agent. Answers are wanted in the queue ``replies``."""

    def __init__(self, seed: int, host: str, replies: str) -> None:
        self._chance = random.Random(seed)
        self._host = host
        self._replies = replies
        self._methods = [
            (topic, method.name, method.request)
            for client, endpoint in rpc.SERVICES
            for method in rpc.methods(client, endpoint)
            for topic in self._topics(client.topic)
        ]
        self._topics_of_all = sorted({topic for topic, _, _ in self._methods})
        self._schemas: dict[type[Message], dict[str, Any]] = {}

    def call(self) -> Call:
        """The next message."""
        kind = self._chance.random()
        if kind < 0.15:
            return Call(self._chance.choice(self._topics_of_all), self._rubbish())
        topic, method, request = self._chance.choice(self._methods)
        envelope = self._envelope(method, self._arguments(method, request))
        if kind < 0.3:
            envelope[self._chance.choice([*envelope, "more"])] = self._odd()
        body = bytearray(json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(envelope)}).encode())
        if kind < 0.5:
            for _ in range(self._chance.choice([1, 1, 3, 20])):
                body[self._chance.randrange(len(body))] = self._chance.randrange(256)
        return Call(topic, bytes(body))

    def http(self, operations: list[tuple[str, str]], token: str) -> bytes:
        """The next request, mostly with the token. The connection ends with it."""
        method, path = self._chance.choice(operations)
        path = "/".join(self._part() if part.startswith("{") else part for part in path.split("/"))
        if self._chance.random() < 0.3:
            path += "?" + "&".join(f"{self._word()}={self._part()}" for _ in range(3))
        content = json.dumps({self._word(): self._odd() for _ in range(3)}).encode()
        if self._chance.random() < 0.3:
            content = self._rubbish()[:100_000]
        head = f"{method.upper()} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        if self._chance.random() < 0.9:
            head += f"Authorization: Bearer {token}\r\n"
        text = bytearray(head.encode("utf-8", "surrogatepass"))
        if self._chance.random() < 0.2:
            text[self._chance.randrange(len(text))] = self._chance.randrange(256)
        return bytes(text) + b"\r\n" + content

    def _topics(self, topic: str) -> list[str]:
        return {
            "conductor": ["conductor", "conductor_reports", "conductor_life"],
            "scheduler": ["scheduler", "scheduler_operators"],
        }.get(topic, [f"compute_agent.{self._host}"])

    def _envelope(self, method: str, arguments: Any) -> dict[str, Any]:
        envelope = {
            "method": method,
            "args": arguments,
            "version": self._chance.choice(["1.0", "1.1", "1.1", "1.99", "2.0", "0.0"]),
            "_unique_id": UUID(int=self._chance.getrandbits(128)).hex,
        }
        if self._chance.random() < 0.2:
            envelope |= {"_msg_id": UUID(int=self._chance.getrandbits(128)).hex, "_reply_q": self._replies}
        if self._chance.random() < 0.2:
            signature: dict[str, Any] = {
                "signer": f"host:{self._host}",
                "key": "0" * 16,
                "number": 2**60,
                "value": "AA==",
            }
            signature[self._chance.choice(list(signature))] = self._odd()
            envelope["_context_portclaim_signature"] = signature
        return envelope

    def _arguments(self, method: str, request: type[Message]) -> Any:
        """Arguments as the schema says, with some values changed; never ones that could change something."""
        schema = self._schemas.setdefault(request, request.model_json_schema())
        made = self._value(schema, schema.get("$defs", {}), 0)
        if not isinstance(made, dict):
            return made
        for _ in range(self._chance.choice([0, 1, 1, 2])):
            made[self._chance.choice([*made, "more"])] = self._odd()
        if method not in READS and _is_valid(request, made):
            made["more"] = self._odd()
        return made

    def _value(  # noqa: PLR0911 - one for each kind of schema
        self, schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int
    ) -> Any:
        if "$ref" in schema:
            return self._value(parts[schema["$ref"].rpartition("/")[2]], parts, depth)
        for several in ("anyOf", "oneOf", "allOf"):
            if several in schema:
                return self._value(self._chance.choice(schema[several]), parts, depth)
        if "enum" in schema:
            return self._chance.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        if depth > 4 or self._chance.random() < 0.03:
            return self._odd()
        match schema.get("type", "object"):
            case "object":
                wanted = schema.get("properties", {})
                needed = schema.get("required", [])
                return {
                    name: self._value(part, parts, depth + 1)
                    for name, part in wanted.items()
                    if name in needed or self._chance.random() < 0.5
                }
            case "array":
                few = range(self._chance.choice([0, 1, 2, 5]))
                return [self._value(schema.get("items", {}), parts, depth + 1) for _ in few]
            case "integer" | "number":
                return self._chance.choice([0, 1, -1, 7, 65_536, schema.get("maximum", 10), 2**40])
            case "boolean":
                return self._chance.random() < 0.5
            case "string" if schema.get("format") == "uuid":
                return str(UUID(int=self._chance.getrandbits(128)))
            case "string":
                return self._chance.choice([self._word(), self._host, "0000:01:00.0", "2026-01-01T00:00:00Z"])
        return None

    def _odd(self) -> Any:
        return copy.deepcopy(self._chance.choice(ODD))

    def _word(self) -> str:
        return "".join(self._chance.choices(string.ascii_lowercase, k=self._chance.choice([1, 5, 12])))

    def _part(self) -> str:
        odd = ["%00", "%ff%fe", "..", "%2e%2e", "9" * 400, "-1", "%F0%9F%90%87", "'", "x" * 3000, ""]
        known = [self._word(), str(UUID(int=self._chance.getrandbits(128)))]
        return self._chance.choice(odd + known * 3)

    def _rubbish(self) -> bytes:
        chance = self._chance
        return chance.choice(
            [
                b"",
                b"\0" * chance.randrange(100),
                b"\xff\xfe" + chance.randbytes(50),
                chance.randbytes(chance.randrange(2000)),
                b"[" * chance.choice([10, 1000, 100_000]),
                b'{"a":' * chance.choice([10, 1000, 50_000]),
                b"9" * chance.choice([10, 5000, 100_000]),
                b'{"oslo.version": "2.0", "oslo.message": "' + b"[" * chance.randrange(50_000) + b'"}',
                b'{"oslo.version": "2.0", "oslo.message": "{\\"method\\": ' + b"1" * 6000 + b'}"}',
                json.dumps({"oslo.version": chance.choice(["1.0", "9.9", 2]), "oslo.message": "{}"}).encode(),
                json.dumps(self._odd()).encode(),
            ]
        )


def _is_valid(request: type[Message], fields: Any) -> bool:
    try:
        request.model_validate(fields)
    except (ValidationError, ValueError):
        return False
    return True


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The operations of an OpenAPI document."""
    for path, methods in document["paths"].items():
        for method in methods:
            if method in {"get", "post", "put", "patch", "delete"}:
                yield method, path

"""The public names of the Python package."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

import portclaim
from portclaim import Connection, EventStream, SchedulerClient
from portclaim.common.rpc.client import Client

from .text import cell, docstring, table

_INTRODUCTION = """\
# Python

What `from portclaim import …` gives. These names are the public API. Everything else is private and may
change with any release. [Write a client](../how-to/write-a-client.md) shows how to use them.
"""


def page() -> str:
    things = {name: getattr(portclaim, name) for name in portclaim.__all__}
    classes = {name: thing for name, thing in things.items() if inspect.isclass(thing)}
    functions = {name: thing for name, thing in things.items() if inspect.isfunction(thing)}
    return "".join(
        [
            _INTRODUCTION,
            *(_function(name, function) for name, function in functions.items()),
            *(_class(name, kind) for name, kind in classes.items() if kind in _EXPLAINED),
            "\n## Messages\n\nTheir fields: [RPC](rpc.md#messages), [events](../events.md).\n\n",
            _list({name: kind for name, kind in classes.items() if issubclass(kind, BaseModel)}),
            "\n## Errors\n\n",
            _list({name: kind for name, kind in classes.items() if issubclass(kind, Exception)}),
        ]
    )


_EXPLAINED = (Connection, SchedulerClient, EventStream)


def _function(name: str, function: Any) -> str:
    return f"\n## {name} {{ #{name} }}\n\n{_signature(name, function)}{docstring(function)}\n"


def _class(name: str, kind: type) -> str:
    named = {"ping": Client.ping} if kind is Connection else {}
    named |= {method: function for method, function in vars(kind).items() if inspect.isfunction(function)}
    methods = [(f"{name}.{method}", each) for method, each in named.items() if not method.startswith("_")]
    parts = [
        f"\n### {method} {{ #{method} }}\n\n{_signature(method, function)}{docstring(function)}\n"
        for method, function in methods
    ]
    return f"\n## {name} {{ #{name} }}\n\n{docstring(kind)}\n{''.join(parts)}"


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    return f"```python\n{name}{signature.replace(parameters=parameters)}\n```\n\n".replace("'", "")


def _list(kinds: dict[str, type]) -> str:
    return table(
        ["Name", "What it is"],
        [
            [f"`{name}`{{ #{name} }}", cell(docstring(kind).partition("\n\n")[0])]
            for name, kind in kinds.items()
        ],
    )

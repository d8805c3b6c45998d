"""The plug-ins that Portclaim brings, and what a plug-in has to be."""

from __future__ import annotations

import ast
import inspect
import sys
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise

from portclaim.services.compute_agent.drivers import base
from portclaim.services.scheduler import packing

from .text import docstring, table

_INTRODUCTION = """\
# Plug-ins

Hypervisor drivers and packing policies are entry points. A package that is installed beside Portclaim can
bring others; the configuration chooses one by its name. [CONTRIBUTING](../project/contributing.md) says how
to write one.
"""


def page() -> str:
    return (
        f"{_INTRODUCTION}\n## Hypervisor drivers\n\n"
        "How devices reach a guest. `[compute_agent] driver` chooses one; the namespace is "
        f"`{base.NAMESPACE}`.\n\n"
        f"{_listed(base.NAMESPACE)}"
        f"\n### What a driver does {{ #driver }}\n\n{docstring(base.HypervisorDriver)}\n\n"
        f"{_methods(base.HypervisorDriver)}"
        f"\n## Packing policies\n\n"
        "Which of several suitable devices a claim gets. `[scheduler] packing` chooses one; the namespace is "
        f"`{packing.NAMESPACE}`.\n\n"
        f"{_listed(packing.NAMESPACE)}"
        f"\n### What a policy is {{ #packing }}\n\n{docstring(packing.Packing)}\n"
    )


def _listed(namespace: str) -> str:
    plugs = sorted(entry_points(group=namespace), key=lambda each: each.name)
    return table(
        ["Name", "What it does", "In"],
        [[f"`{plug.name}`", _about(plug), f"`{plug.module}`"] for plug in plugs],
    )


def _about(plug: EntryPoint) -> str:
    thing = plug.load()
    text = (
        docstring(sys.modules[plug.module])
        if inspect.isclass(thing)
        else _string_after(*plug.value.split(":"))
    )
    return text.partition("\n\n")[0].replace("\n", " ")


def _string_after(module: str, name: str) -> str:
    """The string below an assignment, which Python does not keep. Raises LookupError."""
    body = ast.parse(inspect.getsource(sys.modules[module])).body
    for statement, below in pairwise(body):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return str(ast.literal_eval(below.value))  # type: ignore[attr-defined]
    raise LookupError(f"{module}.{name} is not explained")


def _methods(kind: type) -> str:
    rows = [
        [f"`{name}`", docstring(method).replace("\n\n", "<br>").replace("\n", " ")]
        for name, method in vars(kind).items()
        if inspect.isfunction(method)
    ]
    return table(["Method", "What it has to do"], rows)

"""What can be asked for after a request: the links of the OpenAPI document."""

from __future__ import annotations

from typing import Any

_OF_A_CLAIM = ("get_claim", "attach", "delete_claim", "force_release")
_OF_A_MOVE = ("get_claim", "complete_move", "revert_move")
_PATH = "$request.path."
_AFTER: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "put_claim": ("claim_id", {"200": (*_OF_A_CLAIM, "put_move"), "202": _OF_A_CLAIM}),
    "get_claim": ("claim_id", {"200": ("attach", "delete_claim")}),
    "delete_claim": ("claim_id", {"200": ("get_claim", "delete_claim")}),
    "put_move": ("claim_id", {"200": _OF_A_MOVE}),
    "drain": ("host", {"200": ("get_host", "undrain")}),
    "set_quota": ("project", {"204": ("unset_quota",)}),
}
"""The parameter of the path that both have, and what may follow which answer."""


def add_to(document: dict[str, Any]) -> None:
    """Add the links to the operations of a document."""
    operations = {
        operation["operationId"]: operation
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    for name, (parameter, by_status) in _AFTER.items():
        for status, following in by_status.items():
            operations[name]["responses"][status]["links"] = {
                after: _link(name, after, parameter, operations) for after in following
            }


def _link(before: str, after: str, parameter: str, operations: dict[str, Any]) -> dict[str, Any]:
    link: dict[str, Any] = {
        "operationId": after,
        "description": operations[after]["description"].partition(".")[0] + ".",
    }
    if after == "put_move" and before == "put_claim":
        return link | {"requestBody": {"source_claim_id": f"{_PATH}claim_id"}}
    return link | {"parameters": {parameter: f"{_PATH}{parameter}"}}

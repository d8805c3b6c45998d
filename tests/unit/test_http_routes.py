"""Every call of an API layer has a path in the HTTP API, or a reason why it has none."""

import inspect

import pytest

from portclaim.cli.http_client import HttpScheduler
from portclaim.common.rpc.client import Client
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.conductor import ConductorClient
from portclaim.common.rpc.scheduler import SchedulerClient
from portclaim.services.api.app import create_app

PATHS = {
    "aliases": "GET /v1/aliases",
    "attach": "POST /v1/claims/{claim_id}/attach",
    "awaited_steps": "GET /v1/steps",
    "candidates": "POST /v1/candidates",
    "claim": "PUT /v1/claims/{claim_id}",
    "claim_many": "POST /v1/claims:batch",
    "claims": "GET /v1/claims",
    "complete_move": "POST /v1/moves/{claim_id}/complete",
    "devices": "GET /v1/devices",
    "drain": "POST /v1/hosts/{host}/drain",
    "explain": "POST /v1/explain",
    "force_release": "POST /v1/claims/{claim_id}/force-release",
    "history": "GET /v1/claims/{claim_id}/history",
    "hosts": "GET /v1/hosts",
    "move": "PUT /v1/moves/{claim_id}",
    "ping": "GET /readyz",
    "refusals": "GET /v1/refusals",
    "release": "DELETE /v1/claims/{claim_id}",
    "release_many": "POST /v1/claims:release",
    "remove_host": "POST /v1/hosts/{host}/remove",
    "renew_device": "POST /v1/hosts/{host}/renew",
    "retry": "POST /v1/steps:retry",
    "revert_move": "POST /v1/moves/{claim_id}/revert",
    "show": "GET /v1/claims/{claim_id}",
    "summary": "GET /v1/summary",
    "undrain": "POST /v1/hosts/{host}/undrain",
    "waiting": "GET /v1/waiting",
}

LEFT_OUT = {
    "recover": "only an agent can say what it has of an unknown claim, and agents are asked over the bus",
}

NOT_OVER_HTTP = {
    ConductorClient: "what agents say of their hosts; the broker knows each agent by its user",
    ComputeAgentClient: "what schedulers and conductors tell agents; a caller makes claims",
}

OF_EVERY_CLIENT = {
    "about": "asks one service of the bus which release it is, for portclaim doctor",
    "at": "chooses a server of the bus",
    "can_send": "asks a pin of the configuration",
}


def calls(client: type[Client]) -> set[str]:
    return {name for name, _ in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}


def test_every_call_of_the_scheduler_has_a_path() -> None:
    assert set(PATHS) == calls(SchedulerClient) - set(OF_EVERY_CLIENT) - set(LEFT_OUT)


def test_every_such_path_is_in_the_openapi_document() -> None:
    document = create_app(None).openapi()
    there = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert set(PATHS.values()) <= there


def test_the_command_lines_client_has_every_call() -> None:
    assert set(PATHS) <= {name for name, _ in inspect.getmembers(HttpScheduler, inspect.isfunction)}


@pytest.mark.parametrize("name", sorted(PATHS))
def test_both_clients_take_the_same_arguments(name: str) -> None:
    def parameters(client: type) -> list[tuple[str, object]]:
        signature = inspect.signature(getattr(client, name))
        return [(each.name, each.default) for each in signature.parameters.values()]

    assert parameters(HttpScheduler) == parameters(SchedulerClient)


def descendants(client: type[Client]) -> set[type[Client]]:
    below = set(client.__subclasses__())
    return below.union(*map(descendants, below))


def test_the_clients_that_are_left_out_are_all_others() -> None:
    ours = {each for each in descendants(Client) if each.__module__.startswith("portclaim.")}
    have_calls = {each for each in ours if each.__dict__.get("topic")}
    assert have_calls == {SchedulerClient, *NOT_OVER_HTTP}

"""The metrics of service processes, read with the parser of Prometheus' own client library."""

import re

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.concurrency import wait_until
from tests.support.services import ServiceProcess

LISTEN = {
    "listen": "127.0.0.1",
    "scheduler_port": 0,
    "conductor_port": 0,
    "compute_agent_port": 0,
    "api_port": 0,
    "fleet_interval": 1,
}
"""The section [metrics] of a service in a test."""


def address(process: ServiceProcess) -> str:
    """Where the service answers Prometheus."""
    wait_until(lambda: "metrics at" in process.log, "its metrics are there")
    found = re.findall(r"metrics at (\S+)", process.log)
    return str(found[-1])


def families(process: ServiceProcess) -> list[Metric]:
    return list(text_string_to_metric_families(httpx.get(address(process)).raise_for_status().text))


def samples(process: ServiceProcess) -> dict[tuple[str, ...], float]:
    """By the name of each, and the values of its labels in the order of the labels' names."""
    return {
        (sample.name.removeprefix("portclaim_"), *(value for _, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in families(process)
        for sample in family.samples
    }

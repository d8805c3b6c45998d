"""A real Prometheus with Portclaim's own alert rules, in seconds in place of minutes."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from portclaim.cli.supervisor import SupervisedProcess, supervise
from tests.support.concurrency import wait_until
from tests.support.engines import run_owner, skip_without
from tests.support.rabbitmq import free_ports

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy/monitoring"
_FOR = "3s"  # in place of the minutes in the rules


@dataclass
class Prometheus:
    """A server that scrapes every second."""

    url: str
    process: SupervisedProcess

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; a wrong expression fails."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=60)
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        return list(answer.json()["data"]["result"])

    def value(self, expression: str) -> float | None:
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        """The alerts that somebody would be woken by now."""
        alerts = httpx.get(f"{self.url}/api/v1/alerts", timeout=60).json()["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def fired_since(self, seconds: int) -> set[str]:
        """The alerts that fired at any time in the last seconds."""
        found = self.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{seconds}s])')
        return {each["metric"]["alertname"] for each in found}

    def wait_for(self, *alerts: str) -> None:
        """Wait until exactly these fire."""
        wait_until(lambda: self.firing() == set(alerts), f"{alerts or 'no alerts'} fire")

    def stop(self) -> None:
        self.process.stop()


def start_prometheus(directory: Path, targets: Mapping[str, str]) -> Prometheus:
    """Scrape these services: names with addresses. Skips the test where there is no Prometheus."""
    program = shutil.which("prometheus")
    if program is None:
        skip_without("Prometheus", "as root: apt-get install prometheus")
    rules = (MONITORING / "alerts.yml").read_text()
    (directory / "alerts.yml").write_text(re.sub(r"for: \d+m", f"for: {_FOR}", rules))
    scraped = [
        {"targets": [address], "labels": {"service": re.sub(r"-\d+$", "", service)}}
        for service, address in targets.items()
    ]
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": "portclaim", "static_configs": scraped}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    [port] = free_ports(1)
    process = supervise(
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        ready="Server is ready to receive web requests",
        log=directory / "prometheus.log",
        owner=run_owner(),
    )
    return Prometheus(f"http://127.0.0.1:{port}", process)


def dashboard_queries() -> dict[str, list[str]]:
    """The queries of each panel of the dashboard, as Grafana would send them."""
    dashboard = json.loads((MONITORING / "grafana/dashboards/portclaim.json").read_text())
    return {
        panel["title"]: [
            target["expr"].replace("$__rate_interval", "1m").replace("$alias", ".+")
            for target in panel["targets"]
        ]
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    }

"""Metrics, alerts and dashboard are the same in code, documentation and `deploy/monitoring`."""

import re
from pathlib import Path

import pytest
import yaml

from docs._generate import metrics as page
from portclaim.common.metrics import catalogue, fleet_catalogue
from portclaim.common.metrics.kinds import METRICS, Metric
from tests.support.prometheus import MONITORING, dashboard_queries

ROOT = Path(__file__).parents[2]
CODE = "\n".join(
    file.read_text()
    for folder in ("common", "services", "cli")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file.name not in {"catalogue.py", "fleet_catalogue.py"}
)
NAMES = {
    id(metric): name
    for module in (catalogue, fleet_catalogue)
    for name, metric in vars(module).items()
    if isinstance(metric, Metric)
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: str(metric.name))
def test_each_metric_is_counted_and_has_one_row_in_the_page(metric: Metric) -> None:
    rows = [line for line in page.page().splitlines() if line.startswith(f"| `{metric.name}` |")]
    assert len(rows) == 1
    _, _, kind, _, labels, where, _ = re.split(r"(?<!\\)\|", rows[0])
    assert kind.strip() == metric.kind
    assert re.findall(r"`(\w+)`:", labels) == list(metric.labels)
    assert where.strip() == ", ".join(metric.services)
    assert re.search(rf"\b{NAMES[id(metric)]}\b", CODE), "nothing counts it"


def test_the_page_has_no_other_metric() -> None:
    named = set(re.findall(r"^\| `(portclaim_\w+)` \|", page.page(), re.MULTILINE))
    assert named == {metric.name for metric in METRICS}


def test_the_page_about_monitoring_has_the_alerts_that_there_are() -> None:
    [group] = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    text = (ROOT / "docs/how-to/monitor.md").read_text()
    assert re.findall(r"^\| `(Portclaim\w+)` \|", text, re.MULTILINE) == [
        rule["alert"] for rule in group["rules"]
    ]
    for rule in group["rules"]:
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_the_dashboard_shows_all_numbers_of_the_fleet_and_what_refuses_or_lags() -> None:
    shown = str(dashboard_queries())
    for metric in METRICS:
        if metric.name.startswith("portclaim_fleet_") and metric not in HIDDEN:
            assert re.search(rf"\b{metric.name}\b", shown), metric.name
    for metric in (catalogue.SIGNS_OF_LIFE, catalogue.MESSAGES_REFUSED, catalogue.CLAIMS):
        assert metric.name in shown


HIDDEN = {fleet_catalogue.READER, fleet_catalogue.WAITING, fleet_catalogue.EVENTS}
"""The reader is for an alert. Waiting claims and events are shown by their age."""


def test_no_service_is_asked_twice() -> None:
    [job] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    asked = [(name, each["port"]) for each in job["dns_sd_configs"] for name in each["names"]]
    assert sorted(set(asked)) == sorted(asked)

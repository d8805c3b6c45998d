"""The pages about performance say what the files of the last run say, and the run itself is complete."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

from bench import run, scaling, tables
from bench.cpu import Meter
from bench.goals import Goal, goals
from bench.report import DOCS, PAGES, PARTS, filled
from bench.results_of import Results, number

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"<!-- bench: ([\w-]+) -->.*?<!-- end -->", re.DOTALL)


def cycle(ms: float, **facts: object) -> dict[str, object]:
    """A row of a part with figures."""
    parts = {
        "scheduler": ms / 4,
        "conductor": ms / 4,
        "rabbitmq": ms / 4,
        "postgresql": ms / 4,
        "clients": 9.0,
    }
    return {
        "rate": 100.0,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "p99_ms": 3.0,
        "cpu_ms": parts,
        "server_ms": ms,
        "wal_kib": 5.0,
        **facts,
    }


def results(**parts: list[dict[str, object]]) -> Results:
    return Results({name: {"results": rows} for name, rows in parts.items()})


class TestPages:
    @pytest.mark.parametrize("name", PAGES)
    def test_a_page_has_the_figures_of_the_results(self, name: str) -> None:
        page = (DOCS / name).read_text()
        made = filled(page, PAGES[name], Results.read(list(PARTS)))
        assert page == made, "run: python -m bench.report"

    @pytest.mark.parametrize("name", PAGES)
    def test_a_page_has_every_block_once(self, name: str) -> None:
        blocks = BLOCK.findall((DOCS / name).read_text())
        assert sorted(blocks) == sorted(PAGES[name])

    @pytest.mark.parametrize("name", PAGES)
    def test_no_measured_figure_stands_outside_of_the_blocks(self, name: str) -> None:
        prose = BLOCK.sub("", (DOCS / name).read_text())
        assert re.findall(r"\d[\d,.]*\s?(?:ms|MiB|KiB|/s)\b", prose) == []

    @pytest.mark.parametrize("blocks", [tables.BLOCKS, scaling.BLOCKS])
    def test_what_was_not_measured_is_said_so(self, blocks: dict[str, object]) -> None:
        for name, block in blocks.items():
            assert "not measured" in block(Results({})), name  # type: ignore[operator]

    def test_a_block_that_nobody_makes_is_an_error(self) -> None:
        with pytest.raises(KeyError):
            filled("<!-- bench: no-such -->\n<!-- end -->", {}, Results({}))


class TestGoals:
    def test_the_times_of_placement_are_those_of_the_same_fleet_and_clients(self) -> None:
        facts = {"size": "1000x4x64", "clients": 8}
        measured = results(
            rpc=[
                cycle(20.0, size="5000x4x64", clients=8),
                cycle(10.0, **facts),
                cycle(1.0, **facts | {"clients": 32}),
            ],
            placement=[
                cycle(900.0, name="placement", configuration="defaults", **facts),
                cycle(600.0, name="placement", configuration="bounded", **facts),
            ],
        )
        first = next(goals(measured))
        assert first == Goal(first.name, 50, 60.0)
        assert first.met

    def test_a_goal_may_be_missed(self) -> None:
        missed = results(matching=[{"cpu_ms": 24.0}])
        assert [goal.met for goal in goals(missed) if goal.reached is not None] == [False]

    def test_what_was_left_out_counts_for_nothing(self) -> None:
        facts = {"size": "1000x4x64", "clients": 8}
        measured = results(
            rpc=[cycle(10.0, **facts)],
            placement=[{"name": "placement", "configuration": "bounded", "left_out": "slow", **facts}],
        )
        assert next(goals(measured)).met is None


class TestScaling:
    def test_a_part_carries_what_its_cores_have_time_for(self) -> None:
        cost = scaling.Cost({"scheduler": 7.0}, 5.0)
        assert cost.rate("scheduler", 2) == pytest.approx(200.0)
        assert cost.cores("scheduler", 200.0) == pytest.approx(2.0)

    def test_the_first_wall_is_the_part_that_carries_least(self) -> None:
        row = cycle(40.0, size="1000x4x64", clients=8)
        measured = results(
            rpc=[row],
            cluster=[
                {"name": "claim", "broker": broker, "cpu_ms": {"rabbitmq": ms}, "rate": 1.0}
                for broker, ms in ((scaling.ONE_NODE, 2.0), (scaling.QUORUM, 12.0))
            ],
        )
        said = scaling.wall(measured)
        assert said.startswith("- Single claims: three RabbitMQ nodes")
        assert "280 claims/s" in said


class TestRun:
    def test_each_part_can_be_called(self) -> None:
        parts = {**run.PER_SIZE, **run.ONCE, **run.MORE}
        assert sorted(parts) == sorted(PARTS)
        for place in parts.values():
            module, _, name = place.partition(":")
            assert callable(getattr(importlib.import_module(module), name))

    def test_the_cpu_time_of_a_tree_of_processes(self) -> None:
        meter = Meter({"this": os.getpid(), "all of it twice": (os.getpid(), os.getpid())})
        read = meter.read()
        assert 0 < read["this"] <= read["all of it twice"]

    def test_the_peers_are_locked_as_names_versions_and_hashes(self) -> None:
        line = re.compile(r"\s*(#.*)?|[\w.-]+==[\w.]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
        lines = (ROOT / "requirements-peers.txt").read_text().splitlines()
        assert [each for each in lines if not line.fullmatch(each)] == []
        assert not any("://" in each for each in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.0123"), (0.0, "0"), (1200, "1,200")],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text

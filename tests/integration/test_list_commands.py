"""The commands that list something: what they show, and how they go from page to page."""

import json
import os
import pty
import subprocess
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from portclaim.cli.main import main
from portclaim.cli.render import time_span
from tests.integration.test_cli import PROGRAM, Run, assert_failed, done, done_in_json, portclaim
from tests.support.fleet import CONNECTX5, Fleet, pf, port_devices, vf
from tests.support.services import Services

__all__ = ["portclaim"]


@pytest.fixture
def at_terminal(service_process: Services, portclaim: Run) -> Callable[..., tuple[str, str]]:
    """Runs the program with its output on a terminal of 200 columns. Answers its output and its errors."""

    def run(*words: str) -> tuple[str, str]:
        bus = {"OS_DEFAULT__TRANSPORT_URL": service_process.transport_url, "COLUMNS": "200", "TERM": "dumb"}
        ours, its = pty.openpty()
        command = [str(PROGRAM), *words]
        process = subprocess.Popen(
            command, env=os.environ | bus, stdout=its, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        os.close(its)
        output = b""
        while part := _read(ours):
            output += part
        os.close(ours)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
        assert process.wait(60) == 0, errors
        return output.decode(), errors

    return run


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 100_000)
    except OSError:  # the program has ended
        return b""


class TestPages:
    def test_a_person_gets_the_first_page_and_a_program_gets_all(
        self, portclaim: Run, fleet: Fleet, at_terminal: Callable[..., tuple[str, str]]
    ) -> None:
        fleet.host("h2", ports=2, vfs=64)
        first, said = at_terminal("devices")
        assert first.count("type-") == 100
        assert said.startswith("there are more than 100: use --all, --limit or --after ")
        assert said.endswith(" to see more, or --host to see fewer\n")
        after = said.split("--after ")[1].split()[0]
        second, said = at_terminal("devices", "--after", after)
        assert (second.count("type-"), said) == (36, "")
        assert at_terminal("devices", "--all")[0].count("type-") == 136
        assert done(portclaim("devices")).count("type-") == 136
        assert len(json.loads(at_terminal("devices", "--output", "json")[0])) == 136

    def test_pages_follow_each_other(self, portclaim: Run) -> None:
        whole = done_in_json(portclaim("devices", "--output", "json"))
        page = portclaim("devices", "--limit", "4", "--output", "json")
        assert json.loads(page.stdout) == whole[:4]
        after = page.stderr.split("--after ")[1].split()[0]
        assert done_in_json(portclaim("devices", "--after", after, "--output", "json")) == whole[4:]
        assert_failed(portclaim("devices", "--after", after, "--host", "h1"), 1, "another request")
        assert_failed(portclaim("devices", "--after", "h1"), 1, "after is not from an answer of devices")
        assert_failed(
            portclaim("devices", "--all", "--limit", "4"), 2, "--all and --limit do not go together"
        )

    def test_a_tree_and_a_table_may_have_many_pages(self, portclaim: Run, fleet: Fleet) -> None:
        fleet.host("h2", ports=8, vfs=126)  # more devices than one call answers
        fleet.hosts["h2"].change(vf(7, 125), unusable_reason="x" * 150)
        fleet.hosts["h2"].report()
        lines = done(portclaim("devices")).splitlines()
        assert len(lines) == 1 + 6 + 8 * 127
        assert [line for line in lines if line.startswith("host ")] == lines[:1], "it has one header"
        assert lines[-1].endswith("x" * 150), "no cell is cut off"
        assert {line.index("type-") for line in lines[1:]} == {lines[1].index("type-")}
        tree = done(portclaim("tree"))
        assert tree.count("\nh2\n") == 1
        assert tree.count("VF  ") == 4 + 8 * 126
        assert len(done_in_json(portclaim("tree", "--output", "json"))) == len(lines) - 1

    def test_an_empty_list(self, portclaim: Run) -> None:
        assert done_in_json(portclaim("claim", "list", "--output", "json")) == []
        assert done(portclaim("claim", "list")).split()[:2] == ["claim", "instance"]
        assert done_in_json(portclaim("waiting", "--output", "json")) == []


class TestClaimList:
    def test_claims_are_listed_by_status_host_instance_and_age(self, portclaim: Run, fleet: Fleet) -> None:
        fleet.host("h2", ports=1, vfs=2)
        old = fleet.attached(fleet.claim("nic-vf:2", hosts=["h1"]))
        new = fleet.claim("nic-vf:1", hosts=["h2"])
        ended = fleet.claim("nic-vf:1", hosts=["h2"])
        fleet.leave(ended)
        fleet.sql("UPDATE claims SET created_at = now() - interval '26 h' WHERE id = :id", id=old.claim_id)

        def listed(*options: str) -> list[str]:
            rows = done_in_json(portclaim("claim", "list", *options, "--output", "json"))
            return [row["claim_id"] for row in rows]

        old_id, new_id, ended_id = (str(claim.claim_id) for claim in (old, new, ended))
        assert listed() == [old_id, new_id]
        assert listed("--status", "claimed") == [new_id]
        assert listed("--status", "released", "--status", "allocated") == [old_id, ended_id]
        assert listed("--host", "h2") == [new_id]
        assert listed("--instance", str(old.instance_id)) == [old_id]
        assert listed("--older-than", "1d") == [old_id]
        assert listed("--newer-than", "90m") == [new_id]

        header, first, second = done(portclaim("claim", "list")).splitlines()
        assert header.split()[:5] == ["claim", "instance", "host", "status", "age"]
        assert " ".join(first.split()) == (
            f"{old_id} {old.instance_id} h1 allocated 1 d 2 h {vf(0, 0)} {vf(0, 1)} -"
        )
        assert " ".join(second.split()).endswith(f"{vf(0, 0)} attach")

    def test_claim_is_still_a_command_of_its_own(self, portclaim: Run) -> None:
        made = done_in_json(portclaim("claim", "--alias", "nic-vf:1", "--output", "json"))
        assert made["status"] == "claimed"
        assert_failed(portclaim("claim"), 2, "Missing option '--alias'")
        assert_failed(
            portclaim("claim", "--alias", "nic-vf:1", "list"), 2, "unexpected extra argument (list)"
        )
        assert "portclaim claim list [OPTIONS]" in done(portclaim("claim", "list", "--help"))
        assert "portclaim claim [OPTIONS]" in done(portclaim("claim", "--help"))

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("claim", "Missing option '--alias'"),
            ("claim --alias nic-vf:1 list", "unexpected extra argument (list)"),
            ("claim list --status gone", "--status"),
            ("claim list --older-than soon", "'soon' is not an age"),
            ("claim list --instance 7", "--instance"),
            ("claim list --all --limit 4", "--all and --limit do not go together"),
            ("devices --vendor-id Mellanox", "'Mellanox'"),
        ],
    )
    def test_bad_usage_is_refused(self, words: str, said: str) -> None:
        ended = CliRunner().invoke(main, words.split(), prog_name="portclaim")
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert said in ended.stderr


class TestFilters:
    def test_hosts_by_name_and_state(self, portclaim: Run, fleet: Fleet) -> None:
        for name in ("h2", "g1", "g2"):
            fleet.host(name)
        fleet.falls_silent("h2")
        fleet.falls_silent("g2")
        fleet.scheduler.drain("g1", "new fan")

        def listed(*options: str) -> list[str]:
            return [
                row["host"] for row in done_in_json(portclaim("host", "list", *options, "--output", "json"))
            ]

        assert listed("--host", "g2", "--host", "h1") == ["g2", "h1"]
        assert listed("--host", "g2") == ["g2"]
        assert listed("--prefix", "h") == ["h1", "h2"]
        assert listed("--state", "silent") == ["g2", "h2"]
        assert listed("--state", "up", "--not-drained") == ["h1"]
        assert listed("--drained") == ["g1"]

    def test_devices_by_their_ids(self, portclaim: Run, fleet: Fleet) -> None:
        fleet.host_of("h2", port_devices(0, 1, CONNECTX5))
        rows = done_in_json(portclaim("devices", "--vendor-id", "15b3", "--output", "json"))
        assert [(row["host"], row["address"]) for row in rows] == [("h2", pf(0)), ("h2", vf(0, 0))]
        assert done_in_json(portclaim("devices", "--product-id", "ffff", "--output", "json")) == []

    def test_steps_and_waiting_claims(self, portclaim: Run, fleet: Fleet) -> None:
        fleet.claim("nic-vf:1")
        waits = fleet.claim("nic-pf:2", wait=600)
        assert done_in_json(portclaim("outbox", "list", "--older-than", "1h", "--output", "json")) == []
        fleet.sql("UPDATE outbox SET created_at = now() - interval '2 h'")
        [step] = done_in_json(portclaim("outbox", "list", "--older-than", "1h", "--output", "json"))
        assert step["awaited_for"] == pytest.approx(7200, abs=60)
        [row] = done_in_json(portclaim("waiting", "--instance", str(waits.instance_id), "--output", "json"))
        assert row["claim_id"] == str(waits.claim_id)
        assert done_in_json(portclaim("waiting", "--host", "h9", "--output", "json")) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (93_600, "1 d 2 h"),
        (86_400 * 400 + 59, "400 d 0 h"),
    ],
)
def test_a_time_span_has_two_units(seconds: float, text: str) -> None:
    assert time_span(seconds) == text

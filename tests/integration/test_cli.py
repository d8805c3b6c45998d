"""``portclaim`` as a program: its output, its errors and its exit status."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from portclaim.cli import candidates, claims, devices, events
from portclaim.cli.main import COMMANDS, main
from portclaim.common.db.schema_version import HEAD
from portclaim.common.events.schema import Kind
from portclaim.common.pci.status import DeviceStatus
from portclaim.common.rpc import candidate_messages, claim_messages, fields
from tests.support.fleet import ALIASES, Fleet, pf, vf
from tests.support.rabbitmq import free_ports
from tests.support.services import Services, as_ini

Run = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = Path(sys.executable).with_name("portclaim")
SLOW = {"pydantic", "sqlalchemy", "alembic", "oslo_messaging", "oslo_config", "kombu", "rich"}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def portclaim(fleet: Fleet, service_process: Services) -> Run:
    """The program, where a scheduler runs and the fleet is one host with two ports of two VFs."""
    fleet.host("h1", ports=2, vfs=2)
    service_process("scheduler", {"pci": {"alias": ALIASES}})
    bus = {"OS_DEFAULT__TRANSPORT_URL": service_process.transport_url, "OS_RPC__ATTEMPTS": "1"}
    return lambda *words: run(*words, **bus)


@pytest.fixture
def waiting(service_process: Services, portclaim: Run) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``portclaim claim --wait``, and ends it after the test."""
    bus = {"OS_DEFAULT__TRANSPORT_URL": service_process.transport_url}
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [str(PROGRAM), "claim", "--wait", "300", *words]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=os.environ | bus, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def done(process: subprocess.CompletedProcess[str]) -> str:
    """What it printed. It must have succeeded."""
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def done_in_json(process: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done(process))


def assert_failed(process: subprocess.CompletedProcess[str], status: int, *said: str) -> None:
    """It ended with this status, printed an error message on standard error, and nothing else."""
    assert (process.returncode, process.stdout) == (status, ""), process
    for words in said:
        assert words in process.stderr, process
    assert "Traceback" not in process.stderr, process


class TestWithServices:
    def test_candidates_and_a_claim_on_one_of_them(self, portclaim: Run, fleet: Fleet) -> None:
        fleet.host("h2", ports=2, vfs=2)
        asked = "candidates", "--alias", "nic-vf:1", "--limit", "1"
        shown = portclaim(*asked)
        assert re.search(rf"^h1 +{vf(0, 0)} +1 +3 +0 *$", shown.stdout, re.MULTILINE)
        assert "there are more hosts: use --limit, or --after " in shown.stderr
        after = shown.stderr.split()[-1]
        [second] = done_in_json(portclaim(*asked, "--after", after, "--output", "json"))["candidates"]
        assert second["host"] == "h2"
        claim = done_in_json(portclaim("claim", "--alias", "nic-vf:1", "--host", "h2", "--output", "json"))
        assert [each["address"] for each in claim["devices"]] == [
            each["address"] for each in second["devices"]
        ]
        alias = "--alias", "nic-vf:1"
        for option, host in (("--near", "h2"), ("--apart-from", "h1")):
            named = option, claim["claim_id"]
            assert f"\n{host} " in done(portclaim("candidates", *alias, *named))
            assert done_in_json(portclaim("claim", *alias, *named, "--output", "json"))["host"] == host
        unknown = str(uuid4())
        assert_failed(portclaim("claim", *alias, "--near", unknown), 1, f"near: there is no claim {unknown}")

    def test_a_claim_from_beginning_to_end(self, portclaim: Run, fleet: Fleet) -> None:
        claim = done_in_json(portclaim("claim", "--alias", "nic-pf:1", "--output", "json"))
        assert (claim["host"], claim["status"]) == ("h1", "claimed")
        [whole] = [device["address"] for device in claim["devices"]]
        claim_id = claim["claim_id"]

        assert done_in_json(portclaim("show", claim_id, "--output", "json")) == claim
        listed = done_in_json(portclaim("devices", "--claim", claim_id, "--output", "json"))
        assert [(row["address"], row["status"]) for row in listed] == [(whole, "claimed")]
        tree = done(portclaim("tree"))
        assert f"held by instance {claim['instance_id']}" in tree
        assert tree.count("unclaimable") == 2
        assert "\x1b" not in tree  # no colours, because the output is no terminal

        released = done(portclaim("release", claim_id))
        assert claim_id in released
        assert "releasing" in released
        assert fleet.sql("SELECT status FROM claims") == [("releasing",)]

    def test_a_table_shows_what_the_json_says(self, portclaim: Run) -> None:
        rows = done_in_json(portclaim("devices", "--output", "json"))
        table = done(portclaim("devices")).splitlines()
        assert [row["address"] for row in rows] == [pf(0), vf(0, 0), vf(0, 1), pf(1), vf(1, 0), vf(1, 1)]
        assert [line.split()[:2] for line in table[1:]] == [["h1", row["address"]] for row in rows]
        some = portclaim("devices", "--type", "type-VF", "--limit", "3")
        assert (some.returncode, some.stdout.count("type-VF")) == (0, 3)
        assert "more than 3" in some.stderr

    def test_repeating_a_claim_with_the_same_id_is_safe(self, portclaim: Run, fleet: Fleet) -> None:
        claim = ("claim", "--claim-id", str(uuid4()), "--instance", str(uuid4()), "--output", "json")
        first = done_in_json(portclaim(*claim, "--alias", "nic-vf:1"))
        assert done_in_json(portclaim(*claim, "--alias", "nic-vf:1")) == first
        assert_failed(portclaim(*claim, "--alias", "nic-vf:2"), 1, first["claim_id"], "another request")
        assert fleet.sql("SELECT count(*) FROM claims") == [(1,)]

    def test_a_refusal_says_why_and_so_does_explain_beforehand(self, portclaim: Run) -> None:
        explained = done_in_json(portclaim("explain", "--alias", "nic-vf:5", "--output", "json"))
        assert explained["served"] is False
        refused = portclaim("claim", "--alias", "nic-vf:5")
        assert_failed(refused, 1, "portclaim: ", explained["nearest_miss"])
        for left in explained["filters"]:
            assert (
                f"after {left['filter']}: {left['hosts']} hosts, {left['devices']} devices" in refused.stderr
            )
        told = done(portclaim("explain", "--alias", "nic-vf:5"))
        assert f"would be refused: {explained['nearest_miss']}" in told
        assert "would be served" in done(portclaim("explain", "--alias", "nic-vf:2", "--host", "h1"))

    def test_an_impossible_request_ends_with_status_1_and_the_reason(self, portclaim: Run) -> None:
        unknown = str(uuid4())
        assert_failed(portclaim("show", unknown), 1, f"portclaim: there is no claim {unknown}")
        assert_failed(portclaim("release", unknown), 1, unknown)
        assert_failed(portclaim("claim", "--alias", "nic:1"), 1, "'nic' is no alias", "nic-pf, nic-vf")
        assert_failed(portclaim("claim", "--alias", "nic-vf:0"), 1, "nic-vf:0")

    def test_an_instance_moves_to_another_host(self, portclaim: Run, fleet: Fleet) -> None:
        fleet.host("h2", ports=1, vfs=2)
        source = fleet.attached(fleet.claim("nic-vf:2", hosts=["h1"]))
        source_id, target_id = str(source.claim_id), str(uuid4())
        begin = "move", "begin", source_id, "--to-claim", target_id, "--output", "json"
        begun = done_in_json(portclaim(*begin, "--host", "h2"))
        assert (begun["status"], begun["source"]["host"], begun["target"]["host"]) == ("begun", "h1", "h2")
        assert done_in_json(portclaim(*begin, "--host", "h2")) == begun
        assert_failed(portclaim(*begin), 1, target_id, "another request")
        assert_failed(portclaim(*begin, "--extra-spec", "a=b"), 2, "--extra-spec needs --alias")

        shown = done(portclaim("move", "complete", target_id))
        assert f"to     claim {target_id} on h2, claimed\nstatus completing\n" in shown
        assert f"from claim {source_id} to {target_id}, completing" in done(portclaim("show", source_id))
        assert (
            done_in_json(portclaim("move", "revert", target_id, "--output", "json"))["status"] == "reverted"
        )
        assert_failed(portclaim("move", "complete", target_id), 1, "was reverted")
        assert_failed(portclaim("move", "revert", source_id), 1, f"there is no move to claim {source_id}")

        fleet.hosts["h2"].done(
            fleet.show(source).model_copy(update={"claim_id": begun["target"]["claim_id"]})
        )
        resized = done_in_json(
            portclaim("move", "begin", source_id, "--alias", "nic-pf:1", "--output", "json")
        )
        assert [device["dev_type"] for device in resized["target"]["devices"]] == ["type-PF"]

    def test_a_forced_release_says_how_dangerous_it_is(self, portclaim: Run, fleet: Fleet) -> None:
        claim = done_in_json(portclaim("claim", "--alias", "nic-pf:1", "--output", "json"))
        force = "release", claim["claim_id"], "--force", "--reason", "h1 has burnt down", "--who", "ann"
        assert_failed(portclaim(*force), 1, "the agent of host h1 is alive")
        fleet.falls_silent("h1")
        forced = portclaim(*force, "--output", "json")
        assert (forced.returncode, json.loads(forced.stdout)["status"]) == (0, "released")
        assert "DANGER: the devices were not detached. If host h1 still runs" in forced.stderr
        assert_failed(portclaim(*force[:3]), 2, "--force and --reason go together")

    def test_hosts_and_ports_are_drained_undrained_and_removed(self, portclaim: Run, fleet: Fleet) -> None:
        port = ("--port", pf(0))
        drained = done(portclaim("host", "drain", "h1", *port, "--reason", "flapping link"))
        assert drained == f"port {pf(0)} of h1 takes no new claims; 0 live claims on it\n"
        assert done(portclaim("tree")).count("port drained: flapping link") == 3
        assert done(portclaim("host", "undrain", "h1", *port)) == f"port {pf(0)} of h1 takes claims again\n"

        done(portclaim("claim", "--alias", "nic-vf:1"))
        remove = "host", "remove", "h1", "--reason", "sold", "--who", "ann"
        assert_failed(portclaim(*remove), 1, "stop its agent first")
        fleet.falls_silent("h1")
        assert_failed(portclaim(*remove), 1, "h1 has 1 live claims")
        forced = portclaim(*remove, "--force")
        assert (forced.returncode, forced.stdout) == (0, "h1 is removed\n")
        assert "DANGER: 1 live claim ended" in forced.stderr

    def test_host_list_shows_which_hosts_are_drained_or_silent(self, portclaim: Run, fleet: Fleet) -> None:
        fleet.host("h2", ports=1, vfs=2)
        fleet.scheduler.drain("h1", "flapping", pf(1))
        fleet.scheduler.drain("h2", "new fan")
        first, second = done_in_json(portclaim("host", "list", "--output", "json"))
        assert (first["drained_ports"], second["drained_reason"]) == ({pf(1): "flapping"}, "new fan")
        lines = [" ".join(line.split()) for line in done(portclaim("host", "list")).splitlines()]
        assert lines[1].endswith(f"1 0 2 0 0 none up {pf(1)} (flapping)")
        assert lines[2].endswith("0 0 0 0 0 none up, drained: new fan")
        fleet.falls_silent("h2")
        assert "silent, drained: new fan" in done(portclaim("host", "list", "--host", "h2"))

    def test_steps_without_an_answer_are_listed_and_sent_again(self, portclaim: Run, fleet: Fleet) -> None:
        claim = done_in_json(portclaim("claim", "--alias", "nic-vf:1", "--output", "json"))
        fleet.sql("UPDATE outbox SET send_after = 'infinity', sends = 100")
        [step] = done_in_json(portclaim("outbox", "list", "--parked", "--output", "json"))
        assert (step["claim_id"], step["times_sent"], step["parked"]) == (claim["claim_id"], 100, True)
        table = done(portclaim("outbox", "list"))
        assert "1 attach" in table
        assert "parked" in table
        assert_failed(portclaim("outbox", "retry"), 2, "name claims or use --parked")
        assert done(portclaim("outbox", "retry", claim["claim_id"])) == "1 step sent again\n"
        assert done(portclaim("outbox", "retry", "--parked")) == "0 steps sent again\n"

    def test_claim_wait_prints_that_it_waits_until_it_is_served(
        self, waiting: Callable[..., subprocess.Popen[str]], portclaim: Run, fleet: Fleet
    ) -> None:
        holder = fleet.claim("nic-pf:1", hosts=["h1"])
        fleet.claim("nic-pf:1")
        waits = waiting("--alias", "nic-pf:1", "--output", "json")
        assert waits.stderr is not None
        claim_id = waits.stderr.readline().split()[1]
        [row] = done_in_json(portclaim("waiting", "--output", "json"))
        assert (row["claim_id"], row["position"], row["alias"]) == (claim_id, 1, "nic-pf:1")
        assert claim_id in done(portclaim("waiting"))
        shown = done(portclaim("show", claim_id))
        assert "host  -" in shown
        assert "status waiting" in shown
        fleet.leave(holder)
        said, _ = waits.communicate(timeout=60)
        assert (waits.returncode, json.loads(said)["status"]) == (0, "claimed")
        assert json.loads(said)["claim_id"] == claim_id

    def test_claim_wait_interrupted_says_how_to_go_on_and_the_claim_still_waits(
        self, waiting: Callable[..., subprocess.Popen[str]], portclaim: Run, fleet: Fleet
    ) -> None:
        for _ in range(2):
            fleet.claim("nic-pf:1")
        interrupted, other = (waiting("--alias", "nic-vf:1") for _ in range(2))
        ids = []
        for each in (interrupted, other):
            assert each.stderr is not None
            ids.append(each.stderr.readline().split()[1])
        interrupted.send_signal(signal.SIGINT)
        _, said = interrupted.communicate(timeout=60)
        assert interrupted.returncode == 130
        assert f"portclaim show {ids[0]}" in said
        assert f"portclaim release {ids[0]}" in said
        assert done_in_json(portclaim("show", ids[0], "--output", "json"))["status"] == "waiting"

        assert "released" in done(portclaim("release", ids[1]))
        _, said = other.communicate(timeout=60)
        assert (other.returncode, said) == (
            1,
            "portclaim: the claim was not served, and is released: it was released while it waited\n",
        )

    def test_ping_tells_whether_a_service_answers(self, portclaim: Run) -> None:
        assert done(portclaim("ping", "scheduler")) == "scheduler answers\n"


class TestBadUsage:
    @pytest.mark.parametrize(
        ("command", "said"),
        [
            ("", "Usage: portclaim"),
            ("clam", "No such command 'clam'"),
            ("claim", "--alias"),
            ("claim --alias nic-vf:1 --claim-id 7", "--claim-id"),
            ("claim --alias nic-vf:1 --extra-spec trusted", "KEY=VALUE"),
            ("claim --alias nic-vf:1 --fast", "--fast"),
            ("claim --alias nic-vf:1 --host h/1", "'h/1'"),
            ("tree --host h/1", "'h/1'"),
            ("show c1", "CLAIM_ID"),
            ("show", "CLAIM_ID"),
            ("devices --status free", "--status"),
            ("devices --limit 0", "--limit"),
            ("tree --output xml", "--output"),
            ("ping compute_agent", "--host"),
            ("--config-file no-such-file tree", "no-such-file"),
        ],
    )
    def test_bad_usage_is_refused_before_anything_is_done(self, command: str, said: str) -> None:
        ended = CliRunner().invoke(main, command.split(), prog_name="portclaim")
        assert ended.exit_code == 2
        assert ended.stdout == ""
        assert said in ended.stderr

    def test_bad_usage_ends_with_status_2(self) -> None:
        assert_failed(run("claim", "--claim-id", "7"), 2, "Usage: portclaim claim", "--claim-id")


class TestWithoutServices:
    def test_without_a_scheduler_the_error_names_the_scheduler(self, rabbit_url: str) -> None:
        bus = {"OS_DEFAULT__TRANSPORT_URL": rabbit_url, "OS_RPC__TIMEOUT": "0.5", "OS_RPC__ATTEMPTS": "2"}
        assert_failed(run("tree", **bus), 1, "scheduler does not answer", "can be repeated")

    def test_without_a_broker_the_command_fails_instead_of_waiting_forever(self) -> None:
        [nobody] = free_ports(1)
        bus = {"OS_DEFAULT__TRANSPORT_URL": f"rabbit://guest:guest@127.0.0.1:{nobody}/"}
        assert_failed(run("tree", **bus), 1, "scheduler does not answer")

    def test_an_unsupported_option_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "portclaim.conf"
        file.write_text(as_ini({"pci": {"passthru_whitelist": "{}"}}))
        assert_failed(run("--config-file", str(file), "tree"), 1, "portclaim: ", "[pci] passthru_whitelist")


class TestDatabaseUpgrade:
    def test_upgrade_creates_the_schema_and_can_be_repeated(self, empty_database_url: str) -> None:
        database = {"OS_DATABASE__CONNECTION": empty_database_url}
        assert done(run("db", "upgrade", **database)).startswith("the schema was empty, and is ")
        with sa.create_engine(empty_database_url).connect() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM pf_vf_tree")) == 0
        assert done(run("db", "upgrade", **database)).startswith("the schema is ")

    def test_pruning_deletes_claims_that_ended_long_ago(self, fleet: Fleet, database_url: str) -> None:
        host = fleet.host("h1")
        claim = fleet.claim("nic-vf:1")
        host.done(fleet.release(claim))
        fleet.sql("UPDATE claims SET updated_at = now() - interval '91 d'")
        database = {"OS_DATABASE__CONNECTION": database_url}
        assert done(run("db", "prune", "--older-than", "92d", **database)) == "0 claims deleted\n"
        assert done(run("db", "prune", "--older-than", "90d", **database)) == "1 claim deleted\n"
        assert done(run("db", "prune", "--older-than", "90d", **database)) == "0 claims deleted\n"
        assert_failed(run("db", "prune", "--older-than", "soon", **database), 2, "'soon' is not an age")
        assert_failed(run("db", "prune", "--older-than", "0d", **database), 2, "'0d' is not an age")

    @pytest.mark.parametrize("batch", ["1", "2", "100"])
    def test_pruning_is_recorded_once_however_many_batches_it_takes(
        self, fleet: Fleet, database_url: str, batch: str
    ) -> None:
        host = fleet.host("h1")
        for _ in range(3):
            host.done(fleet.release(fleet.claim("nic-vf:1")))
        fleet.sql("UPDATE claims SET updated_at = now() - interval '3 h'")
        said = ("--batch", batch, "--who", "ann", "--reason", "the disk is full")
        database = {"OS_DATABASE__CONNECTION": database_url}
        for age in ("2d", "120m", "120m"):
            done(run("db", "prune", "--older-than", age, *said, **database))
        assert fleet.sql("SELECT who, action, object, reason FROM audit") == [
            ("ann", "prune", "claims that ended more than 2h ago", "the disk is full")
        ]

    def test_pruning_a_database_without_the_schema_ends_with_status_1(self, empty_database_url: str) -> None:
        database = {"OS_DATABASE__CONNECTION": empty_database_url}
        assert_failed(run("db", "prune", "--older-than", "90d", **database), 1, "run `portclaim db upgrade`")

    def test_without_a_database_it_ends_with_status_1(self, tmp_path: Path) -> None:
        assert_failed(run("db", "upgrade"), 1, "[database] connection is not set")
        for url, said in [
            (f"postgresql+psycopg2://nobody@/nothing?host={tmp_path}", str(tmp_path)),
            ("mysql://localhost/portclaim", "[database] connection is not the URL of a PostgreSQL"),
        ]:
            assert_failed(run("db", "upgrade", OS_DATABASE__CONNECTION=url), 1, "portclaim: ", said)


class TestHelp:
    """What the program prints about itself. It needs no configuration and no slow imports for that."""

    def test_the_list_of_commands_has_the_short_help_of_each_command(self) -> None:
        for name, lazy in COMMANDS.items():
            assert lazy.load().get_short_help_str(limit=100) == lazy.short_help, name
            assert lazy.load().name == name

    def test_the_list_of_commands_imports_no_slow_modules(self) -> None:
        listed = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "portclaim.cli.main", "--help"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "portclaim tree" in listed.stdout
        imported = {line.rpartition("|")[2].strip() for line in listed.stderr.splitlines()}
        assert "click" in imported
        assert imported & SLOW == set()
        assert {name for name in imported if name.startswith("portclaim.")} == {
            "portclaim.cli",
            "portclaim.cli.lazy",
            "portclaim.cli.session",
            "portclaim.common",
            "portclaim.common.errors",
        }

    def test_the_help_of_a_command_and_completion_import_no_slow_modules(self) -> None:
        text = f"""
import sys
import click
from portclaim.cli.main import COMMANDS
for lazy in COMMANDS.values():
    lazy.load().get_help(click.Context(lazy.load()))
assert not set(sys.modules) & {SLOW}, set(sys.modules) & {SLOW}
"""
        subprocess.run([sys.executable, "-c", text], check=True, timeout=60)
        words = {"COMP_WORDS": "portclaim host dr", "COMP_CWORD": "2"}
        assert done(run(_PORTCLAIM_COMPLETE="bash_complete", **words)) == "plain,drain\n"

    def test_values_copied_to_avoid_an_import_match_the_originals(self) -> None:
        assert claims.LONGEST_WAIT == claim_messages.MAX_WAIT
        assert candidates.MOST == candidate_messages.MAX_CANDIDATES
        assert get_args(Kind) == events.KINDS
        assert get_args(fields.ClaimStatus) == events.CLAIM_STATUSES
        assert set(get_args(fields.DeviceStatus)) == set(DeviceStatus)
        assert get_args(fields.DevType) == devices.DEVICE_TYPES
        for topic, name in devices.CLIENTS.items():
            assert getattr(import_module(f"portclaim.common.rpc.{topic}"), name).topic == topic

    def test_every_command_has_an_example_and_says_what_to_do_next(self) -> None:
        def commands(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
            if isinstance(command, click.Group):
                context = click.Context(command)
                for each in command.list_commands(context):
                    within = command.get_command(context, each)
                    assert within is not None
                    yield from commands(within, f"{name} {each}")
            else:
                yield name, command.help or ""

        for name, text in commands(main, "portclaim"):
            example = text.replace("portclaim --config-file /etc/portclaim/portclaim.conf", "portclaim")
            assert f"Example: {name}" in example, name
            assert re.search(r"^ *Next: ", text, re.MULTILINE), name

    def test_the_version_names_the_required_schema(self) -> None:
        assert done(run("--version")) == f"portclaim {version('portclaim')}, schema {HEAD}\n"

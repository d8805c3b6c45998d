"""The how-to guides, played beside one ``portclaim serve``: their commands do what they say.

A guide's hosts have the names of the simulated hosts here, and its configuration file is the one that the
start has written. Commands speak HTTP, except where a guide names that file or a command needs the database.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.nova import cell
from tests.support.readme import ROOT
from tests.support.served import PROGRAM, Served, directory_of_one

HOW_TO = ROOT / "docs/how-to"
CLAIM = "6f1b4f6e-52b5-4e0f-9d0a-1c3f4f2b7a10"
TARGET = "9d2c7c0e-3f0b-4a53-8a55-2b1f0f6f5d11"

PLAYED = {
    "choose-a-host.md",
    "drain-a-host.md",
    "install.md",
    "page.md",
    "replace-a-host.md",
    "secure-a-fleet.md",
    "serve.md",
    "take-over-nova.md",
    "upgrade.md",
}
ELSEWHERE = {
    "broker-failover.md": "a cluster of RabbitMQ, by test_broker_failover.py; it has no commands",
    "containers.md": "a Docker engine, by tests/compose",
    "database-failover.md": "a PostgreSQL with a standby, by test_database_failover.py; it has no commands",
    "monitor.md": "Prometheus, by test_monitoring.py, and `doctor`, by test_doctor.py; no other commands",
    "restore.md": "a database that is older than its hosts, and the bus of their agents, by test_restore.py",
    "write-a-client.md": "programs that speak RPC over RabbitMQ, by test_readme.py; it has no commands",
}
"""Guides that are not played here: what they need, and which test plays them."""

LEFT_OUT = {
    "serve": "it starts another one: test_serve.py",
    "broker": "the management interface of RabbitMQ: test_compromised_host.py",
    "ping conductor": "the message bus, which is within the process of portclaim serve: test_cli.py",
    f"move begin {CLAIM} --to-claim {TARGET} --live": "a guest: test_live_moves.py",
    "move revert": "another end of the same move: test_moves.py",
}
"""Commands of the guides that are played which are not: what they need, and which test has them."""

NEED_DATABASE = ("import nova", "host enroll", "host revoke")
"""On the guide's machine they find the configuration by themselves."""


class Command(NamedTuple):
    """A command of a guide. ``words``: without the name of the program."""

    words: list[str]
    over_http: bool

    @property
    def text(self) -> str:
        return " ".join(self.words)


def commands(page: str, changed: Mapping[str, str]) -> list[Command]:
    """The commands of ``portclaim`` in the blocks of a page, in their order, with these texts changed."""
    text = (HOW_TO / page).read_text()
    blocks = [
        textwrap.dedent(each) for each in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]
    found = []
    lines = "".join(blocks).replace("\\\n", "")
    for old, new in changed.items():
        lines = lines.replace(old, new)
    for line in lines.splitlines():
        command = re.fullmatch(r"(?:env -u PORTCLAIM_URL )?portclaim (.+)", line)
        if command is None:
            continue
        words = shlex.split(command[1])
        if words[0] == "--config-file":
            found.append(Command(words[2:], over_http=False))
        else:
            found.append(Command(words, over_http=not command[1].startswith(NEED_DATABASE)))
    return found


class Guide:
    """Plays guides beside a ``portclaim serve``."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.file = str(served.directory / "portclaim.conf")
        http = {"PORTCLAIM_URL": served.url, "PORTCLAIM_TOKEN": served.token or ""}
        self.environment = {**os.environ, **http}
        found = re.search(
            r"^connection = (\S+)$", (served.directory / "portclaim.conf").read_text(), re.MULTILINE
        )
        assert found
        self.database = sa.make_url(found[1])

    def run(self, *words: str, over_http: bool = True) -> str:
        """Run a command, which must succeed; answers what it prints."""
        command = [str(PROGRAM), *(() if over_http else ("--config-file", self.file)), *words]
        environment = self.environment if over_http else {**self.environment, "PORTCLAIM_URL": ""}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=100
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def play(self, page: str, **changed: str) -> dict[str, str]:
        """Run the commands of a page. Answers what each has printed, by the command as it was run."""
        files = ("/etc/portclaim/portclaim.conf", "~/.local/share/portclaim/portclaim.conf")
        names = {name.replace("_", "-"): new for name, new in changed.items()} | dict.fromkeys(
            files, self.file
        )
        said = {}
        for each in commands(page, names):
            if not each.text.startswith(tuple(LEFT_OUT)):
                said[each.text] = self.run(*each.words, over_http=each.over_http)
        assert said, f"{page} has no commands"
        return said

    def claim(self, host: str, claim_id: str) -> None:
        """A claim that a guide takes as given."""
        self.run("claim", "--alias", "nic-vf:1", "--host", host, "--claim-id", claim_id)
        self.run("wait", claim_id, "--timeout", "60")

    def sql(self, statement: str, database: str | None = None) -> None:
        url = self.database if database is None else self.database.set(database=database)
        engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


@pytest.fixture(scope="module")
def guide() -> Iterator[Guide]:
    with directory_of_one() as directory:
        served = Served(directory, "--simulate", "2")
        try:
            yield Guide(served)
        finally:
            served.process.stop()


@pytest.fixture(scope="module")
def taken_over(guide: Guide) -> dict[str, str]:
    """What the commands of the guide have printed: the hosts of a cell of Nova are there, without agents."""
    guide.sql("CREATE DATABASE nova_cell1")
    url = guide.database.set(database="nova_cell1").render_as_string(hide_password=False)
    cell.load(url)
    guide.environment["PORTCLAIM_NOVA_DATABASE"] = url
    said = guide.play("take-over-nova.md", compute_7="node-1", **{"0000:81:00.0": "0000:02:00.0"})
    guide.run("import", "nova", over_http=False)  # the guide ends with the way back
    return said


def test_every_guide_is_played_here_or_elsewhere() -> None:
    assert PLAYED | set(ELSEWHERE) == {page.name for page in HOW_TO.glob("*.md")}
    assert not PLAYED & set(ELSEWHERE)
    for tests in re.findall(r"tests?[/_]\w+(?:\.py)?", " ".join([*ELSEWHERE.values(), *LEFT_OUT.values()])):
        place = ROOT / ("tests/integration" if tests.endswith(".py") else ".") / tests
        assert place.exists(), tests


def test_guides_without_commands_have_none_and_what_is_left_out_is_there() -> None:
    for page, why in ELSEWHERE.items():
        if "no commands" in why or "no other commands" in why:
            assert commands(page, {}) == [], page
    every = [each.text for page in PLAYED for each in commands(page, {})]
    for prefix in LEFT_OUT:
        assert any(each.startswith(prefix) for each in every), f"no guide has {prefix}"


def test_choose_a_host(guide: Guide) -> None:
    other = str(uuid4())
    guide.claim("sim-1", other)
    changed = {"compute_7": "sim-1", "compute_8": "sim-2", CLAIM: other}
    candidates, on_one, apart = guide.play("choose-a-host.md", **changed).values()
    assert "sim-1" in candidates
    assert "sim-1" in on_one
    assert "sim-2" in apart


def test_drain_a_host(guide: Guide) -> None:
    for claim_id in (CLAIM, "0f6d2c1e-52b5-4e0f-9d0a-1c3f4f2b7a11"):
        guide.claim("sim-1", claim_id)
    said = list(guide.play("drain-a-host.md", compute_7="sim-1").values())
    assert said[0].startswith("sim-1 takes no new claims")
    assert said[-1].startswith("sim-1 takes claims again")
    for claim_id in (CLAIM, "0f6d2c1e-52b5-4e0f-9d0a-1c3f4f2b7a11"):
        assert "released" in guide.run("wait", claim_id, "--for", "ended", "--timeout", "60")
    assert "complete-move" in guide.run("audit", "list")


def test_run_it_on_one_machine(guide: Guide) -> None:
    said = guide.play("serve.md")
    assert "sim-1" in said["tree"]
    assert "revoke-token" in guide.run("audit", "list", "--who", "operator")
    second = said["token create --role operator --name second"].strip()
    http = {**guide.environment, "PORTCLAIM_TOKEN": second}
    shown = subprocess.run([PROGRAM, "quota", "list"], env=http, capture_output=True, text=True, check=True)
    assert "web" in shown.stdout


def test_the_same_with_curl(guide: Guide) -> None:
    if missing := [program for program in ("curl", "bash") if shutil.which(program) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    [block] = re.findall(r"```sh\n(claim=.*?)```", (HOW_TO / "serve.md").read_text(), re.DOTALL)
    ends = block.replace("/v1/events?after=0", "/v1/events?after=0&until=1")
    strictly = 'curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    strictly += f"uuidgen() {{ {sys.executable} -c 'import uuid; print(uuid.uuid4())'; }}\n"
    done = subprocess.run(
        ["bash", "-euc", strictly + ends],
        env=guide.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":"allocated"' in done.stdout
    assert '"status":"releasing"' in done.stdout


def test_run_it_on_your_own_machines(guide: Guide) -> None:
    said = guide.play("install.md")
    assert "sim-2" in said["host list"]
    assert "_PORTCLAIM_COMPLETE" in said["completion bash"]
    assert "the schema is 0" in said["db upgrade"]


def test_upgrade(guide: Guide) -> None:
    said = guide.play("upgrade.md")
    assert said["--version"].startswith("portclaim ")
    assert "sim-1" in said["host list"]


def test_the_page(guide: Guide) -> None:
    [token] = guide.play("page.md").values()
    with guide.served.client(token.strip()) as wall:
        assert wall.get("/v1/token").json()["role"] == "reader"
        assert wall.get("/v1/hosts").status_code == 200


def test_secure_a_fleet(guide: Guide) -> None:
    guide.sql("CREATE USER conductor_1")
    said = guide.play("secure-a-fleet.md")
    assert said["host enroll compute-7"].strip()
    assert "conductor_1 has the role portclaim_conductor" in said["db grant conductor conductor_1"]
    assert "revoke-host" in guide.run("audit", "list", "--object", "compute-7")


def test_take_over_nova(guide: Guide, taken_over: dict[str, str]) -> None:
    assert "would be made" in taken_over["import nova --dry-run --host node-1"]
    assert "nothing to do" in taken_over["import nova --host node-1"], "it is the second time"
    assert "node-1" in taken_over["tree --host node-1"]
    assert "import-host" in guide.run("audit", "list", "--object", "node-1")


@pytest.mark.usefixtures("taken_over")
def test_replace_a_host(guide: Guide) -> None:
    """The hosts that were imported never had an agent, as if they were off."""
    live = json.loads(guide.run("claim", "list", "--output", "json"))
    first, host = next((row["claim_id"], row["host"]) for row in live if row["host"].startswith("node-"))
    said = guide.play("replace-a-host.md", compute_9="node-4", compute_7=host, **{CLAIM: first})
    assert any(each.startswith("node-4 is removed") for each in said.values())
    assert f"{host} is removed" in said.popitem()[1]
    assert json.loads(guide.run("claim", "list", "--host", host, "--output", "json")) == []
    assert "force-release" in guide.run("audit", "list", "--object", first)

"""``portclaim demo`` as a new user runs it: its output is true, and it leaves nothing behind."""

from __future__ import annotations

import html
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from portclaim.cli.demo import double_bookings
from portclaim.cli.demo.runner import LATE, next_commands
from tests.support.readme import ROOT, examples, missing

DEMO = [str(Path(sys.executable).with_name("portclaim")), "demo"]
COLOUR = re.compile(r"\x1b\[(?:\d+;)*[39]\d(?:;\d+)*m")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """An empty directory for all temporary files. The embedded server of root may enter it too."""
    place = Path(tempfile.mkdtemp(prefix="portclaim-test-demo-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def environment(place: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(place), "TERM": "xterm", **more}


def leftovers(place: Path) -> list[str]:
    """Temporary files, and processes that still use the directory after they had time to end."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [*map(str, place.iterdir()), *processes(str(place))]
        if not found:
            return []
        time.sleep(0.1)
    return found


def processes(word: str) -> list[str]:
    found = []
    for about in Path("/proc").glob("[0-9]*"):
        try:
            told = (about / "cmdline").read_bytes() + (about / "environ").read_bytes()
            if word.encode() in told:
                found.append((about / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended, or belongs to another user
    return found


@pytest.fixture(scope="module")
def shown(place: Path) -> str:
    """What the demo prints where its output is no terminal."""
    run = subprocess.run(
        DEMO, env=environment(place), capture_output=True, text=True, timeout=180, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert leftovers(place) == []
    return run.stdout


def step(shown: str, headline: str) -> str:
    """The part of the output below the headline that begins like this."""
    found = re.search(
        rf"^\d+\. {re.escape(headline)}.*?$(.*?)(?=^\d+\. |^Done )", shown, re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"no step {headline!r} in:\n{shown}"
    return found[1]


def statuses(text: str) -> dict[str, set[str]]:
    """The statuses in the trees of a step, by type of device."""
    found: dict[str, set[str]] = {}
    for kind, status in re.findall(r"[0-9a-f]{4}:\S+  (PF|VF)  \S+  (\w+)", text):
        found.setdefault(kind, set()).add(status)
    return found


def test_output_has_no_colours_if_it_is_not_a_terminal(shown: str) -> None:
    assert "\x1b" not in shown


def test_it_shows_the_real_devices_of_this_machine(shown: str) -> None:
    functions = {
        function.name: [(function / name).read_text().strip()[2:] for name in ("class", "vendor", "device")]
        for function in Path("/sys/bus/pci/devices").glob("*")
    }
    real = {f"{address}  {v}:{p}" for address, (kind, v, p) in functions.items() if not kind.startswith("06")}
    tree = step(shown, "The devices of the fleet").partition("only reads them")[2]
    listed = {f"{address}  {ids}" for address, ids in re.findall(r"([0-9a-f:.]{12,})  P?\w+  (\S+)", tree)}
    assert listed <= real
    assert len(listed) == min(len(real), 10) or "... and" in tree


def test_claiming_a_pf_makes_its_vfs_unclaimable(shown: str) -> None:
    assert statuses(step(shown, "Claim a whole port")) == {"PF": {"claimed"}, "VF": {"unclaimable"}}


def test_a_vf_of_that_port_is_refused_with_the_reason(shown: str) -> None:
    refusal = step(shown, "Ask for one VF")
    assert re.search(r"Refused: no host has .* tenant A\.", refusal)
    assert re.search(r"^ +available +0 +0$", refusal, re.MULTILINE)


def test_an_attached_pf_is_allocated_and_its_vfs_are_unavailable(shown: str) -> None:
    assert statuses(step(shown, "The host's agent attaches")) == {"PF": {"allocated"}, "VF": {"unavailable"}}


def test_after_the_release_all_devices_are_available(shown: str) -> None:
    assert statuses(step(shown, "Release the port")) == {"PF": {"available"}, "VF": {"available"}}


def test_sixteen_clients_are_served_or_refused_and_no_device_is_booked_twice(shown: str) -> None:
    competition, proven = step(shown, "16 clients compete"), step(shown, "Was a device handed out twice?")
    served, refused = map(int, re.findall(r"(\d+) claims served and (\d+) refused", competition)[0])
    recorded = [int(claims) for claims in re.findall(r"^ +type-[PV]F +(\d+)", proven, re.MULTILINE)]
    assert served >= 32
    assert refused > 0
    assert sum(recorded) == served + 1, "the claims of the 16 clients, and one of tenant A"
    assert re.findall(r"double_bookings: (\d+)", proven) == ["0", "0", "0"]
    assert "held_vf_has_unheld_pf" in step(shown, "Try a double booking by hand")


def test_the_output_matches_the_readme(shown: str) -> None:
    (example,) = [example for example in examples() if example.command == "make demo"]
    assert missing(example.lines, shown) is None


def test_the_picture_matches_the_output_and_loads_no_other_files(shown: str) -> None:
    """`make picture` makes the picture anew."""

    def gist(text: str) -> str:
        return re.sub(r"\d+", "0", "".join(text.split()))

    picture = (ROOT / "docs/images/demo.svg").read_text()
    assert set(re.findall(r"(?:https?:)?//[^\s\"'<)]+", picture)) == {"http://www.w3.org/2000/svg"}
    assert "@font-face" not in picture
    lines: dict[float, str] = {}
    for height, text in re.findall(r'<text class="demo-r\d+"[^>]* y="([\d.]+)"[^>]*>(.*?)</text>', picture):
        lines[float(height)] = lines.get(float(height), "") + html.unescape(text)
    assert gist(lines.pop(min(lines))) == "$makedemo"
    printed = gist(shown)
    for line in lines.values():
        assert gist(line) in {"", "..."} or gist(line) in printed, line
    assert len(lines) > 20


def test_the_output_ends_with_what_to_try_next(shown: str) -> None:
    end = shown.partition("Try next:")[2]
    commands = [command for command, _ in next_commands(ROOT)]
    assert re.findall(r"^ +(\S.*?)  ", end, re.MULTILINE)[1:] == commands
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {command.split()[1] for command in commands if command.startswith("make ")} <= targets
    for command in commands:
        if not command.startswith("make "):
            subprocess.run(command.split(), cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_outside_the_source_tree_it_names_only_commands_that_work_there(tmp_path: Path) -> None:
    assert [command for command, _ in next_commands(tmp_path)] == ["portclaim host scan", "portclaim --help"]


def test_the_output_shows_the_devices_of_every_simulated_host(shown: str) -> None:
    competition = step(shown, "16 clients compete")
    assert re.findall(r"^ +(sim-\d) *$", competition, re.MULTILINE) == ["sim-1", "sim-2", "sim-3"]
    assert len(re.findall(r"── \S+  PF  ", competition)) == 5
    assert len(re.findall(r"── \S+  VF  ", competition)) == 20


class Terminal:
    """The demo on a terminal, which is read while it runs."""

    def __init__(self, place: Path, **more: str) -> None:
        self._ours, its = pty.openpty()
        self.process = subprocess.Popen(
            DEMO, stdin=its, stdout=its, stderr=its, env=environment(place, **more), start_new_session=True
        )
        os.close(its)
        self.seen = ""

    def read_until(self, text: str | None = None) -> str:
        """What was shown until ``text`` appeared, or until the end."""
        while text is None or text not in self.seen:
            try:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:  # Linux: no process has the terminal open any more
                break
        return self.seen

    def end(self) -> int:
        """Its exit status. Everything must have stopped in time."""
        self.read_until()
        os.close(self._ours)
        assert LATE.decode().strip() not in self.seen
        return self.process.wait(timeout=60)


def test_on_a_terminal_it_has_colours_and_ctrl_c_ends_it_while_clients_compete(place: Path) -> None:
    terminal = Terminal(place)
    terminal.read_until("claims again")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 128 + signal.SIGINT
    assert {"\x1b[32mavailable", "\x1b[33mclaimed", "\x1b[1;31mallocated"} <= set(
        re.findall(r"\x1b\[[\d;]*m(?:available|claimed|allocated)", terminal.seen)
    )
    assert "Traceback" not in terminal.seen
    assert leftovers(place) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [("a private, empty PostgreSQL ...", signal.SIGTERM), ("It is not attached yet", signal.SIGHUP)],
)
def test_it_can_be_stopped_early_without_colours_and_next_to_real_services(
    place: Path, moment: str, number: signal.Signals
) -> None:
    """The environment has options for those services, with another broker and another database."""
    terminal = Terminal(
        place,
        NO_COLOR="1",
        OS_DEFAULT__TRANSPORT_URL="rabbit://nobody@127.0.0.1:1/",
        OS_DATABASE__CONNECTION="postgresql+psycopg2://nobody@127.0.0.1:1/none",
    )
    terminal.read_until(moment)
    terminal.process.send_signal(number)
    assert terminal.end() == 128 + number
    assert moment in terminal.seen
    assert "stopping everything that was started" in terminal.seen
    assert "Traceback" not in terminal.seen
    assert not COLOUR.search(terminal.seen)
    assert leftovers(place) == []


HISTORY = """
INSERT INTO compute_nodes (host, agent_id) VALUES ('a', gen_random_uuid());
INSERT INTO pools (dev_type, vendor_id, product_id, tags)
VALUES ('type-PF', '8086', '1572', '{}'), ('type-VF', '8086', '154c', '{}');
INSERT INTO pci_devices (compute_node_id, parent_id, pool_id, offered, address, dev_type, status)
SELECT n.id, NULL, p.id, true, '0000:01:00.0', 'type-PF', 'available'
  FROM compute_nodes n, pools p WHERE p.dev_type = 'type-PF';
INSERT INTO pci_devices (compute_node_id, parent_id, pool_id, offered, address, dev_type, status)
SELECT n.id, d.id, p.id, true, '0000:01:10.0', 'type-VF', 'available'
  FROM compute_nodes n, pci_devices d, pools p WHERE p.dev_type = 'type-VF';
INSERT INTO claims (id, instance_id, compute_node_id, status, request, first_device_id)
SELECT gen_random_uuid(), gen_random_uuid(), n.id, 'released', '{}', 1
  FROM compute_nodes n, generate_series(1, 2);
"""
HELD = """
INSERT INTO claim_devices (claim_id, device_id, pool_id, request_index, held_from, held_until)
SELECT c.id, d.id, d.pool_id, 0, timestamptz '2026-01-01' + :begin * interval '1 hour',
       timestamptz '2026-01-01' + :end * interval '1 hour'
  FROM (SELECT id FROM claims ORDER BY id OFFSET :claim LIMIT 1) c, pci_devices d WHERE d.dev_type = :dev_type
"""

WITHOUT_RULES = (
    "ALTER TABLE pci_devices DROP CONSTRAINT held_vf_has_unheld_pf",
    "ALTER TABLE claims DROP CONSTRAINT live_claim_holds_a_device",
    "UPDATE claims SET status = 'allocated'",
    "UPDATE pci_devices SET status = 'allocated', claim_id = (SELECT id FROM claims LIMIT 1)",
)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text(HISTORY))
    yield engine
    engine.dispose()


def hold(engine: sa.Engine, claim: int, dev_type: str, begin: int, end: int | None) -> None:
    with engine.begin() as connection:
        facts = {"claim": claim, "dev_type": dev_type, "begin": begin, "end": end}
        connection.execute(sa.text(HELD), facts)


def found(engine: sa.Engine) -> list[int]:
    return [
        double_bookings.ask(engine, question.sql)[0]["double_bookings"]
        for question in double_bookings.MUST_BE_ZERO
    ]


def test_the_queries_accept_one_hold_after_another(engine: sa.Engine) -> None:
    hold(engine, 0, "type-VF", 1, 2)
    hold(engine, 1, "type-VF", 2, None)
    hold(engine, 0, "type-PF", 0, 1)
    assert found(engine) == [0, 0, 0]


def test_the_queries_find_a_device_held_twice(engine: sa.Engine) -> None:
    hold(engine, 0, "type-VF", 1, 3)
    hold(engine, 1, "type-VF", 2, None)
    assert found(engine)[0] > 0


def test_the_queries_find_a_port_held_as_pf_and_as_vf(engine: sa.Engine) -> None:
    hold(engine, 0, "type-PF", 1, 3)
    hold(engine, 1, "type-VF", 2, 4)
    assert found(engine)[1] > 0


def test_the_queries_find_a_current_double_booking(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for statement in WITHOUT_RULES:
            connection.execute(sa.text(statement))
    assert found(engine)[2] > 0


def test_a_statement_that_postgresql_accepts_shows_no_refusal(engine: sa.Engine) -> None:
    assert double_bookings.refusal(engine, "UPDATE pci_devices SET present = false") is None
    assert double_bookings.refusal(engine, "UPDATE pci_devices SET status = 'claimed'") is not None

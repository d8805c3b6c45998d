"""An agent has the same id after a restart, and is the only agent of its host."""

import subprocess
import sys
from pathlib import Path

import pytest

from portclaim.common.errors import InvalidConfiguration
from portclaim.services.compute_agent.identity import Identity

HOLD = """
import sys
from pathlib import Path
from portclaim.services.compute_agent.identity import Identity
print(Identity(Path(sys.argv[1]), "node-1").take(), flush=True)
sys.stdin.read()
"""


def test_the_id_survives_a_restart(tmp_path: Path) -> None:
    first = Identity(tmp_path, "node-1")
    agent_id = first.take()
    first.give_back()
    assert Identity(tmp_path, "node-1").take() == agent_id


def test_two_hosts_on_one_machine_are_two_agents(tmp_path: Path) -> None:
    assert Identity(tmp_path, "node-1").take() != Identity(tmp_path, "node-2").take()


def test_a_second_agent_of_the_same_host_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    first = Identity(tmp_path, "node-1")
    first.take()
    with pytest.raises(
        InvalidConfiguration, match=r"another agent of host node-1 is running with .* stop it"
    ):
        Identity(tmp_path, "node-1").check()
    first.give_back()
    Identity(tmp_path, "node-1").check()


def test_a_killed_agent_leaves_no_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        agent_id = holder.stdout.readline().strip()
        with pytest.raises(InvalidConfiguration, match="another agent"):
            Identity(tmp_path, "node-1").take()
        holder.kill()
    assert str(Identity(tmp_path, "node-1").take()) == agent_id


def test_a_truncated_id_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "node-1").mkdir()
    (tmp_path / "node-1/agent_id").write_text("6f1c-")
    identity = Identity(tmp_path, "node-1")
    agent_id = identity.take()
    assert (tmp_path / "node-1/agent_id").read_text() == f"{agent_id}\n"


def test_an_impossible_state_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidConfiguration, match="state_path must be a directory"):
        Identity(tmp_path / "file", "node-1").take()

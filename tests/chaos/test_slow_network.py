"""A slow network delays packets and loses some of them, and it ends without a trace."""

import subprocess
import sys

import pytest

from tests.chaos.slow_cable import TUN

# Runs in its own namespaces, as a campaign does. Prints what it has measured.
PROGRAM = """
import json, socket, subprocess, sys, threading
from tests.chaos import privacy
privacy.enter()
if not privacy.has_network():
    sys.exit(privacy.why_not())
from tests.chaos.network import ADDRESS, Network
network = Network(["node"])
echo = socket.create_server((ADDRESS, 0))
def answer():
    while True:
        connection, _ = echo.accept()
        while said := connection.recv(1):
            connection.send(said)
threading.Thread(target=answer, daemon=True).start()
def address():
    shown = subprocess.run(["ip", "-json", "link", "show", "switch"], check=True, capture_output=True)
    return json.loads(shown.stdout)[0]["address"]
def ask():
    command = [*network.on("node"), sys.executable, "-c", sys.argv[1], ADDRESS, str(echo.getsockname()[1])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
before = address()
ask()
network.slow_down("node", 0.1, 0.05, seed=1)
slow = ask()
carried, lost = network.speed_up("node")
ask()
# A port with a low address: a bridge without an address of its own would take it.
subprocess.run("ip link add low address 00:00:5e:00:53:01 type veth peer name other".split(), check=True)
subprocess.run("ip link set low master switch up".split(), check=True)
print(slow, carried, lost, address() == before)
"""
# The shortest time from a byte to its echo, of fifty.
CLIENT = """
import socket, sys, time
times = []
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as server:
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(50):
        began = time.monotonic()
        server.send(b"?")
        server.recv(1)
        times.append(time.monotonic() - began)
print(min(times))
"""


def test_a_slow_network_delays_and_loses_packets_until_it_ends() -> None:
    if not TUN.exists():
        pytest.skip(f"there is no {TUN}")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, CLIENT], capture_output=True, text=True, timeout=120, check=False
    )
    if "it needs root" in ran.stderr:
        pytest.skip(ran.stderr)
    assert ran.returncode == 0, ran.stderr
    shortest, carried, lost, is_unchanged = ran.stdout.split()
    assert float(shortest) >= 0.2
    assert int(carried) >= 100  # fifty bytes and their echoes
    assert int(lost) > 0
    assert is_unchanged == "True"  # else hosts would send to an address that is gone

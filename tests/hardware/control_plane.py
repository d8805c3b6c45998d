"""What a host's agent talks to: PostgreSQL, RabbitMQ, conductor and scheduler, as long as a command runs.

    python -m tests.hardware.control_plane COMMAND...

The command finds the bus in PORTCLAIM_BUS, at the address by which a guest of QEMU's user network
sees this machine. Without RabbitMQ it runs all the same, and without that variable.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import engines
from tests.support.postgresql import create_database
from tests.support.rabbitmq import find_server, shared_broker
from tests.support.services import Services

HOST_OF_THE_GUEST = "10.0.2.2"
ALIASES = [
    {"name": "nic-pf", "vendor_id": "8086", "product_id": "10c9", "device_type": "type-PF"},
    {"name": "nic-vf", "vendor_id": "8086", "product_id": "10ca", "device_type": "type-VF"},
]


def main(command: list[str]) -> int:
    """Run the command; answer its exit status."""
    if find_server() is None:
        return subprocess.run(command, check=False).returncode
    engines.begin_run()
    try:
        with tempfile.TemporaryDirectory() as directory:
            bus = shared_broker().create_virtual_host()
            services = Services(Path(directory), bus, create_database())
            services("conductor")
            services("scheduler", {"pci": {"alias": [json.dumps(alias) for alias in ALIASES]}})
            environment = os.environ | {"PORTCLAIM_BUS": bus.replace("127.0.0.1", HOST_OF_THE_GUEST)}
            status = subprocess.run(command, env=environment, check=False).returncode
            for process in services.processes:
                process.stop()
            return status
    finally:
        engines.end_run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

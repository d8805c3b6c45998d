"""An agent's work as a program that has no capability: for a service, or for a container."""

WITHOUT_CAPABILITIES = """
import sys
from pathlib import Path
from portclaim.common import config
from portclaim.common.rpc.agent_messages import Step
from portclaim.services.compute_agent.drivers.vfio import VfioDriver

assert "CapEff:\\t0000000000000000" in Path("/proc/self/status").read_text()
driver = VfioDriver(config.load([], "test"), Path(sys.argv[1]))
driver.start()
step = Step.model_validate_json(sys.argv[2])
driver.prepare(step, step.devices[0])
assert Path("/sys/bus/pci/devices", step.devices[0].address, "driver").readlink().name == "vfio-pci"
driver.detach(step, step.devices[0])
assert not driver.problems(), driver.problems()
driver.stop()
"""

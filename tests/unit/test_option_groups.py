"""What is set in one configuration of a process is not set in another."""

from pathlib import Path

from portclaim.common import config
from tests.support.configured import configured


def test_what_is_set_in_one_configuration_is_not_set_in_another(tmp_path: Path) -> None:
    file = tmp_path / "portclaim.conf"
    file.write_text("[rpc]\ntimeout = 7\n")
    changed = configured(rpc={"timeout": 5, "attempts": 1}, trust={"require": "off"})
    other = config.load(["--config-file", str(file)], "test")
    assert (changed.rpc.timeout, changed.rpc.attempts, changed.trust.require) == (5, 1, "off")
    assert (other.rpc.timeout, other.rpc.attempts, other.trust.require) == (7, 3, "enrolled")

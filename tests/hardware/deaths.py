"""An agent that is killed in the middle of its work."""

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from common.rpc.messages import Step
from services.compute_agent.drivers.real_host import RealHostDriver


def dies_at(
    nth: int, make_driver: Callable[[], RealHostDriver], step: Step, points: Sequence[tuple[type, str]]
) -> bool:
    """Have a process attach and detach, killed before its nth call of any of ``points``. Was there one?"""
    pid = os.fork()
    if pid == 0:
        count = 0

        def dying(do: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal count
                count += 1
                if count == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return do(*arguments)

            return call

        for owner, name in points:
            setattr(owner, name, dying(getattr(owner, name)))
        try:
            driver = make_driver()
            driver.start()
            for device in step.devices:
                driver.attach(step, device)
            for device in step.devices:
                driver.detach(step, device)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)

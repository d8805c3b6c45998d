"""Faults of the simulated hypervisor, from a file that tests and operators write."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from portclaim.common.rpc.agent_messages import Step, StepDevice
from portclaim.services.compute_agent.drivers.base import DriverError


class Fault(BaseModel):
    """One fault, for every call that it matches; None matches any, but for ``action`` not ``prepare``.

    First the call takes ``delay`` seconds longer. Then, if ``error`` is given, it fails with this reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Literal["prepare", "attach", "unplug", "detach"] | None = None
    instance_id: UUID | None = None
    address: str | None = None
    delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    error: str | None = None

    def fits(self, action: str, step: Step, device: StepDevice) -> bool:
        """Does this call have the fault?"""
        return (
            (self.action == action or (self.action is None and action != "prepare"))
            and self.instance_id in {None, step.instance_id}
            and self.address in {None, device.address}
        )


_FAULTS = TypeAdapter(list[Fault])


def suffer(file: Path, action: str, step: Step, device: StepDevice) -> None:
    """Apply the faults in ``file`` that match the call. Without the file there are none.

    Raises DriverError.
    """
    try:
        faults = _FAULTS.validate_json(file.read_bytes())
    except FileNotFoundError:
        return
    except ValidationError as error:
        raise DriverError(f"{file} is not a list of faults: {error}") from error
    for fault in faults:
        if fault.fits(action, step, device):
            time.sleep(fault.delay)
            if fault.error is not None:
                raise DriverError(fault.error)

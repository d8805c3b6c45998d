"""What clients call: the scheduler by RPC, or an API by HTTP."""

from portclaim.cli.http_client import HttpScheduler
from portclaim.common.rpc.scheduler import SchedulerClient

Calls = SchedulerClient | HttpScheduler

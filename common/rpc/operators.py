"""The scheduler's methods for operators. They have a queue of their own, which the broker can guard."""

from __future__ import annotations

from portclaim.common.rpc import versions
from portclaim.common.rpc.client import A, Client
from portclaim.common.rpc.fields import Message

OPERATORS = "scheduler_operators"
"""The queue of the methods that only operators may call."""

OPERATORS_METHODS = frozenset({"force_release", "drain", "remove_host", "retry", "recover", "renew_device"})


class OperatorCalls(Client):
    """A client that calls methods for operators."""

    def _call_as_operator(
        self, method: str, wanted: Message, answer: type[A], since: str = versions.FIRST
    ) -> A:
        """Schedulers of the last release have no queue for operators: then the call goes to the topic."""
        queue = OPERATORS if self.can_send("1.1") else None
        return self._call(method, wanted, answer, since=since, queue=queue)

    def _said(self, text: str | None) -> str | None:
        """For the audit. A scheduler of an older version keeps none."""
        return text if self.can_send("1.1") else None

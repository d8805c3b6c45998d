"""The caller's side of a call: typed messages in, typed messages or typed errors out."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self, TypeVar

import oslo_messaging
import tenacity
from kombu.exceptions import OperationalError
from oslo_config import cfg

from portclaim.common.errors import PortclaimError, ServiceFailed, ServiceUnavailable
from portclaim.common.rpc.endpoint import VERSION
from portclaim.common.rpc.fields import Message, Nothing

A = TypeVar("A", bound=Message)

# OperationalError is kombu's own, for a broker that cannot be reached at all.
_NOT_TAKEN = (oslo_messaging.MessageDeliveryFailure, OperationalError)
_PASSING = (oslo_messaging.MessagingTimeout, *_NOT_TAKEN)


class Client:
    """The root of the clients. Threads may share one.

    ``conf.rpc`` says how long one answer is waited for and how often a call is made; calling again
    is safe because every method of Portclaim is idempotent.
    """

    topic: ClassVar[str]

    def __init__(
        self, bus: oslo_messaging.RPCTransport, conf: cfg.ConfigOpts, server: str | None = None
    ) -> None:
        target = oslo_messaging.Target(topic=self.topic, version=VERSION, server=server)
        self._rpc = oslo_messaging.get_rpc_client(bus, target, timeout=conf.rpc.timeout, retry=2)
        self._attempts = conf.rpc.attempts
        self._has_reached_broker = False
        self._whom = self.topic if server is None else f"{self.topic} of host {server}"

    def at(self, server: str) -> Self:
        """The same client, for the one server of this name only."""
        other = copy.copy(self)
        other._rpc = self._rpc.prepare(server=server)
        other._whom = f"{self.topic} of host {server}"
        return other

    def ping(self) -> None:
        """Return once the service has answered. Raises :class:`ServiceUnavailable`."""
        self._call("ping", Nothing(), Nothing)

    def _call(self, method: str, message: Message, answer: type[A]) -> A:
        """Call and wait. Raises what the service raised, or :class:`ServiceUnavailable`."""
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PASSING),
            stop=tenacity.stop_after_attempt(self._attempts),
            reraise=True,
        )
        try:
            self._reach_broker()
            reply = again(self._rpc.call, {}, method, **_fields(message))
        except PortclaimError as error:
            raise _local(error) from None
        except _PASSING as error:
            raise ServiceUnavailable(
                f"{self._whom} does not answer; calling again is safe", method=method
            ) from error
        except oslo_messaging.RemoteError as error:
            raise ServiceFailed(f"{self._whom} answered {error.exc_type}: {error.value}") from None
        return answer.model_validate(reply)

    def _reach_broker(self) -> None:
        """Give up soon where there is no broker. The first call of a process would wait for it for ever,
        because oslo.messaging declares the queue for the answers without a limit; a cast has one."""
        if not self._has_reached_broker:
            self._rpc.cast({}, "ping")
            self._has_reached_broker = True

    def _cast(self, method: str, message: Message) -> None:
        """Send and do not wait. Raises :class:`ServiceUnavailable` when the broker does not take it."""
        try:
            self._rpc.cast({}, method, **_fields(message))
        except _NOT_TAKEN as error:
            raise ServiceUnavailable(f"the bus did not take {method} for {self._whom}") from error


def _fields(message: Message) -> dict[str, Any]:
    return message.model_dump(mode="json")


def _local(error: PortclaimError) -> PortclaimError:
    """The error as it was raised, without the class and the remote traceback that the bus gave it."""
    for kind in type(error).__mro__:
        if issubclass(kind, PortclaimError) and kind.__module__ == PortclaimError.__module__:
            return kind(error.message, **error.kwargs)
    return error

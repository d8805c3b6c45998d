"""The caller's side of a call: it sends typed messages, and answers typed messages or raises typed errors."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

import amqp.exceptions
import oslo_messaging
import tenacity
from kombu.exceptions import OperationalError
from oslo_config import cfg

from portclaim.common import tracing
from portclaim.common.errors import PortclaimError, ServiceFailed, ServiceUnavailable, UnsupportedVersion
from portclaim.common.metrics.catalogue import RPC_REPEATED
from portclaim.common.rpc import versions
from portclaim.common.rpc.about import About
from portclaim.common.rpc.fields import Message, Nothing
from portclaim.common.rpc.measured import sent_now
from portclaim.common.trust.signature import Signer, Unsigned

A = TypeVar("A", bound=Message)

# kombu raises OperationalError when no broker can be reached at all.
_NOT_TAKEN = (oslo_messaging.MessageDeliveryFailure, OperationalError)
# The broker returns a message that it has no queue for.
_MUST_ARRIVE = oslo_messaging.TransportOptions(at_least_once=True)
_PASSING = (oslo_messaging.MessagingTimeout, *_NOT_TAKEN)


class Client:
    """The root of the clients. Threads may share a client.

    ``[rpc] timeout`` says how long a call waits for one answer, and ``[rpc] attempts`` how often it is made.
    A repeated call is safe because every method of Portclaim is idempotent. ``[upgrade_levels]`` can pin the
    version that the client speaks, see :mod:`portclaim.common.rpc.versions`. ``signer`` signs what is sent.
    ``exchange``: another one at the broker than that of all callers.
    """

    topic: ClassVar[str]

    def __init__(
        self,
        bus: oslo_messaging.RPCTransport,
        conf: cfg.ConfigOpts,
        server: str | None = None,
        signer: Signer | None = None,
        exchange: str | None = None,
    ) -> None:
        self._pin: str | None = conf.upgrade_levels.get(self.topic)
        self._rpc = oslo_messaging.get_rpc_client(
            bus,
            oslo_messaging.Target(topic=self.topic, version=versions.FIRST, server=server, exchange=exchange),
            timeout=conf.rpc.timeout,
            version_cap=self._pin,
            retry=2,
        )
        self._attempts = conf.rpc.attempts
        self._patience = conf.rpc.timeout * conf.rpc.attempts
        self._has_reached_broker = False
        self._whom = _service(self.topic, server)
        self._signer = signer or Unsigned()
        self._to = _address(self.topic, server)

    def at(self, server: str) -> Self:
        """The same client, for the server of this name only."""
        other = copy.copy(self)
        other._rpc = self._rpc.prepare(server=server)
        other._whom = _service(self.topic, server)
        other._to = _address(self.topic, server)
        return other

    def ping(self) -> None:
        """Return once the service has answered. Raises :class:`ServiceUnavailable`."""
        self._call("ping", Nothing(), Nothing)

    def about(self) -> About:
        """Which release a service has, and its clock. Raises :class:`ServiceUnavailable`,
        :class:`UnsupportedVersion` if the service is older than this question.
        """
        return self._call("about", Nothing(), About, since="1.1")

    def can_send(self, version: str) -> bool:
        """Whether a pin allows calls of this version. Where it does not, do without what is new in it."""
        return bool(self._rpc.can_send_version(version))

    def _call(
        self,
        method: str,
        message: Message,
        answer: type[A],
        since: str = versions.FIRST,
        queue: str | None = None,
    ) -> A:
        """Call and wait for the answer. ``since`` is the version that brought the method.

        ``queue``: another queue of the service than its topic, where a call may have to wait long. So the
        call is made once, and waits for its answer as long as all attempts of other calls together. If all
        instances of the service are too old to have the queue, the call goes to the topic.

        Raises the service's own error; :class:`ServiceUnavailable` when no answer comes;
        :class:`UnsupportedVersion` when the service, or the pin, is older than the call.
        """
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PASSING),
            stop=tenacity.stop_after_attempt(self._attempts if queue is None else 1),
            before_sleep=lambda _state: RPC_REPEATED.count(method),
            reraise=True,
        )
        rpc, fields = self._prepared(method, message, since, queue)
        try:
            self._reach_broker()
            # Each attempt is a message of its own, with a signature of its own.
            with tracing.sending(self.topic, method):
                reply = again(lambda: rpc.call(self._context(method, fields), method, **fields))
        except oslo_messaging.MessageUndeliverable:
            return self._call(method, message, answer, since)
        except PortclaimError as error:
            raise _local(error) from None
        except amqp.exceptions.AccessRefused as error:
            raise _refused_by_broker() from error
        except _PASSING as error:
            raise ServiceUnavailable(
                f"the {self._whom} does not answer. Check that it runs and reaches the message bus; the "
                "call can be repeated safely",
                method=method,
            ) from error
        except oslo_messaging.RemoteError as error:
            raise ServiceFailed(f"the {self._whom} answered {error.exc_type}: {error.value}") from None
        return answer.model_validate(reply, extra="ignore")

    def _reach_broker(self) -> None:
        """Raise soon if no broker answers.

        The first call of a process would wait for the broker for ever, because oslo.messaging declares the
        queue for the answers without a limit. A cast has a limit.
        """
        if not self._has_reached_broker:
            self._rpc.cast({}, "ping")
            self._has_reached_broker = True

    def _cast(
        self,
        method: str,
        message: Message,
        since: str = versions.FIRST,
        queue: str | None = None,
        parents: Mapping[UUID, str | None] | None = None,
    ) -> None:
        """Send and do not wait. Raises :class:`ServiceUnavailable` when the broker does not take the message,
        :class:`UnsupportedVersion` when the pin is older than it.

        ``queue``: another queue than the service's topic. The broker does not take the message if no instance
        of the service has declared it. ``parents``: the traces of several claims.
        """
        rpc, fields = self._prepared(method, message, since, queue)
        try:
            with tracing.sending(self.topic, method):
                rpc.cast(tracing.with_parents(self._context(method, fields), parents or {}), method, **fields)
        except amqp.exceptions.AccessRefused as error:
            raise _refused_by_broker() from error
        except (*_NOT_TAKEN, oslo_messaging.MessageUndeliverable) as error:
            raise ServiceUnavailable(
                f"the message bus did not take {method} for the {self._whom}: check that RabbitMQ runs"
            ) from error

    def _context(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        """What goes with a message, besides its fields: when it is sent, and its signature."""
        return {**sent_now(), **self._signer.sign(self._to, method, fields)}

    def _prepared(
        self, method: str, message: Message, since: str, queue: str | None
    ) -> tuple[Any, dict[str, Any]]:
        fields, needed = versions.to_send(message)
        needed = versions.newest(needed, since)
        if not self.can_send(needed):
            raise UnsupportedVersion(
                f"{method} needs version {needed} of the {self.topic} interface, but [upgrade_levels] "
                f"{self.topic} = {self._pin} allows no newer one. Remove that option after all instances of "
                f"the service {self.topic} have been upgraded",
                method=method,
                needed=needed,
                spoken=self._pin,
            )
        if queue is None:
            return self._rpc.prepare(version=needed), fields
        elsewhere = self._rpc.prepare(
            version=needed, topic=queue, timeout=self._patience, transport_options=_MUST_ARRIVE
        )
        return elsewhere, fields


def _refused_by_broker() -> ServiceUnavailable:
    return ServiceUnavailable(
        "the message bus refuses the user of [DEFAULT] transport_url: look at its password, and at its "
        "rights in `portclaim broker list`"
    )


def _service(topic: str, server: str | None) -> str:
    return f"service {topic}" if server is None else f"service {topic} on host {server}"


def _address(topic: str, server: str | None) -> str:
    """Whom a message is for, in its signature."""
    return topic if server is None else f"{topic}.{server}"


def _local(error: PortclaimError) -> PortclaimError:
    """The error as the service raised it, without the class and the remote traceback that the bus added."""
    for kind in type(error).__mro__:
        if issubclass(kind, PortclaimError) and kind.__module__ == PortclaimError.__module__:
            return kind(error.message, **error.kwargs)
    return error

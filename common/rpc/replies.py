"""Answers to senders whose queue for answers does not exist.

oslo.messaging offers an answer for seconds to a queue that does not exist, because a caller may only have
lost its connection for a moment. A sender of many calls with invented queues would keep all threads of a
worker.
"""

from __future__ import annotations

import threading
from typing import Any

import oslo_messaging
from oslo_messaging._drivers import common as driver_common
from oslo_messaging._drivers.amqp import AMQPDestinationNotFound
from oslo_messaging._drivers.amqpdriver import AMQPIncomingMessage

_SHARE = 4  # one thread of so many may wait for a queue


class Replies:
    """The answers of a worker. A few threads at most wait for callers that have gone, whoever calls."""

    def __init__(self) -> None:
        self._may_wait = threading.BoundedSemaphore(1)

    def serve(self, threads: int) -> None:
        """So many threads handle messages."""
        self._may_wait = threading.BoundedSemaphore(max(threads // _SHARE, 1))

    def bound(self, incoming: Any) -> None:
        """Have this message answered so."""
        if isinstance(incoming, AMQPIncomingMessage):
            incoming.reply = _Reply(incoming, self._may_wait)


def _without_traceback(failure: Any) -> Any:
    """The exception alone: oslo.messaging would send the caller the source lines it came through."""
    if not failure:
        return failure
    kind, error, _ = failure
    error.__cause__ = error.__context__ = None
    return kind, error.with_traceback(None), None


class _Reply:
    """In place of ``AMQPIncomingMessage.reply``."""

    def __init__(self, incoming: AMQPIncomingMessage, may_wait: threading.BoundedSemaphore) -> None:
        self._incoming = incoming
        self._may_wait = may_wait

    def __call__(self, reply: Any = None, failure: Any = None) -> None:
        incoming = self._incoming
        failure = _without_traceback(failure)
        if not incoming.orig_msg_id or self._is_sent(reply, failure):
            return
        if self._may_wait.acquire(blocking=False):
            try:
                AMQPIncomingMessage.reply(incoming, reply, failure)
            finally:
                self._may_wait.release()

    def _is_sent(self, reply: Any, failure: Any) -> bool:
        try:
            with self._incoming.listener.driver._get_connection(driver_common.PURPOSE_SEND) as connection:
                self._incoming._send_reply(connection, reply, failure)
        except (oslo_messaging.MessageUndeliverable, AMQPDestinationNotFound):
            return False
        return True

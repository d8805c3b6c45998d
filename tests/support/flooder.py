"""A process that publishes as fast as it can: ``python -m tests.support.flooder URL EXCHANGE``.

It reads bodies in hexadecimal digits from its input, one a line, and sends them by turns to all queues of the
conductors until it is ended. It waits for no confirmation.
"""

import itertools
import sys
from contextlib import suppress

import amqp
import kombu

QUEUES = ("conductor", "conductor_reports", "conductor_life")
_LOOK = 1000  # messages between two looks at what the broker has to say


def flood(url: str, exchange: str, bodies: list[bytes]) -> None:
    pairs = [(queue, body) for body in bodies for queue in QUEUES]
    with kombu.Connection(url.replace("rabbit", "amqp", 1)) as connection:
        channel = connection.channel()
        sys.stdout.write("flooding\n")
        sys.stdout.flush()
        for number, (queue, body) in enumerate(itertools.cycle(pairs)):
            message = amqp.Message(body, content_type="application/json", content_encoding="utf-8")
            channel.basic_publish(message, exchange=exchange, routing_key=queue)
            if number % _LOOK == 0:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.001)


if __name__ == "__main__":
    flood(sys.argv[1], sys.argv[2], [bytes.fromhex(line) for line in sys.stdin])

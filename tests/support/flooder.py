"""A process that publishes as fast as it can: ``python -m tests.support.flooder URL EXCHANGE``.

It reads bodies in hexadecimal digits from its input, one a line, and sends them by turns to all queues of the
conductors until it is ended. It waits for no confirmation.
"""

import itertools
import sys

import amqp
import kombu

QUEUES = ("conductor", "conductor_reports", "conductor_life")


def flood(url: str, exchange: str, bodies: list[bytes]) -> None:
    with kombu.Connection(url.replace("rabbit", "amqp", 1)) as connection:
        channel = connection.channel()
        print("flooding", flush=True)
        for queue, body in itertools.product(itertools.cycle(QUEUES), bodies):
            message = amqp.Message(body, content_type="application/json", content_encoding="utf-8")
            channel.basic_publish(message, exchange=exchange, routing_key=queue)


if __name__ == "__main__":
    flood(sys.argv[1], sys.argv[2], [bytes.fromhex(line) for line in sys.stdin])

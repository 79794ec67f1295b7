"""An AMQP 0-9-1 broker in pure Python: in memory, in this process, for use without RabbitMQ.

Unmodified AMQP clients connect to it. It behaves as RabbitMQ 4.3 does. Features that it lacks
(streams, transactions, exchange types from plugins) fail with RabbitMQ's own reply codes. The
tests in ``tests/conformance`` check the same facts on this broker and on RabbitMQ.

This folder imports nothing else of the package. Its modules, from the network to the messages:

- `codec`, `methods`: AMQP's values and methods as bytes; `frames`: sends frames to a client.
- `connection`, `handshake`: one client; `channel` with `declarations`, `publishes`, `deliveries`,
  `direct_reply` and `consumer`: what a client can do on a channel; `channel_output`: sends for
  these modules.
- `vhost`, `exchange`, `queue`, `arguments`, `message`, `dead_letter`: routes and stores messages.
- `state`: what all connections share; `clock`: time; `randomness`: names; `limits`: bounds;
  `amqp_error`: errors with a reply code; `server`: the thread that runs the broker.
"""

from mousetrap.embedded_broker.channel import OVERVIEW_QUEUE
from mousetrap.embedded_broker.connection import PRODUCT
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.server import EmbeddedServer

__all__ = ["OVERVIEW_QUEUE", "PRODUCT", "EmbeddedServer", "Limits"]

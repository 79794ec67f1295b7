"""A broker in the box: AMQP 0-9-1 in pure Python, in memory, for where there is no RabbitMQ.

Unmodified clients connect. It behaves as RabbitMQ 4.3 does, and what it has not (streams,
transactions, direct reply-to, plugins' exchange types) it refuses with RabbitMQ's codes instead of
pretending. The cases of ``tests/conformance`` hold both to the same facts.

From the wire inwards: `codec` and `methods` are the bytes; `connection` (with `handshake`) and
`channel` (with `declaring`, `publishing` and `consumer`) what a client may do; `vhost`, `exchange`,
`queue`, `arguments`, `message` and `dead_letter` what becomes of a message; `clock` is its time,
`limits` its bounds, `refusal` how it says no, and `server` the thread it runs in.
"""

from mousetrap.embedded_broker.channel import OVERVIEW
from mousetrap.embedded_broker.connection import PRODUCT
from mousetrap.embedded_broker.limits import Limits
from mousetrap.embedded_broker.server import EmbeddedServer

__all__ = ["OVERVIEW", "PRODUCT", "EmbeddedServer", "Limits"]

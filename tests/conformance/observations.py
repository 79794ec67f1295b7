"""What a step observes in a form to compare: without the names and times of one run."""

from __future__ import annotations

from collections import defaultdict

from pika import spec


class Prefix:
    """The prefix of all names of one run: added to what is sent, removed from what comes."""

    def __init__(self, prefix):
        self._prefix = prefix

    def add(self, name):
        """Return the name on the broker; predeclared names have no prefix."""
        return f"{self._prefix}.{name}" if not name.startswith("amq.") else name

    def add_to_arguments(self, arguments):
        """Return the arguments of a declaration, with the prefix in those that are names."""
        prefixed = dict(arguments)
        for key in ("x-dead-letter-exchange", "x-dead-letter-routing-key", "alternate-exchange"):
            if prefixed.get(key):
                prefixed[key] = self.add(prefixed[key])
        return prefixed

    def plain(self, value):
        """Return an answer, or a part of one, without the prefix."""
        match value:
            case spec.Channel.Close() | spec.Connection.Close():
                return value.NAME, value.reply_code, value.class_id, value.method_id
            case (spec.Basic.GetOk() as method, properties, body):
                message = self.plain_message(method, properties, body)
                return method.delivery_tag, method.message_count, *message
            case spec.Queue.DeclareOk():
                return value.NAME, value.message_count, value.consumer_count
            case spec.Queue.DeleteOk() | spec.Queue.PurgeOk():
                return value.NAME, value.message_count
            case dict():
                return {self.plain(key): self.plain(each) for key, each in value.items()}
            case list():
                return [self.plain(each) for each in value]
            case str():
                return value.replace(f"{self._prefix}.", "")
            case bytes():
                return self.plain(value.decode())
            case None | int() | tuple():
                return value
        return value.NAME

    def plain_message(self, method, properties, body):
        """Return a message without the prefix, and without the times of its deaths."""
        headers = {}
        for key, value in (properties.headers or {}).items():
            if key == "x-death":
                value = [{k: v for k, v in each.items() if k != "time"} for each in value]
            headers[key] = self.plain(value)
        others = {
            name: value for name, value in vars(properties).items()
            if value is not None and name != "headers"
        }  # fmt: skip
        address = self.plain(method.exchange), self.plain(method.routing_key)
        flag = getattr(method, "redelivered", None)
        return body.decode(), flag, *address, headers, others


def sort_events(kind, found):
    """Group deliveries by consumer; sort confirms, which RabbitMQ sends in any order."""
    if kind == "delivered":
        by_consumer = defaultdict(list)
        for consumer, _, *message in found:
            by_consumer[consumer].append(message)
        return dict(by_consumer), sorted(tag for _, tag, *_ in found)
    return sorted(found) if kind in ("confirmed", "cancelled") else found

"""A flow as an AsyncAPI 3 document: channels, operations, messages, and AMQP bindings.

A queue is a channel, and so is an exchange with a routing key. Each stage receives from one channel
and sends to others. The types of its messages are JSON Schemas. See
https://www.asyncapi.com/docs/reference/specification/v3.0.0 for the words.
"""

from __future__ import annotations

from typing import Any

from mousetrap.flows.connected_types import members
from mousetrap.flows.description import QueueRow, queue_rows, shown_type, written_types
from mousetrap.flows.edges import AnyStage
from mousetrap.flows.flow import Flow
from mousetrap.model.exchanges import Exchange, RoutingKey
from mousetrap.model.json_schemas import JsonSchemas, component_name
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue

VERSION = "3.0.0"
BINDING = "0.3.0"  # version of the AMQP binding
_PERSISTENT = 2  # delivery mode


def asyncapi(flow: Flow, title: str, version: str = "1.0.0") -> dict[str, Any]:
    """Return the document as plain values; *version* is that of the flow."""
    return _Document(flow).build(title, version)


class _Document:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._schemas = JsonSchemas()
        self._messages: dict[str, Any] = {}  # by name: what `components` has
        self._channels: dict[str, Any] = {}
        self._ids: dict[str, str] = {}  # of the channels, by queue or by exchange and key
        self._operations: dict[str, Any] = {}

    def build(self, title: str, version: str) -> dict[str, Any]:
        for row in queue_rows(self._flow):
            self._add_channel(row.name, _queue_channel(row, self._queue(row)))
        for stage in self._flow.stages:
            for target in stage.targets.all:
                if not isinstance(target, str):
                    self._add_channel(str(target), _exchange_channel(target))
        for stage in self._flow.stages:
            self._add_operations(stage)
        components = {"messages": self._messages, "schemas": self._schemas.components}
        return {
            "asyncapi": VERSION,
            "info": {"title": title, "version": version},
            "defaultContentType": "application/json",
            "channels": self._channels,
            "operations": self._operations,
            "components": {key: each for key, each in components.items() if each},
        }

    def _queue(self, row: QueueRow) -> Queue | None:
        """Return the queue of *row* if a stage reads it, with the places of its failures."""
        return next((e.queue for e in self._flow.stages if e.queue.name == row.name), None)

    def _add_channel(self, name: str, channel: dict[str, Any]) -> None:
        if name not in self._ids:
            self._ids[name] = _unused(component_name(name), self._channels)
            self._channels[self._ids[name]] = channel

    def _add_operations(self, stage: AnyStage) -> None:
        # a join gets its parts as messages of their own
        read = getattr(stage.handler, "part_type", stage.message_type)
        receive = {
            **self._operation("receive", stage.queue.name, read),
            "summary": f"{stage.name} handles a message",
            "bindings": {"amqp": {"ack": True, "bindingVersion": BINDING}},
        }
        self._add_operation(f"{stage.name}_receive", receive)
        for target in stage.targets.all:
            how = "by Send" if target not in stage.targets.writes else "each output"
            send = {
                **self._operation("send", str(target), written_types(stage, target)),
                "summary": f"{stage.name} sends to {target}, {how}",
                "bindings": {"amqp": _PUBLISHING},
            }
            self._add_operation(f"{stage.name}_send_{target}", send)

    def _add_operation(self, name: str, operation: dict[str, Any]) -> None:
        id = component_name(name).replace(".", "_")
        self._operations[_unused(id, self._operations)] = operation

    def _operation(self, action: str, channel_name: str, type: Any) -> dict[str, Any]:
        channel = self._ids[channel_name]
        names = [self._message(each, is_sent=action == "send") for each in members(type)]
        for name in names:
            self._channels[channel]["messages"][name] = {"$ref": f"#/components/messages/{name}"}
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        }

    def _message(self, type: Any, *, is_sent: bool) -> str:
        """Add the message with data of *type*, and return its name."""
        shown = "any" if type is Any or type is Message else shown_type(type)
        message = {
            "name": shown,
            "contentType": "application/json",
            "payload": self._schemas.of(type, is_sent=is_sent),
        }
        name, number = component_name(shown), 1
        while self._messages.setdefault(name, message) != message:  # a model is sent with more
            number += 1
            name = f"{component_name(shown)}{number}"
        return name


_PUBLISHING = {"deliveryMode": _PERSISTENT, "mandatory": True, "bindingVersion": BINDING}


def _queue_channel(row: QueueRow, queue: Queue | None) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if row.arguments:
        more["arguments"] = row.arguments
    if queue is not None:
        more["bindings"] = [
            {"exchange": each.exchange.name, "type": each.exchange.type, "key": str(each.key)}
            for each in queue.bindings
        ]
        more["retryDelays"] = list(queue.retry_delays)  # seconds
        more["deadLetters"] = queue.dead
    named = {"name": row.name, "durable": True, "exclusive": False, "autoDelete": False}
    binding = {"is": "queue", "queue": named, "bindingVersion": BINDING}
    more = {key: each for key, each in more.items() if each != []}
    return _channel(row.name, binding) | ({"x-mousetrap": more} if more else {})


def _exchange_channel(target: Exchange | RoutingKey) -> dict[str, Any]:
    exchange = target if isinstance(target, Exchange) else target.exchange
    key = target.key if isinstance(target, RoutingKey) else None
    named = {"name": exchange.name, "type": exchange.type, "durable": True, "autoDelete": False}
    binding = {"is": "routingKey", "exchange": named, "bindingVersion": BINDING}
    # null: the key is a function of the value, or that of each `Send`
    return _channel(key if isinstance(key, str) else None, binding)


def _channel(address: str | None, binding: dict[str, Any]) -> dict[str, Any]:
    return {"address": address, "messages": {}, "bindings": {"amqp": binding}}


def _unused(name: str, known: dict[str, Any]) -> str:
    found, number = name, 1
    while found in known:
        number += 1
        found = f"{name}{number}"
    return found

"""The methods of AMQP 0-9-1 with RabbitMQ's extensions: names, numbers and arguments.

One line for each method, from RabbitMQ's ``amqp-rabbitmq-0.9.1.json``: class and method number,
name, then ``type:argument``. The functions read and write methods as these lines describe them.
"""

from __future__ import annotations

from typing import Any

from mousetrap.embedded_broker import codec

SPECIFICATION = """
10.10 connection.start octet:version_major octet:version_minor table:server_properties long:mechanisms long:locales
10.11 connection.start_ok table:client_properties short:mechanism long:response short:locale
10.20 connection.secure long:challenge
10.21 connection.secure_ok long:response
10.30 connection.tune 2:channel_max 4:frame_max 2:heartbeat
10.31 connection.tune_ok 2:channel_max 4:frame_max 2:heartbeat
10.40 connection.open short:virtual_host short:capabilities bit:insist
10.41 connection.open_ok short:known_hosts
10.50 connection.close 2:reply_code short:reply_text 2:class_id 2:method_id
10.51 connection.close_ok
10.60 connection.blocked short:reason
10.61 connection.unblocked
10.70 connection.update_secret long:new_secret short:reason
10.71 connection.update_secret_ok
20.10 channel.open short:out_of_band
20.11 channel.open_ok long:channel_id
20.20 channel.flow bit:active
20.21 channel.flow_ok bit:active
20.40 channel.close 2:reply_code short:reply_text 2:class_id 2:method_id
20.41 channel.close_ok
40.10 exchange.declare 2:ticket short:exchange short:type bit:passive bit:durable bit:auto_delete bit:internal bit:nowait table:arguments
40.11 exchange.declare_ok
40.20 exchange.delete 2:ticket short:exchange bit:if_unused bit:nowait
40.21 exchange.delete_ok
40.30 exchange.bind 2:ticket short:destination short:source short:routing_key bit:nowait table:arguments
40.31 exchange.bind_ok
40.40 exchange.unbind 2:ticket short:destination short:source short:routing_key bit:nowait table:arguments
40.51 exchange.unbind_ok
50.10 queue.declare 2:ticket short:queue bit:passive bit:durable bit:exclusive bit:auto_delete bit:nowait table:arguments
50.11 queue.declare_ok short:queue 4:message_count 4:consumer_count
50.20 queue.bind 2:ticket short:queue short:exchange short:routing_key bit:nowait table:arguments
50.21 queue.bind_ok
50.30 queue.purge 2:ticket short:queue bit:nowait
50.31 queue.purge_ok 4:message_count
50.40 queue.delete 2:ticket short:queue bit:if_unused bit:if_empty bit:nowait
50.41 queue.delete_ok 4:message_count
50.50 queue.unbind 2:ticket short:queue short:exchange short:routing_key table:arguments
50.51 queue.unbind_ok
60.10 basic.qos 4:prefetch_size 2:prefetch_count bit:global_qos
60.11 basic.qos_ok
60.20 basic.consume 2:ticket short:queue short:consumer_tag bit:no_local bit:no_ack bit:exclusive bit:nowait table:arguments
60.21 basic.consume_ok short:consumer_tag
60.30 basic.cancel short:consumer_tag bit:nowait
60.31 basic.cancel_ok short:consumer_tag
60.40 basic.publish 2:ticket short:exchange short:routing_key bit:mandatory bit:immediate
60.50 basic.return 2:reply_code short:reply_text short:exchange short:routing_key
60.60 basic.deliver short:consumer_tag 8:delivery_tag bit:redelivered short:exchange short:routing_key
60.70 basic.get 2:ticket short:queue bit:no_ack
60.71 basic.get_ok 8:delivery_tag bit:redelivered short:exchange short:routing_key 4:message_count
60.72 basic.get_empty short:cluster_id
60.80 basic.ack 8:delivery_tag bit:multiple
60.90 basic.reject 8:delivery_tag bit:requeue
60.100 basic.recover_async bit:requeue
60.110 basic.recover bit:requeue
60.111 basic.recover_ok
60.120 basic.nack 8:delivery_tag bit:multiple bit:requeue
85.10 confirm.select bit:nowait
85.11 confirm.select_ok
90.10 tx.select
90.11 tx.select_ok
90.20 tx.commit
90.21 tx.commit_ok
90.30 tx.rollback
90.31 tx.rollback_ok
"""  # noqa: E501 -- one line for each method

NAME_OF: dict[bytes, str] = {}
ID_OF: dict[str, bytes] = {}
ARGUMENTS: dict[str, list[tuple[str, str]]] = {}  # name -> (type, argument)

for _line in SPECIFICATION.strip().splitlines():
    _number, _name, *_arguments = _line.split()
    _class, _method = map(int, _number.split("."))
    ID_OF[_name] = _class.to_bytes(2, "big") + _method.to_bytes(2, "big")
    NAME_OF[ID_OF[_name]] = _name
    ARGUMENTS[_name] = [(kind, name) for kind, name in (each.split(":") for each in _arguments)]


def decode(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of a method frame's payload.

    Raises:
        KeyError: there is no such method.
        Malformed: the arguments do not match the method.
    """
    name = NAME_OF[payload[:4]]
    arguments: dict[str, Any] = {}
    offset, bit = 4, 0
    for kind, argument in ARGUMENTS[name]:
        if kind == "bit":
            bits = codec.read_bytes(payload, offset, 1, 501)[0]
            arguments[argument] = bool(bits >> bit & 1)
            bit += 1
            continue
        offset, bit = offset + (bit > 0), 0
        if kind == "short":
            arguments[argument], offset = codec.read_short_text(payload, offset)
        elif kind == "long":
            arguments[argument], offset = codec.read_long_bytes(payload, offset)
        elif kind == "table":
            arguments[argument], offset = codec.read_table(payload, offset)
        else:
            size = 1 if kind == "octet" else int(kind)
            arguments[argument] = int.from_bytes(
                codec.read_bytes(payload, offset, size, 501), "big"
            )
            offset += size
    return name, arguments


def encode(name: str, *values: Any) -> bytes:
    """Return a method frame's payload; *values* in the order of the specification."""
    parts = [ID_OF[name]]
    bits = bit = 0
    for (kind, _), value in zip(ARGUMENTS[name], values, strict=True):
        if kind == "bit":
            bits |= bool(value) << bit
            bit += 1
            continue
        if bit:
            parts.append(bytes([bits]))
            bits = bit = 0
        if kind == "short":
            parts.append(codec.short_text(value))
        elif kind == "long":
            parts.append(codec.long_bytes(value))
        elif kind == "table":
            parts.append(codec.table(value))
        else:
            parts.append(value.to_bytes(1 if kind == "octet" else int(kind), "big"))
    if bit:
        parts.append(bytes([bits]))
    return b"".join(parts)

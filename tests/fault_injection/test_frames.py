"""The parser of AMQP frames."""

from __future__ import annotations

import pytest

from mousetrap.fault_injection.frames import CommandParser


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_parser_gives_the_same_commands_however_the_bytes_arrive(size):
    """However the bytes are split, a method with its content is one command; none is lost."""
    import pika

    method = pika.frame.Method(1, pika.spec.Basic.Publish(routing_key="work")).marshal()
    header = pika.frame.Header(1, 300, pika.BasicProperties(message_id="a")).marshal()
    bodies = [pika.frame.Body(1, b"x" * n).marshal() for n in (100, 200)]
    beat = pika.frame.Heartbeat().marshal()
    empty = pika.frame.Header(1, 0, pika.BasicProperties()).marshal()
    stream = b"AMQP\x00\x00\x09\x01" + method + header + bodies[0] + beat + bodies[1] + beat
    stream += method + empty + method[:5]
    parser = CommandParser(is_client=True)

    commands = [command for at in range(0, len(stream), size)
              for command in parser.feed(stream[at : at + size])]  # fmt: skip

    names = [command.name for command in commands]
    assert names == ["Protocol", "Heartbeat", "Basic.Publish", "Heartbeat", "Basic.Publish"]
    assert commands[2].data == method + header + b"".join(bodies)
    assert parser.incomplete() == method[:5]

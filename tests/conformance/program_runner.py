"""Runs a program of operations on one broker and returns what each step observes.

An operation is a tuple: name, actor, keyword arguments. There are three actors, each a channel: two
of one connection and one of another. After each operation the runner waits for all its effects, so
that the observations do not depend on the speed of the broker: it declares every queue passively,
which a queue answers after what came before, and then sends a request on every channel, whose
answer comes after the deliveries.

A step observes the answer, the deliveries by consumer, returns, confirms, cancellations, what was
closed with which code, and the number of messages and consumers of each queue.
"""

from __future__ import annotations

import itertools
import os
import time

import pika.frame
from actor import Actor
from client import WAIT_TIMEOUT
from demultiplexed import DemultiplexedConnection, marshal
from observations import Prefix, sort_events
from pika import spec

QUEUES = ("a", "b", "dead")
EXCHANGES = ("x", "y")
COUNTING_CHANNELS, CLEANUP_CHANNEL = (
    11,
    30,
)  # of the first connection; one counting channel for each queue, from 11
NO_OP = spec.Exchange.Declare(exchange="amq.direct", passive=True)  # changes nothing
EXPIRY_TIME = 0.03  # seconds after which every short TTL has passed, see `programs`
_numbers = itertools.count()


class ProgramRunner:
    """A broker, two connections to it, and the names that a program uses."""

    def __init__(self, target):
        self.target = target
        self.links = [DemultiplexedConnection(target), DemultiplexedConnection(target)]
        self.delay = WAIT_TIMEOUT  # seconds that RabbitMQ may take for the effects of one step
        self.reset("-")

    def reset(self, prefix):
        """Prepare for a program, whose names start with *prefix*."""
        self.prefix = Prefix(prefix)
        self.actors = [Actor(0, 1), Actor(0, 2), Actor(1, 1)]
        self.names = set()
        self.exchanges = set()
        self.has_short_ttl = False
        self.has_quorum_queue = False

    def run(self, program, expected=None):
        """Return what each step observes, up to the first that differs from *expected*."""
        self.reset(f"d{os.getpid():x}.{next(_numbers)}")
        seen = []
        try:
            for step, (name, actor, options) in enumerate([*program, ("end", 0, {})]):
                wanted = None if expected is None else expected[step]
                seen.append(self._step(name, actor, options, wanted))
                if wanted is not None and seen[-1] != wanted:
                    break
        finally:
            self._clean_up()
        return seen

    def _name(self, word):
        return self.prefix.add(word)

    # a step

    def _step(self, name, number, options, wanted):
        found = {"answer": self.prefix.plain(getattr(self, name)(self.actors[number], **options))}
        events = [{} for _ in self.actors]
        self._let_expire()
        deadline = time.monotonic() + self.delay
        last = None
        while True:
            self._reopen_closed()
            queues = self._request_counts()
            if not self.target.is_embedded:  # RabbitMQ's queues send before its channels do
                found["queues"] = self._read_counts(queues)
            channels = self._sync_channels()
            if self.target.is_embedded:
                found["queues"] = self._read_counts(queues)
            self._collect(channels, events)
            found["events"] = [
                {kind: sort_events(kind, each) for kind, each in of.items()} for of in events
            ]
            if name == "end" and self.has_quorum_queue:
                found["events"] = []  # a channel may be closed before it gets requeued messages
            if self.target.is_embedded or found == wanted:
                break
            if last == found and (wanted is None or time.monotonic() > deadline):
                break
            last = dict(found)
        for actor, of in zip(self.actors, events, strict=True):
            actor.note(of)
        return found

    def _let_expire(self):
        if self.has_short_ttl:
            if self.target.is_embedded:
                self.target.server.advance(seconds=EXPIRY_TIME)
            else:
                time.sleep(EXPIRY_TIME)  # RabbitMQ's time cannot be moved

    def _reopen(self, link):
        self.links[link].hang_up()
        self.links[link] = DemultiplexedConnection(self.target)
        for actor in self.actors:
            if actor.link == link:
                actor.reset()

    def _reopen_closed(self):
        for link, each in enumerate(self.links):
            if not each.is_open:
                self._reopen(link)

    def _request_counts(self):
        link = self.links[0]
        asked = {}
        for place, queue in enumerate(QUEUES):
            if queue in self.names:
                declare = spec.Queue.Declare(queue=self._name(queue), passive=True)
                asked[queue] = (
                    COUNTING_CHANNELS + place,
                    len(link.ask(COUNTING_CHANNELS + place, declare)),
                )
        return asked

    def _read_counts(self, asked):
        seen = {}
        for queue, (channel, count) in asked.items():
            answer = self.links[0].wait(channel, count)
            if isinstance(answer, spec.Queue.DeclareOk):
                seen[queue] = answer.message_count, answer.consumer_count
            else:
                seen[queue] = answer.reply_code
        return seen

    def _sync_channels(self):
        asked = []
        for actor in self.actors:
            link = self.links[actor.link]
            if actor.channel in link.channels:
                link.ask(actor.channel, NO_OP)
                asked.append((actor, link))
        return asked

    def _collect(self, asked, events):
        for actor, link in asked:
            answer = link.wait(actor.channel, 1)
            if not isinstance(answer, spec.Exchange.DeclareOk):
                number = self.actors.index(actor)
                events[number].setdefault("closed", []).append(self.prefix.plain(answer))
                actor.reset()
        for number, actor in enumerate(self.actors):
            link = self.links[actor.link]
            for event in link.events.pop(actor.channel, []):
                self._event(actor, events[number], *event)

    def _event(self, actor, of, method, properties, body):
        match method:
            case spec.Basic.Deliver():
                message = self.prefix.plain_message(method, properties, body)
                delivery = (method.consumer_tag, method.delivery_tag, *message)
                of.setdefault("delivered", []).append(delivery)
            case spec.Basic.Return():
                said = method.reply_code, method.reply_text
                of.setdefault("returned", []).append(
                    (*said, *self.prefix.plain_message(method, properties, body))
                )
            case spec.Basic.Cancel():
                of.setdefault("cancelled", []).append(method.consumer_tag)
            case spec.Basic.Ack() | spec.Basic.Nack():
                upto = method.delivery_tag
                tags = (
                    [each for each in actor.unconfirmed if each <= upto]
                    if method.multiple
                    else [upto]
                )
                for tag in tags:
                    what = actor.unconfirmed.pop(tag, "twice"), method.NAME
                    of.setdefault("confirmed", []).append(what)

    # operations; each returns the answer

    def _call(self, actor, method):
        answer = self.links[actor.link].call(actor.channel, method)
        if isinstance(answer, (spec.Channel.Close, spec.Connection.Close, str)):
            actor.reset()
        return answer

    def _send(self, actor, *methods, content=b""):
        """Send methods that the broker does not answer, then one that it answers."""
        link = self.links[actor.link]
        if actor.channel not in link.channels:
            link.call(actor.channel, NO_OP)
        sent = b"".join(marshal(actor.channel, each) for each in methods)
        link.socket.sendall(sent + content)
        answer = self._call(actor, NO_OP)
        return None if isinstance(answer, spec.Exchange.DeclareOk) else answer

    def declare(self, actor, queue, arguments, **options):
        self.names.add(queue)
        arguments = self.prefix.add_to_arguments(arguments)
        self.has_quorum_queue |= "quorum" in arguments.values()
        self.has_short_ttl |= 0 < arguments.get("x-message-ttl", 0) < 1000
        return self._call(
            actor, spec.Queue.Declare(queue=self._name(queue), arguments=arguments, **options)
        )

    def delete(self, actor, queue, **options):
        return self._call(actor, spec.Queue.Delete(queue=self._name(queue), **options))

    def purge(self, actor, queue):
        return self._call(actor, spec.Queue.Purge(queue=self._name(queue)))

    def declare_exchange(self, actor, exchange, arguments, **options):
        self.exchanges.add(exchange)
        return self._call(
            actor,
            spec.Exchange.Declare(
                exchange=self._name(exchange),
                arguments=self.prefix.add_to_arguments(arguments),
                **options,
            ),
        )

    def delete_exchange(self, actor, exchange, **options):
        return self._call(actor, spec.Exchange.Delete(exchange=self._name(exchange), **options))

    def bind(self, actor, queue, exchange, key, arguments):
        where = {"queue": self._name(queue), "exchange": self._name(exchange)}
        return self._call(actor, spec.Queue.Bind(**where, routing_key=key, arguments=arguments))

    def unbind(self, actor, queue, exchange, key, arguments):
        where = {"queue": self._name(queue), "exchange": self._name(exchange)}
        return self._call(actor, spec.Queue.Unbind(**where, routing_key=key, arguments=arguments))

    def bind_exchange(self, actor, destination, source, key):
        where = {"destination": self._name(destination), "source": self._name(source)}
        return self._call(actor, spec.Exchange.Bind(**where, routing_key=key))

    def unbind_exchange(self, actor, destination, source, key):
        where = {"destination": self._name(destination), "source": self._name(source)}
        return self._call(actor, spec.Exchange.Unbind(**where, routing_key=key))

    def publish(self, actor, exchange, key, body, properties, mandatory=False, immediate=False):
        if actor.published is not None:
            actor.published += 1
            actor.unconfirmed[actor.published] = body
        if 0 < int(properties.get("expiration", 0)) < 1000:
            self.has_short_ttl = True
        properties = dict(properties)
        if "CC" in properties.get("headers", {}):
            cc = [self._name(each) for each in properties["headers"]["CC"]]
            properties["headers"] = properties["headers"] | {"CC": cc}
        method = spec.Basic.Publish(
            exchange=self._name(exchange) if exchange else "",
            routing_key=key if exchange else self._name(key),
            mandatory=mandatory,
            immediate=immediate,
        )
        content = pika.frame.Header(
            actor.channel, len(body), spec.BasicProperties(**properties)
        ).marshal()
        content += pika.frame.Body(actor.channel, body.encode()).marshal()
        return self._send(actor, method, content=content)

    def confirm(self, actor):
        answer = self._call(actor, spec.Confirm.Select())
        if actor.published is None:
            actor.published = 0
        return answer

    def commit(self, actor):
        return self._call(actor, spec.Tx.Commit())

    def get(self, actor, queue, auto_ack):
        answer = self._call(actor, spec.Basic.Get(queue=self._name(queue), no_ack=auto_ack))
        if isinstance(answer, tuple) and not auto_ack:
            actor.held.append((answer[0].delivery_tag, None))
        return answer

    def qos(self, actor, prefetch):
        return self._call(actor, spec.Basic.Qos(prefetch_count=prefetch))

    def consume(self, actor, queue, tag, auto_ack, exclusive=False, arguments=None):
        before = dict(actor.consumers)
        actor.consumers.setdefault(tag, (queue, not auto_ack))
        answer = self._call(
            actor,
            spec.Basic.Consume(
                queue=self._name(queue), consumer_tag=tag, no_ack=auto_ack, exclusive=exclusive,
                arguments=arguments or {},
            ),
        )  # fmt: skip
        if not isinstance(answer, spec.Basic.ConsumeOk):
            actor.consumers = before if actor.consumers else {}
        return answer

    def cancel(self, actor, tag):
        answer = self._call(actor, spec.Basic.Cancel(consumer_tag=tag))
        actor.consumers.pop(tag, None)
        return answer

    def ack(self, actor, which, multiple):
        return self._settle(actor, which, spec.Basic.Ack, multiple=multiple)

    def nack(self, actor, which, multiple, requeue):
        options = {"multiple": multiple, "requeue": requeue}
        return self._settle(actor, which, spec.Basic.Nack, **options)

    def reject(self, actor, which, requeue):
        return self._settle(actor, which, spec.Basic.Reject, requeue=requeue)

    def _settle(self, actor, which, kind, **options):
        if which is None:
            return self._send(actor, kind(987654, **options))  # a tag that no delivery has
        if not actor.held:
            return "nothing held"
        tag = actor.settle(which, options.get("multiple", False))
        return self._send(actor, kind(tag, **options))

    def recover(self, actor, requeue=True):
        actor.held = []
        return self._call(actor, spec.Basic.Recover(requeue))

    def close(self, actor):
        link = self.links[actor.link]
        if actor.channel not in link.channels:
            return "not open"
        answer = link.call(actor.channel, spec.Channel.Close(200, "bye", 0, 0))
        link.channels.discard(actor.channel)
        actor.reset()
        return answer

    def leave(self, actor):
        """Close the connection."""
        link = self.links[actor.link]
        answer = link.call(0, spec.Connection.Close(200, "bye", 0, 0))
        link.is_open = False
        return answer

    def end(self, _):
        """Close every channel, then get the remaining messages, which shows their order.

        Consumers are cancelled first: a message that one channel requeues may or may not reach
        another channel that closes.
        """
        for actor in self.actors:
            for tag in list(actor.consumers):
                self.cancel(actor, tag)
        for actor in self.actors:
            self.close(actor)
            self._read_counts(self._request_counts())
        self._let_expire()  # the requeued messages
        left = {}
        for queue in sorted(self.names):
            left[queue] = []
            for _ in range(100):
                got = self._call(
                    self.actors[0], spec.Basic.Get(queue=self._name(queue), no_ack=True)
                )
                plain = self.prefix.plain(got)
                if not isinstance(got, tuple):
                    left[queue].append(plain)
                    break
                # without the message count: dead letters in a cycle come back a little later
                left[queue].append((plain[0], *plain[2:]))
        return left

    # cleaning up

    def _clean_up(self):
        self._reopen_closed()
        for actor in self.actors:
            self.close(actor)
            self.links[actor.link].events.clear()
        first, second = self.links
        deletes = [spec.Queue.Delete(queue=self._name(each)) for each in sorted(self.names)]
        deletes += [
            spec.Exchange.Delete(exchange=self._name(each)) for each in sorted(self.exchanges)
        ]
        while deletes:  # all at once, unless one is exclusive to the other connection
            count = len(first.ask(CLEANUP_CHANNEL, *deletes))
            answer = first.wait(CLEANUP_CHANNEL, count)
            if not isinstance(answer, spec.Channel.Close):
                break
            for each in deletes:
                second.call(CLEANUP_CHANNEL, each)

    def hang_up(self):
        for each in self.links:
            each.hang_up()

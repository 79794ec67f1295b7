"""One side of the differential test: carries out a program of operations and says what was seen.

An operation is a tuple: name, actor, keyword arguments. There are three actors, each a channel:
two of one connection and one of another. After each operation everything it set off is waited for,
so that what is seen does not depend on how fast the broker is: a look at every queue goes behind
what was asked of it, and then a question on every channel comes back behind what was delivered.

What can be seen: the answer, deliveries by consumer, returns, confirms, cancellations, what was
closed with which code, and how many messages and consumers each queue has.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import defaultdict

import pika.frame
from client import PATIENCE
from link import Link, marshal
from pika import spec

QUEUES = ("a", "b", "dead")
EXCHANGES = ("x", "y")
LOOKING, SWEEPING = 11, 30  # channels of the first connection
SETTLED = spec.Exchange.Declare(exchange="amq.direct", passive=True)  # changes nothing, anywhere
EXPIRED = 0.03  # seconds; every short TTL has passed after that, see `programs`
NUMBERS = itertools.count()


class Actor:
    """A channel, what it holds, and what of it is not confirmed."""

    def __init__(self, link, channel):
        self.link = link
        self.channel = channel
        self.forget()

    def forget(self):
        """Begin anew: the channel is closed, or not open yet."""
        self.held = []  # [(tag, consumer)], in an order that does not depend on the broker
        self.is_mixed = False  # deliveries of several queues came at once: in any order
        self.consumers = {}  # tag -> (queue, whether acks are wanted)
        self.unconfirmed = {}  # number -> body
        self.published = None  # how many, with confirms


class Peer:
    """A broker, its connections, and the names that a program uses."""

    def __init__(self, target):
        self.target = target
        self.links = [Link(target), Link(target)]
        self.delay = PATIENCE  # for which RabbitMQ may be slower than we are
        self.reset("-")

    def reset(self, prefix):
        """Begin a program."""
        self.prefix = prefix
        self.actors = [Actor(0, 1), Actor(0, 2), Actor(1, 1)]
        self.names = set()
        self.exchanges = set()
        self.has_short_ttl = False
        self.has_quorum_queue = False

    def run(self, program, expected=None):
        """Return what was seen at each step, up to the first that is not as *expected*."""
        self.reset(f"d{os.getpid():x}.{next(NUMBERS)}")
        seen = []
        try:
            for step, (name, actor, options) in enumerate([*program, ("end", 0, {})]):
                wanted = None if expected is None else expected[step]
                seen.append(self._step(name, actor, options, wanted))
                if wanted is not None and seen[-1] != wanted:
                    break
        finally:
            self._sweep()
        return seen

    # a step

    def _step(self, name, number, options, wanted):
        found = {"answer": self._plain(getattr(self, name)(self.actors[number], **options))}
        events = [{} for _ in self.actors]
        self._let_expire()
        deadline = time.monotonic() + self.delay
        last = None
        while True:
            self._reopen_closed()
            queues = self._ask_queues()
            if not self.target.is_embedded:  # whose queues are processes, ahead of the channels
                found["queues"] = self._look(queues)
            channels = self._ask_channels()
            if self.target.is_embedded:
                found["queues"] = self._look(queues)
            self._collect(channels, events)
            found["events"] = [
                {kind: _sorted(kind, each) for kind, each in of.items()} for of in events
            ]
            if name == "end" and self.has_quorum_queue:
                found["events"] = []  # a channel may be closed before it is given what comes back
            if self.target.is_embedded or found == wanted:
                break
            if last == found and (wanted is None or time.monotonic() > deadline):
                break
            last = dict(found)
        for actor, of in zip(self.actors, events, strict=True):
            self._note(actor, of)
        return found

    def _let_expire(self):
        if self.has_short_ttl:
            if self.target.is_embedded:
                self.target.server.advance(seconds=EXPIRED)
            else:
                time.sleep(EXPIRED)  # the time itself is what is waited for

    def _reopen(self, link):
        self.links[link].hang_up()
        self.links[link] = Link(self.target)
        for actor in self.actors:
            if actor.link == link:
                actor.forget()

    def _reopen_closed(self):
        for link, each in enumerate(self.links):
            if not each.is_open:
                self._reopen(link)

    def _ask_queues(self):
        link = self.links[0]
        asked = {}
        for place, queue in enumerate(QUEUES):
            if queue in self.names:
                look = spec.Queue.Declare(queue=self._named(queue), passive=True)
                asked[queue] = LOOKING + place, len(link.ask(LOOKING + place, look))
        return asked

    def _look(self, asked):
        seen = {}
        for queue, (channel, many) in asked.items():
            answer = self.links[0].wait(channel, many)
            if isinstance(answer, spec.Queue.DeclareOk):
                seen[queue] = answer.message_count, answer.consumer_count
            else:
                seen[queue] = answer.reply_code
        return seen

    def _ask_channels(self):
        asked = []
        for actor in self.actors:
            link = self.links[actor.link]
            if actor.channel in link.channels:
                link.ask(actor.channel, SETTLED)
                asked.append((actor, link))
        return asked

    def _collect(self, asked, events):
        for actor, link in asked:
            answer = link.wait(actor.channel, 1)
            if not isinstance(answer, spec.Exchange.DeclareOk):
                number = self.actors.index(actor)
                events[number].setdefault("closed", []).append(self._plain(answer))
                actor.forget()
        for number, actor in enumerate(self.actors):
            link = self.links[actor.link]
            for event in link.events.pop(actor.channel, []):
                self._event(actor, events[number], *event)

    def _event(self, actor, of, method, properties, body):
        match method:
            case spec.Basic.Deliver():
                of.setdefault("delivered", []).append(
                    (
                        method.consumer_tag,
                        method.delivery_tag,
                        *self._message(method, properties, body),
                    )
                )
            case spec.Basic.Return():
                said = method.reply_code, method.reply_text
                of.setdefault("returned", []).append(
                    (*said, *self._message(method, properties, body))
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

    def _note(self, actor, of):
        delivered = sorted(of.get("delivered", []), key=lambda each: each[:2])
        queues = {actor.consumers[each[0]][0] for each in delivered if each[0] in actor.consumers}
        actor.is_mixed = actor.is_mixed or len(queues) > 1
        for consumer, tag, *_ in delivered:
            if actor.consumers.get(consumer, (None, False))[1]:
                actor.held.append((tag, consumer))
        for tag in of.get("cancelled", []):
            actor.consumers.pop(tag, None)

    # operations; each returns the answer

    def _call(self, actor, method):
        answer = self.links[actor.link].call(actor.channel, method)
        if isinstance(answer, (spec.Channel.Close, spec.Connection.Close, str)):
            actor.forget()
        return answer

    def _post(self, actor, *methods, content=b""):
        """Send what is not answered, and ask something behind it."""
        link = self.links[actor.link]
        if actor.channel not in link.channels:
            link.call(actor.channel, SETTLED)
        sent = b"".join(marshal(actor.channel, each) for each in methods)
        link.socket.sendall(sent + content)
        answer = self._call(actor, SETTLED)
        return None if isinstance(answer, spec.Exchange.DeclareOk) else answer

    def declare(self, actor, queue, arguments, **options):
        self.names.add(queue)
        arguments = self._own(arguments)
        self.has_quorum_queue |= "quorum" in arguments.values()
        self.has_short_ttl |= 0 < arguments.get("x-message-ttl", 0) < 1000
        return self._call(
            actor, spec.Queue.Declare(queue=self._named(queue), arguments=arguments, **options)
        )

    def delete(self, actor, queue, **options):
        return self._call(actor, spec.Queue.Delete(queue=self._named(queue), **options))

    def purge(self, actor, queue):
        return self._call(actor, spec.Queue.Purge(queue=self._named(queue)))

    def declare_exchange(self, actor, exchange, arguments, **options):
        self.exchanges.add(exchange)
        return self._call(
            actor,
            spec.Exchange.Declare(
                exchange=self._named(exchange), arguments=self._own(arguments), **options
            ),
        )

    def delete_exchange(self, actor, exchange, **options):
        return self._call(actor, spec.Exchange.Delete(exchange=self._named(exchange), **options))

    def bind(self, actor, queue, exchange, key, arguments):
        where = {"queue": self._named(queue), "exchange": self._named(exchange)}
        return self._call(actor, spec.Queue.Bind(**where, routing_key=key, arguments=arguments))

    def unbind(self, actor, queue, exchange, key, arguments):
        where = {"queue": self._named(queue), "exchange": self._named(exchange)}
        return self._call(actor, spec.Queue.Unbind(**where, routing_key=key, arguments=arguments))

    def bind_exchange(self, actor, destination, source, key):
        where = {"destination": self._named(destination), "source": self._named(source)}
        return self._call(actor, spec.Exchange.Bind(**where, routing_key=key))

    def unbind_exchange(self, actor, destination, source, key):
        where = {"destination": self._named(destination), "source": self._named(source)}
        return self._call(actor, spec.Exchange.Unbind(**where, routing_key=key))

    def publish(self, actor, exchange, key, body, properties, mandatory=False, immediate=False):
        if actor.published is not None:
            actor.published += 1
            actor.unconfirmed[actor.published] = body
        if 0 < int(properties.get("expiration", 0)) < 1000:
            self.has_short_ttl = True
        properties = dict(properties)
        if "CC" in properties.get("headers", {}):
            cc = [self._named(each) for each in properties["headers"]["CC"]]
            properties["headers"] = properties["headers"] | {"CC": cc}
        method = spec.Basic.Publish(
            exchange=self._named(exchange) if exchange else "",
            routing_key=key if exchange else self._named(key),
            mandatory=mandatory,
            immediate=immediate,
        )
        content = pika.frame.Header(
            actor.channel, len(body), spec.BasicProperties(**properties)
        ).marshal()
        content += pika.frame.Body(actor.channel, body.encode()).marshal()
        return self._post(actor, method, content=content)

    def confirm(self, actor):
        answer = self._call(actor, spec.Confirm.Select())
        if actor.published is None:
            actor.published = 0
        return answer

    def commit(self, actor):
        return self._call(actor, spec.Tx.Commit())

    def get(self, actor, queue, auto_ack):
        answer = self._call(actor, spec.Basic.Get(queue=self._named(queue), no_ack=auto_ack))
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
                queue=self._named(queue), consumer_tag=tag, no_ack=auto_ack, exclusive=exclusive,
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
        multiple = options.get("multiple", False)
        if which is None:
            return self._post(actor, kind(987654, **options))  # of no delivery
        if not actor.held:
            return "nothing held"
        tag = actor.held[which % len(actor.held)][0]
        if multiple and actor.is_mixed:
            tag = 0  # all of them: which are below a tag differs
        settled = [
            each for each in actor.held
            if each[0] == tag or (multiple and (tag == 0 or each[0] < tag))
        ]  # fmt: skip
        actor.held = [each for each in actor.held if each not in settled]
        return self._post(actor, kind(tag, **options))

    def recover(self, actor, requeue=True):
        actor.held = []
        return self._call(actor, spec.Basic.Recover(requeue))

    def close(self, actor):
        link = self.links[actor.link]
        if actor.channel not in link.channels:
            return "not open"
        answer = link.call(actor.channel, spec.Channel.Close(200, "bye", 0, 0))
        link.channels.discard(actor.channel)
        actor.forget()
        return answer

    def leave(self, actor):
        """Close the connection."""
        link = self.links[actor.link]
        answer = link.call(0, spec.Connection.Close(200, "bye", 0, 0))
        link.is_open = False
        return answer

    def end(self, _):
        """Close every channel and take out what is left, so that its order is seen.

        Consumers go before: what a channel gives back may or may not reach another that closes.
        """
        for actor in self.actors:
            for tag in list(actor.consumers):
                self.cancel(actor, tag)
        for actor in self.actors:
            self.close(actor)
            self._look(self._ask_queues())
        self._let_expire()  # what came back
        left = {}
        for queue in sorted(self.names):
            left[queue] = []
            for _ in range(100):
                got = self._call(
                    self.actors[0], spec.Basic.Get(queue=self._named(queue), no_ack=True)
                )
                plain = self._plain(got)
                if not isinstance(got, tuple):
                    left[queue].append(plain)
                    break
                # but for how many are left: dead letters that go round come back a little later
                left[queue].append((plain[0], *plain[2:]))
        return left

    # names

    def _named(self, word):
        return f"{self.prefix}.{word}" if not word.startswith("amq.") else word

    def _own(self, arguments):
        own = dict(arguments)
        for key in ("x-dead-letter-exchange", "x-dead-letter-routing-key", "alternate-exchange"):
            if own.get(key):
                own[key] = self._named(own[key])
        return own

    def _plain(self, value):
        """Make an answer comparable: our prefix and times taken out."""
        match value:
            case spec.Channel.Close() | spec.Connection.Close():
                return value.NAME, value.reply_code, value.class_id, value.method_id
            case (spec.Basic.GetOk() as method, properties, body):
                return (
                    method.delivery_tag,
                    method.message_count,
                    *self._message(method, properties, body),
                )
            case spec.Queue.DeclareOk():
                return value.NAME, value.message_count, value.consumer_count
            case spec.Queue.DeleteOk() | spec.Queue.PurgeOk():
                return value.NAME, value.message_count
            case dict():
                return {self._plain(key): self._plain(each) for key, each in value.items()}
            case list():
                return [self._plain(each) for each in value]
            case str():
                return value.replace(f"{self.prefix}.", "")
            case bytes():
                return self._plain(value.decode())
            case None | int() | tuple():
                return value
        return value.NAME

    def _message(self, method, properties, body):
        headers = {}
        for key, value in (properties.headers or {}).items():
            if key == "x-death":
                value = [{k: v for k, v in each.items() if k != "time"} for each in value]
            headers[key] = self._plain(value)
        others = {
            name: value for name, value in vars(properties).items()
            if value is not None and name != "headers"
        }  # fmt: skip
        place = self._plain(method.exchange), self._plain(method.routing_key)
        flag = getattr(method, "redelivered", None)
        return body.decode(), flag, *place, headers, others

    # the end

    def _sweep(self):
        self._reopen_closed()
        for actor in self.actors:
            self.close(actor)
            self.links[actor.link].events.clear()
        first, second = self.links
        deletes = [spec.Queue.Delete(queue=self._named(each)) for each in sorted(self.names)]
        deletes += [
            spec.Exchange.Delete(exchange=self._named(each)) for each in sorted(self.exchanges)
        ]
        while deletes:  # all in one go, unless one is the other connection's
            many = len(first.ask(SWEEPING, *deletes))
            answer = first.wait(SWEEPING, many)
            if not isinstance(answer, spec.Channel.Close):
                break
            for each in deletes:
                second.call(SWEEPING, each)

    def hang_up(self):
        for each in self.links:
            each.hang_up()


def _sorted(kind, found):
    """Deliveries by consumer, in order; confirms in any order, for RabbitMQ gives them in any."""
    if kind == "delivered":
        by_consumer = defaultdict(list)
        for consumer, _, *message in found:
            by_consumer[consumer].append(message)
        return dict(by_consumer), sorted(tag for _, tag, *_ in found)
    return sorted(found) if kind in ("confirmed", "cancelled") else found

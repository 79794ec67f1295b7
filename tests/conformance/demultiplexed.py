"""The connection of the differential test: it sorts frames by channel, and answers from events."""

from __future__ import annotations

from collections import defaultdict

import pika.frame
from client import WAIT_TIMEOUT, RawConnection
from pika import spec


class DemultiplexedConnection(RawConnection):
    """A connection that keeps answers and events of each channel separately."""

    def __init__(self, target):
        super().__init__(target, stage="open")
        self.is_open = True
        self.closed = None  # the connection.close of the broker
        self.answers = defaultdict(list)
        self.events = defaultdict(list)  # deliveries, returns, confirms, cancellations
        self.channels = {0}  # open ones
        self._content = {}

    def call(self, channel, *methods):
        """Send methods, and before them a channel.open if needed; return the answer to the last."""
        return self.wait(channel, len(self.ask(channel, *methods)))

    def ask(self, channel, *methods):
        """Send methods that the broker answers; return those that were sent."""
        if channel not in self.channels:
            self.channels.add(channel)
            methods = (spec.Channel.Open(), *methods)
        self.socket.sendall(b"".join(marshal(channel, each) for each in methods))
        return methods

    def wait(self, channel, count):
        """Return the last of *count* answers, or the method that closes channel or connection."""
        while len(self.answers[channel]) < count and self.is_open:
            if any(isinstance(each, spec.Channel.Close) for each in self.answers[channel]):
                break
            self._read()
        found = self.answers.pop(channel, [])
        return found[-1] if len(found) == count or self.is_open else self.closed or "gone"

    def _read(self):
        self.socket.settimeout(WAIT_TIMEOUT)
        try:
            part = self.socket.recv(1 << 20)
        except ConnectionError:
            part = b""
        if not part:
            self.is_open = False
            return
        self._buffer += part
        at = 0
        while at < len(self._buffer):
            used, frame = pika.frame.decode_frame(self._buffer[at : at + _size(self._buffer, at)])
            if frame is None:
                break
            at += used
            self._sort(frame)
        self._buffer = self._buffer[at:]

    def _sort(self, frame):
        number = frame.channel_number
        if isinstance(frame, pika.frame.Header):
            method = self._content[number][0]
            self._content[number] = [method, frame.properties, frame.body_size, b""]
            self._finish(number)
        elif isinstance(frame, pika.frame.Body):
            self._content[number][3] += frame.fragment
            self._finish(number)
        elif isinstance(frame, pika.frame.Method):
            self._method(number, frame.method)

    def _method(self, number, method):
        if isinstance(method, (spec.Basic.Deliver, spec.Basic.GetOk, spec.Basic.Return)):
            self._content[number] = [method]
        elif isinstance(method, (spec.Basic.Ack, spec.Basic.Nack, spec.Basic.Cancel)):
            self.events[number].append((method, None, None))
        elif isinstance(method, spec.Connection.Close):
            self.closed, self.is_open = method, False
            self.socket.sendall(marshal(0, spec.Connection.CloseOk()))
        else:
            if isinstance(method, spec.Channel.Close):
                self.channels.discard(number)
                self.socket.sendall(marshal(number, spec.Channel.CloseOk()))
            self.answers[number].append(method)

    def _finish(self, number):
        method, properties, size, body = self._content[number]
        if len(body) < size:
            return
        del self._content[number]
        if isinstance(method, spec.Basic.GetOk):
            self.answers[number].append((method, properties, body))
        else:
            self.events[number].append((method, properties, body))


def _size(buffer, at):
    return int.from_bytes(buffer[at + 3 : at + 7], "big") + 8


def marshal(channel, method):
    """Return the bytes of a method's frame."""
    return pika.frame.Method(channel, method).marshal()

"""What a broker's refusal means, and the way out: its code and words in, our error out.

Pure text, no I/O. The words are RabbitMQ's, as of 3.10 to 4.3; what is not recognised is passed on
as it came.
"""

from __future__ import annotations

import re
from shlex import quote

from mousetrap.display.safe_text import safe
from mousetrap.errors import (
    AccessRefused,
    ChannelLost,
    MessageTooLarge,
    MousetrapError,
    QueueMissing,
    TopologyMismatch,
)

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<name>[^']*)' for (?P<kind>\w+) '(?P<which>.*?)' in vhost '.*': "
    r"received (?P<ours>.*?) but current is (?P<theirs>.*)",
    re.DOTALL,
)
_WAYS_OUT = {  # settings of ours that an argument comes from
    "x-queue-type": "set MOUSETRAP_QUEUE_TYPE to what it is",
    "x-expires": "set MOUSETRAP_QUEUE_EXPIRY as it was set then",
    "x-message-ttl": "give the stage the retry delays that it had then",
}


def channel_closed(code: int, text: str) -> MousetrapError:
    """Return the error for a channel that the broker closed with *code* and *text*."""
    text = safe(text)
    if code == 404 and "down or inaccessible" in text:
        # It exists, and its process is not there: its node is away, or somebody else declares it at
        # this very moment (seen when two of ours began together on RabbitMQ 4.3). It will be.
        return ChannelLost(f"the broker is not ready with a queue ({text}); try again")
    if code == 404:
        return QueueMissing(f"{text}; declare it first (mousetrap.job_queue.declare)")
    if code == 403:
        return AccessRefused(f"{text}; ask for the permission: rabbitmqctl set_permissions")
    if code == 406 and (found := _INEQUIVALENT.search(text)):
        return TopologyMismatch(_mismatch(**found.groupdict()))
    if code == 406 and (found := re.search(r"timed out. Timeout value used: (-?\d+) ms", text)):
        return ChannelLost(ack_timed_out(int(found[1]) / 1000))
    if code == 406 and (found := re.search(r"message size (\d+) .* max size (\d+)", text)):
        too_large = MessageTooLarge(
            f"a message of {int(found[1]):,} bytes is larger than the {int(found[2]):,} that this "
            f"broker takes: store it elsewhere and send where, or raise max_message_size in "
            f"rabbitmq.conf"
        )
        too_large.size = int(found[1])
        return too_large
    if code == 406 and (found := re.search(r"unknown delivery tag (\d+)", text)):
        return ChannelLost(
            f"an ack named delivery {found[1]}, which this channel does not have open: it was "
            f"acked before, or it came over another channel. Ack each once, on the channel that "
            f"it came by; what was not acked is delivered again"
        )
    return ChannelLost(f"the broker closed the channel ({code} {text}); open a new one")


def ack_timed_out(limit: float = -1.0) -> str:
    """Say that the broker waited for an ack for more than *limit* seconds (negative: not told)."""
    so_long = f"than {limit:g} s" if limit >= 0 else "than the broker allows"
    return (
        f"a message was held for longer {so_long} without an ack, which is its limit "
        f"(consumer_timeout): it delivers again. Make the handling shorter or the prefetch "
        f"smaller, or raise the limit: consumer_timeout in rabbitmq.conf, or x-consumer-timeout "
        f"of the queue"
    )


def vhost_refused(user: str, vhost: str, where: str, said: str) -> str:
    """Say which of the reasons in what the broker *said* keeps *user* out of *vhost*."""
    if "not found" in said:
        return (
            f"there is no vhost {vhost!r} at {where}: check RABBITMQ_VHOST (in a URL '/' is %2F), "
            f"or create it: rabbitmqctl add_vhost {quote(vhost)}"
        )
    if found := re.search(r"connection limit \(\d+\) is reached|vhost '.*' is down", said):
        return f"the broker refused vhost {vhost!r} at {where}: {safe(found[0])}; ask who runs it"
    return (
        f"user {user!r} may not use vhost {vhost!r} at {where}: check RABBITMQ_VHOST, or allow it: "
        f"rabbitmqctl set_permissions -p {quote(vhost)} {quote(user)} '.*' '.*' '.*'"
    )


def login_refused(user: str, where: str) -> str:
    """Say that the login of *user* was refused; the broker gives no reason, lest it help guess."""
    hint = ""
    if user == "guest":
        hint = (
            " (guest may log in from the broker's own machine only, and to a broker in a container "
            "this machine is another)"
        )
    return (
        f"the broker at {where} refused the login of user {user!r}{hint}: check RABBITMQ_USER and "
        f"RABBITMQ_PASSWORD"
    )


def _mismatch(name: str, kind: str, which: str, ours: str, theirs: str) -> str:
    ours, theirs = _value(ours), _value(theirs)
    width = max(len("argument"), len(name))
    between = max(len("ours"), len(ours))
    way = _WAYS_OUT.get(name, f"declare it with {name} as it is there")
    return (
        f"the {kind} {which!r} exists with another {name} than ours (406):\n"
        f"  {'argument':<{width}}  {'ours':<{between}}  the broker's\n"
        f"  {name:<{width}}  {ours:<{between}}  {theirs}\n"
        f"{way[0].upper()}{way[1:]}; or use another name or namespace; or, when it is empty, "
        f"delete it and let it be declared anew"
    )


def _value(words: str) -> str:
    """Return the value in ``the value '5' of type 'signedint'``, ``'true'`` or ``none``."""
    found = re.match(r"(?:the value )?'(.*?)'", words)
    return found[1] if found else words.strip()

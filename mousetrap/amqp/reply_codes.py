"""Our errors for the broker's reply codes and texts, with what to do next.

Pure text, no I/O. The texts are those of RabbitMQ 3.10 to 4.3; a text that is not recognised is
passed on as it is.
"""

from __future__ import annotations

import re
from shlex import quote

from mousetrap.display.safe_text import safe
from mousetrap.errors import (
    AccessRefused,
    ChannelLost,
    ConnectionLost,
    LimitReached,
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
_INVALID = re.compile(
    r"invalid arg '(?P<name>[^']*)' for queue '(?P<which>.*?)' in vhost '.*?'(?P<why>.*)", re.DOTALL
)
_LIMIT = re.compile(  # of connections: of a user, a vhost, a node; of channels: of a user, a node
    r"(user |node |)connection limit \(\d+\) is reached"
    r"|number of channels opened .*? has reached the maximum allowed (user )?limit of \(?\d+\)?"
)
_REMEDIES = {  # what to do, by the argument that a setting of ours determines
    "x-queue-type": "set MOUSETRAP_QUEUE_TYPE to the type that the queue has (classic or quorum)",
    "x-expires": "queues of runs, checks and tests expire, others do not: set "
    "MOUSETRAP_QUEUES_EXPIRE (1 or 0) and MOUSETRAP_QUEUE_EXPIRY (seconds) as they were for the "
    "process that declared it",
    "x-message-ttl": "give the stage the retry delays that the queue was declared with",
}


_ARGUMENT = (
    "give the queue the arguments that it has, at every stage that names it: "
    "Queue({which!r}, arguments={{...}}); or use it as it is: Queue({which!r}, declare=False)"
)
_PROPERTY = "mousetrap declares queues {declared}. Use it as it is: Queue({which!r}, declare=False)"
_EXCHANGE = (
    "another program has declared it: within a namespace, runs, checks and tests declare "
    "exchanges of their own, {0}"
)
_STREAM = (
    "a stream keeps its messages when they are read: mousetrap cannot take, return, purge or "
    "work on them. Read it with a consumer of its own (a prefetch and x-stream-offset are "
    "needed) and send what it reads to a classic or quorum queue (mousetrap.send)"
)


def not_supported(text: str) -> ChannelLost:
    """Return the error for a request that the broker does not support (540 NOT_IMPLEMENTED)."""
    if found := re.search(r"not supported by stream queues(?: queue)? '(.*?)' in vhost", text):
        return TopologyMismatch(f"queue {safe(found[1])!r} is a stream, and {_STREAM}")
    if found := re.search(r"the embedded broker has no .*\((x-[a-z-]+)\)", text):
        return TopologyMismatch(f"{safe(text)}, or leave {found[1]} out of the queue's arguments")
    return ChannelLost(f"the broker does not support this request ({safe(text)})")


def channel_closed(code: int, text: str, namespace: str = "") -> MousetrapError:
    """Return the error for a channel that the broker closed with *code* and *text*.

    What to write into a program names a queue without the prefix of *namespace*.
    """
    text = safe(text)
    if code == 404 and "down or inaccessible" in text:
        # The queue exists, but its process does not: its node is down, or another client declares
        # the queue at this moment (seen on RabbitMQ 4.3 when two of our workers started together).
        # It will be ready later.
        return ChannelLost(f"the broker is not ready with a queue ({text}); try again")
    if code == 404:
        how = "mousetrap.job_queue.declare"
        if "no exchange" in text:  # of plain pika; a stage's exchange is declared with it
            how = "exchange_declare of mousetrap.open_channel()"
        return QueueMissing(f"{text}; declare it first ({how}), or check its name")
    if code == 405:
        return ChannelLost(
            f"{text} Only the connection that declared it can use it, as long as that is open: use "
            f"another name or namespace"
        )
    if code == 530 and _LIMIT.search(text):
        return LimitReached(f"{text}: close channels that are not needed, or raise the limit")
    if code == 403:
        return AccessRefused(f"{text}; ask for the permission: rabbitmqctl set_permissions")
    if code == 406 and (found := _INEQUIVALENT.search(text)):
        return TopologyMismatch(_mismatch(**found.groupdict(), namespace=namespace))
    if code == 406 and (found := _INVALID.search(text)):
        return TopologyMismatch(_invalid(**found.groupdict()))
    if code == 406 and (found := re.search(r"timed out. Timeout value used: (-?\d+) ms", text)):
        return ChannelLost(ack_timed_out(int(found[1]) / 1000))
    if code == 406 and (found := re.search(r"message size (\d+) .* max size (\d+)", text)):
        too_large = MessageTooLarge(
            f"a message of {int(found[1]):,} bytes is larger than the {int(found[2]):,} that this "
            f"broker accepts: store the data elsewhere and send its location, or raise "
            f"max_message_size in rabbitmq.conf"
        )
        too_large.size = int(found[1])
        return too_large
    if code == 406 and (found := re.search(r"unknown delivery tag (\d+)", text)):
        return ChannelLost(
            f"an ack named delivery {found[1]}, which does not wait for one on this channel: it "
            f"was acked before, or delivered on another channel. Ack each delivery once, on its "
            f"own channel; what was not acked is delivered again"
        )
    return ChannelLost(f"the broker closed the channel ({code} {text}); open a new one")


def ack_timed_out(limit: float = -1.0) -> str:
    """Return the text for an ack that took more than *limit* seconds (negative: unknown)."""
    allowed = f"{limit:g} s" if limit >= 0 else "the broker allows"
    return (
        f"a message was held for longer than {allowed} without an ack (RabbitMQ's "
        f"consumer_timeout): the broker delivers it again. Make the handler faster or the prefetch "
        f"smaller, or raise the limit: consumer_timeout in rabbitmq.conf, or x-consumer-timeout "
        f"of the queue"
    )


def not_allowed(user: str, vhost: str, where: str, reply: str) -> MousetrapError:
    """Return the error for a connection that the broker refused or closed with 530 and *reply*.

    That code has causes that pass, which are worth another try, and one that does not.
    """
    if found := _LIMIT.search(reply):
        return LimitReached(
            f"{where} accepts no more connections or channels ({safe(found[0])}): close some that "
            f"are not needed, or raise the limit (rabbitmqctl set_user_limits, set_vhost_limits, "
            f"or the node's configuration)"
        )
    if found := re.search(r"vhost '.*?' is down", reply):
        return ConnectionLost(
            f"{where}: {safe(found[0])}; it may come up again, or ask its operator"
        )
    return AccessRefused(vhost_refused(user, vhost, where, reply))


def vhost_refused(user: str, vhost: str, where: str, reply: str) -> str:
    """Return why *user* may not use *vhost*, according to the broker's *reply*."""
    if "not found" in reply:
        return (
            f"there is no vhost {vhost!r} at {where}: check RABBITMQ_VHOST (in a URL '/' is %2F), "
            f"or create it: rabbitmqctl add_vhost {quote(vhost)}"
        )
    return (
        f"user {user!r} may not use vhost {vhost!r} at {where}: check RABBITMQ_VHOST, or allow it: "
        f"rabbitmqctl set_permissions -p {quote(vhost)} {quote(user)} '.*' '.*' '.*'"
    )


def login_refused(user: str, where: str) -> str:
    """Return the text for a refused login; RabbitMQ does not say if user or password is wrong."""
    hint = ""
    if user == "guest":
        hint = (
            " (guest may log in from the broker's own machine only; for a broker in a container, "
            "this machine is another one)"
        )
    return (
        f"the broker at {where} refused the login of user {user!r}{hint}: check RABBITMQ_USER and "
        f"RABBITMQ_PASSWORD or RABBITMQ_PASSWORD_FILE, or the login in RABBITMQ_URL"
    )


def how_to_delete(name: str, kind: str = "queue") -> str:
    """Return what deletes a queue or an exchange; *name* is the one at the broker."""
    return f"mousetrap.open_channel().{kind}_delete({name!r})"


def _mismatch(name: str, kind: str, which: str, ours: str, theirs: str, namespace: str) -> str:
    plain = which.removeprefix(f"{namespace}.") if namespace else which
    ours, theirs = _value(ours), _value(theirs)
    width = max(len("argument"), len(name))
    between = max(len("ours"), len(ours))
    declared = f"without {name}" if ours == "none" else f"with {name} {ours}"
    otherwise = _ARGUMENT if name.startswith("x-") else _PROPERTY
    remedy = _REMEDIES.get(name, otherwise.format(which=plain, declared=declared))
    if kind == "exchange":
        remedy = _EXCHANGE.format(declared)
    if name == "type" and kind == "exchange":
        remedy = (
            "give its `Exchange` the type that the broker has; for the exchange of the outcomes, "
            "set MOUSETRAP_EVENTS_EXCHANGE to a name that no other exchange has"
        )
    if name == "x-queue-type" and theirs == "stream":
        remedy = f"{which!r} is a stream, and {_STREAM}"
    unneeded = "nothing in it is needed" if kind == "queue" else "nobody else uses it"
    return (
        f"the {kind} {which!r} exists with another {name} than ours (406):\n"
        f"  {'argument':<{width}}  {'ours':<{between}}  the broker's\n"
        f"  {name:<{width}}  {ours:<{between}}  {theirs}\n"
        f"{remedy[0].upper()}{remedy[1:]}; or use another name or namespace; or, if {unneeded}, "
        f"delete it ({how_to_delete(which, kind)}), and it is declared again"
    )


def _invalid(name: str, which: str, why: str) -> str:
    if name == "x-priority" and "stream" in why:  # of a consumer
        return f"queue {which!r} is a stream, and {_STREAM}"
    why = why.replace(" of queue type rabbit_", " of the type ").strip(" :")
    return (
        f"the broker refuses {name} of the queue {which!r} (406{f': {why}' if why else ''}): this "
        f"version, or this type of queue, does not have it. Leave it out of the queue's arguments"
    )


def _value(words: str) -> str:
    """Return the value in ``the value '5' of type 'signedint'``, ``'true'`` or ``none``."""
    found = re.match(r"(?:the value )?'(.*?)'", words)
    return found[1] if found else words.strip()

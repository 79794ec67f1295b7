"""What can go wrong, as one tree; every message says what to do next.

    MousetrapError
    ├── SettingsError          a setting has a value that cannot work (also a ValueError)
    ├── WireError              the broker, or the way to it
    │   ├── BrokerUnreachable  nobody answers AMQP at that address
    │   ├── AccessRefused      user, password, vhost or permission (never retried)
    │   ├── ConnectionLost     the connection broke; publishing again with the same id is right
    │   └── ChannelLost        the broker closed the channel
    │       ├── QueueMissing   no queue of that name (404)
    │       ├── MessageTooLarge   the broker takes no message of that size (406)
    │       └── TopologyMismatch  the queue exists with other arguments (406)
    ├── PublishError           one message did not verifiably arrive; `.receipt` tells which
    │   ├── Unroutable         no queue is bound there: the broker gave it back
    │   ├── PublishRefused     the broker said no (nack: queue full, reject-publish)
    │   └── OutcomeUnknown     no answer in time: the broker may have it or not
    ├── UndecodableMessage     the bytes are not what the stage reads
    ├── WorkerLost             why a message is dead that nobody who handled it lived to tell of
    ├── AckTimedOut            why a message is dead whose handling the broker would not wait for
    ├── Reject                 raised *by a handler*: bury this message now, do not retry
    ├── RunError               a run of a flow
    │   ├── NotSettled         messages have no fate in time; `.table` says where each is
    │   └── MessageDied        a message was dead-lettered, and that was to end the wait
    ├── SinkError              a sink cannot store
    │   └── SinkBusy           others held it for too long; nothing was stored, try again
    ├── ProcessEnded           a worker process ended by itself; `.code` is its exit code
    ├── BrokerSetupError       a broker could not be brought up
    ├── FaultError             a fault on purpose that may not be planted here, or did not happen
    ├── ExtractError           a cell of a notebook cannot become a module (also a ValueError)
    └── CheckError             a notebook check
        ├── ParameterError     unknown, mistyped or secret-like; no kernel was started
        ├── Drifted            shows a function that the package has otherwise; no kernel started
        ├── CheckFailed        a cell raised; the executed copy is kept
        └── DeadlineExceeded   time is up; the kernel and its workers were ended

pika's exceptions are translated to these in one place, `mousetrap.amqp.error_translation`; the
original stays attached as ``__cause__``. No message contains a password or a body.
"""

from __future__ import annotations

from pathlib import Path


class MousetrapError(Exception):
    """The root: catch this to catch whatever mousetrap raises on purpose."""


class SettingsError(MousetrapError, ValueError):
    """A setting cannot work; names the variable, the value and what is allowed."""


class WireError(MousetrapError):
    """The broker, or the way to it."""


class BrokerUnreachable(WireError):
    """Nobody answered AMQP at that address in time."""


class AccessRefused(WireError):
    """The broker refused user, password, vhost or permission; asking again will not help."""


class ConnectionLost(WireError):
    """The connection broke; what was not confirmed may or may not have arrived."""


class ChannelLost(WireError):
    """The broker closed the channel; its text is in the message."""


class QueueMissing(ChannelLost):
    """There is no queue of that name in this vhost (404 NOT_FOUND)."""


class MessageTooLarge(ChannelLost):
    """A message was larger than the broker takes; `size` is its size in bytes."""

    size = 0


class TopologyMismatch(ChannelLost):
    """The queue exists with other arguments than ours (406 PRECONDITION_FAILED)."""


class PublishError(MousetrapError):
    """One message did not verifiably arrive; it was not lost silently: here it is."""


class Unroutable(PublishError):
    """The broker returned the message: no queue of that name exists."""


class PublishRefused(PublishError):
    """The broker refused the message (nack), for example because the queue is full."""


class OutcomeUnknown(PublishError):
    """No answer before the deadline or the disconnect; the broker may have the message or not."""


class UndecodableMessage(MousetrapError, ValueError):
    """The bytes are not what was expected.

    `offset` is the byte where decoding stopped (None when the bytes parse but have the wrong
    type); `reason` says what is wrong without quoting the body.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{reason}{where}")
        self.reason = reason
        self.offset = offset


class WorkerLost(MousetrapError):
    """Workers were lost while they had this message; it may be what kills them."""


class AckTimedOut(MousetrapError):
    """Its handling took longer than the broker waits for an ack, again and again."""


class Reject(MousetrapError):
    """Raise it in a handler to send the message to the dead queue without a retry."""


class RunError(MousetrapError):
    """A run of a flow did not go as it should."""


class NotSettled(RunError, TimeoutError):
    """Messages have no fate in time; `table` has a row for each: where it stopped, since when."""

    table: object = None


class MessageDied(RunError):
    """A message was dead-lettered; says which, where and why, with the handler's traceback."""


class SinkError(MousetrapError):
    """A sink cannot store: its file, its table, or how it is used; nothing was stored."""


class SinkBusy(SinkError, TimeoutError):
    """Others held the sink for longer than its time-out; nothing was stored, try again."""


class ProcessEnded(MousetrapError):
    """A worker process has ended by itself; `code` is its exit code as `subprocess` counts it."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class BrokerSetupError(MousetrapError):
    """A broker could not be brought up, or not in time."""


class FaultError(MousetrapError):
    """A fault on purpose that may not be planted here, or that did not happen; says why."""


class ExtractError(MousetrapError, ValueError):
    """A cell cannot become part of a module; names the cell, and nothing was written."""


class CheckError(MousetrapError):
    """A notebook check did not pass; `output` is the executed copy, None if it never began."""

    output: Path | None = None


class ParameterError(CheckError, ValueError):
    """A notebook parameter is unknown, mistyped or looks like a secret; no kernel was started."""


class Drifted(CheckError):
    """A notebook says that its function is the package's, and it is not; no kernel was started."""


class CheckFailed(CheckError):
    """A cell of the notebook raised; the executed copy says which."""


class DeadlineExceeded(CheckError, TimeoutError):
    """The check took too long; its kernel and workers were ended."""

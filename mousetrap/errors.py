"""All errors that mousetrap raises on purpose, as one tree.

    MousetrapError
    ├── SettingsError          a setting has a value that cannot work (also a ValueError)
    ├── WireError              the broker or the connection to it
    │   ├── BrokerUnreachable  no broker answers at that address
    │   ├── AccessRefused      user, password, vhost or permission; never retried
    │   ├── ConnectionLost     the connection broke; publish again with the same id
    │   │   └── LimitReached   a limit of connections or channels is reached
    │   └── ChannelLost        the broker closed the channel
    │       ├── QueueMissing   there is no queue of that name (404)
    │       ├── MessageTooLarge   the broker accepts no message of that size (406)
    │       └── TopologyMismatch  the queue exists with other arguments (406)
    ├── PublishError           the broker did not confirm one message
    │   ├── Unroutable         the broker returned it: there is no queue of that name
    │   ├── PublishRefused     the broker refused it (nack), for example because the queue is full
    │   └── OutcomeUnknown     no answer in time: the broker may have the message or not
    ├── UndecodableMessage     a body is not what the stage reads (also a ValueError)
    ├── WorkerLost             several workers were lost while they had this message
    ├── AckTimedOut            handling this message took longer than the broker waits for an ack
    ├── Expired                no worker began with this message in the time that its sender gave
    ├── HandlerTimedOut        handling this message took longer than the stage's time limit
    ├── HandlersStuck          a worker ends, because its handlers do not return
    ├── Reject                 raised *by a handler*: dead-letter this message, do not retry it
    │   └── JoinFailed         not all parts of a message have come to their join
    ├── FailedItems            raised *by the handler of a batch*: these of its messages failed
    ├── CallError              a request of `mousetrap.call` got no answer
    │   ├── CallFailed         the request was dead-lettered; has the reason
    │   └── CallTimedOut       no answer came in time (also a TimeoutError)
    ├── RunError               a run of a flow
    │   ├── NotSettled         messages have no final outcome in time (also a TimeoutError)
    │   ├── QueuesLost         its queues expired or were deleted, with what was in them
    │   └── MessageDied        a message was dead-lettered, and `fail_fast` was asked for
    ├── SinkError              a sink cannot store results
    │   └── SinkBusy           other processes held the sink for too long (also a TimeoutError)
    ├── ProcessEnded           a worker process ended without being asked to
    ├── BrokerSetupError       a broker could not be started
    ├── FaultError             a fault could not be injected, or had no effect
    ├── ExtractError           a notebook cell cannot become part of a module (also a ValueError)
    ├── ScaffoldError          a new project cannot have this name or place (also a ValueError)
    └── CheckError             the check of a notebook
        ├── ParameterError     a parameter is unknown, mistyped or secret (also a ValueError)
        ├── Drifted            a function in the notebook differs from the package's
        ├── CheckFailed        a cell raised an error
        └── DeadlineExceeded   the check took too long (also a TimeoutError)

Each error's text says what happened, to which queue or message, and what to do next; it contains no
password and no body. pika's exceptions are translated to these errors in one module,
`mousetrap.amqp.error_translation`; where pika raised in the caller's thread, its exception is the
``__cause__``.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path


class MousetrapError(Exception):
    """The base of all errors here: catch it to catch whatever mousetrap raises on purpose.

    A cell shows the line of the user's code and the text; ``%tb`` shows all frames.
    """

    def _render_traceback_(self) -> list[str]:  # IPython looks for this name
        found: list[str] = import_module("mousetrap.notebook.cell_traceback").lines_of(self)
        return found


class SettingsError(MousetrapError, ValueError):
    """A setting, a queue name or a retry delay has a value that cannot work.

    The text names the variable, the value and what is allowed. Correct it and start again.
    """


class WireError(MousetrapError):
    """The broker, or the connection to it, failed; the subclasses say how."""


class BrokerUnreachable(WireError):
    """No broker answered at the address in time, so nothing was sent.

    Start a broker (``mousetrap broker up``), or correct the variable that the text names;
    ``mousetrap doctor`` finds out which.
    """


class AccessRefused(WireError):
    """The broker refused the user, the password, the vhost or a permission.

    A retry does not help: correct the variable that the text names, or the user's permissions.
    """


class ConnectionLost(WireError):
    """The connection broke; messages that were not confirmed may have arrived or not.

    Publish them again with the same ids, so that a sink can recognise duplicates.
    """


class LimitReached(ConnectionLost):
    """The broker accepts no more connections or channels: of a user, a vhost, or a node.

    What keeps a connection open (a worker, a publisher, a run) tries again, as after an outage.
    Close connections that are not needed, or raise the limit that the text names.
    """


class ChannelLost(WireError):
    """The broker closed the channel; the text has the broker's reason.

    The connection is intact. Correct what the broker complains about before the next try.
    """


class QueueMissing(ChannelLost):
    """There is no queue of that name in this vhost (404 NOT_FOUND).

    Declare it (`mousetrap.declare`), or check its name and the namespace.
    """


class MessageTooLarge(ChannelLost):
    """A message was larger than the broker accepts (406 PRECONDITION_FAILED).

    `size` is its size in bytes. Store the content elsewhere and send its path or URL.
    """

    size = 0


class TopologyMismatch(ChannelLost):
    """The queue exists with other arguments than the declared ones (406 PRECONDITION_FAILED).

    The text names the argument, and what to do. A stream is such a queue, too.
    """


class PublishError(MousetrapError):
    """The broker did not confirm one message; the text names the message and the queue."""


class Unroutable(PublishError):
    """The broker returned the message: there is no queue of that name.

    Declare the queue (`mousetrap.declare`), or check its name and the namespace.
    """


class PublishRefused(PublishError):
    """The broker refused the message (nack), for example because the queue is full.

    Publish it again later, with the same id, unless the text says that it is too large.
    """


class OutcomeUnknown(PublishError):
    """The broker did not answer before the deadline, or before the connection broke.

    It may have the message or not: publish it again, with the same id.
    """


class UndecodableMessage(MousetrapError, ValueError):
    """A body is not JSON, or not of the type that the stage reads; a worker dead-letters it.

    `offset` is the byte where decoding stopped, None when the body is JSON of the wrong type.
    `reason` says what is wrong without quoting the body. Correct the sender or the stage's type,
    then replay the dead letter.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        where = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{reason}{where}")
        self.reason = reason
        self.offset = offset


class WorkerLost(MousetrapError):
    """The reason of a dead letter: several workers were lost while they had this message.

    The message may be what crashes them. Correct the handler, then replay the dead letter.
    """


class AckTimedOut(MousetrapError):
    """The reason of a dead letter: its handling repeatedly took longer than the ack time-out.

    Make the handler faster, or raise the broker's ``consumer_timeout``, then replay it.
    """


class Expired(MousetrapError):
    """The reason of a dead letter: no worker began with the message before it expired.

    Its sender said how long (``expires=``). Start more workers, or give it more time; a replay of
    the dead letter is handled.
    """

    def __init__(
        self, text: str = "no worker began with it in the time that its sender gave (expires=)"
    ) -> None:
        super().__init__(text)


class HandlerTimedOut(MousetrapError):
    """A handler had not returned when the time limit of its stage was over.

    The message is retried, and dead-lettered when its retries are used up. Make the handler faster,
    give what it waits for a time-out of its own, or raise the stage's ``timeout``.
    """


class HandlersStuck(MousetrapError):
    """A worker cannot go on: as many handlers as it may run at a time do not return.

    Python cannot end a thread, so the worker gives its messages back and ends. Start it again
    (``mousetrap work --processes`` does that by itself), and find out what its handlers wait for.
    """


class Reject(MousetrapError):
    """Raise it in a handler to dead-letter the message at once, without a retry.

    For messages that no retry can help: ``raise Reject("no such customer")``.
    """


class FailedItems(MousetrapError):
    """Raise it in the handler of a batch if some of its messages failed; the others are done.

        raise FailedItems({3: ValueError("no such city")}, results=scores)

    *errors* maps positions in the list that the handler got, from 0, to exceptions; each decides
    about its own message, as if a handler of this message alone had raised it. *results* is what
    the handler would have returned: one element for each message, of which those of failed messages
    are not read, or None if there are no outputs.

    Raises:
        TypeError, ValueError: *errors* is something else.
    """

    def __init__(
        self, errors: Mapping[int, BaseException], results: Iterable[object] | None = None
    ) -> None:
        if not isinstance(errors, Mapping):
            raise TypeError("FailedItems takes a dict: {position in the list: exception}")
        self.errors = {operator.index(position): error for position, error in errors.items()}
        self.results = results
        for position, error in self.errors.items():
            if position < 0:
                raise ValueError(f"FailedItems: position {position}; positions begin at 0")
            if not isinstance(error, BaseException):
                raise TypeError(
                    f"FailedItems: position {position} has a {type(error).__name__}: give an "
                    f"exception, as in {{{position}: ValueError('why')}}"
                )
        super().__init__(f"{len(self.errors)} of the messages of a batch failed")


class CallError(MousetrapError):
    """A request of `mousetrap.call` got no answer; the subclasses say why.

    `id` is the id of the request's message.
    """

    def __init__(self, text: str, id: str = "") -> None:
        super().__init__(text)
        self.id = id


class CallFailed(CallError):
    """A worker dead-lettered the request; `reason` says why, as ``ValueError: no luck``.

    The dead letter has the traceback. A replay of it is handled, and answers nobody.
    """

    def __init__(self, text: str, id: str = "", reason: str = "") -> None:
        super().__init__(text, id)
        self.reason = reason


class CallTimedOut(CallError, TimeoutError):
    """No answer came within the time-out of a call; the text says what is known of the request.

    It may be handled or not. A worker that would begin with it only now dead-letters it.
    """


class JoinFailed(Reject):
    """Not all parts of a message came to their join, or there are more than it takes.

    Its dead letter has all that came; after the cause is mended, replay both.
    """


class RunError(MousetrapError):
    """A run of a flow did not go as it should; the subclasses say how."""


class NotSettled(RunError, TimeoutError):
    """A run was not settled in time: some messages have no final outcome yet.

    `table` has a row for each: where it waits, since when, and its last failure. Give the run more
    time or more workers; `settle` can be called again.
    """

    table: object = None


class QueuesLost(RunError):
    """The queues of a run expired or were deleted while it was open, with what was in them.

    The text says how much is lost. Start a new run; the sleep of a machine that lasts longer than
    ``MOUSETRAP_QUEUE_EXPIRY`` is the usual cause.
    """


class MessageDied(RunError):
    """A message of the run was dead-lettered, and the caller asked to stop at the first one.

    The text says which message, in which stage and why, with the handler's traceback.
    """


class SinkError(MousetrapError):
    """A sink cannot store results: its file, its table, or how it is used; nothing was stored."""


class SinkBusy(SinkError, TimeoutError):
    """Other processes held the sink for longer than its time-out; nothing was stored, try again."""


class ProcessEnded(MousetrapError):
    """A worker process ended without being asked to; the text says what its exit code means.

    `code` is the exit code as `subprocess` counts it: negative for a signal.
    """

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class BrokerSetupError(MousetrapError):
    """A broker could not be started, or not in time; the text says what to install or to change."""


class FaultError(MousetrapError):
    """A fault could not be injected into this broker, or had no effect; the text says why."""


class ExtractError(MousetrapError, ValueError):
    """A cell cannot become part of a module; the text names the cell. Nothing was written."""


class ScaffoldError(MousetrapError, ValueError):
    """A new project cannot have this name or this place. Nothing was written."""


class CheckError(MousetrapError):
    """A notebook check did not pass; `output` is the executed copy, None if there is none."""

    output: Path | None = None


class ParameterError(CheckError, ValueError):
    """A notebook parameter is unknown, mistyped or looks like a secret; no kernel was started.

    The text says what is allowed. Secrets belong in environment variables.
    """


class Drifted(CheckError):
    """A function in the notebook is marked as the package's, but differs; no kernel was started.

    The text shows the difference. Extract the function again, or take the package's version.
    """


class CheckFailed(CheckError):
    """A cell of the notebook raised an error; `output`, the executed copy, shows which and why."""


class DeadlineExceeded(CheckError, TimeoutError):
    """The check took longer than its deadline; its kernel and its workers were ended."""

"""Request and reply: sends a request to a stage, and waits for what its function returns.

All calls of a process to one broker share a connection, which the first call opens. The worker
answers by RabbitMQ's direct reply-to (see `mousetrap.worker.answers`), so no queue is declared.
Prototyped in ``notebooks/09_shapes.ipynb``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from mousetrap.amqp.requests import Request, Requests
from mousetrap.errors import CallFailed, CallTimedOut, MousetrapError, SettingsError
from mousetrap.flows.stage import Stage
from mousetrap.model.delays import SendOptions
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.runtime import clock, forks, threads
from mousetrap.settings import Settings
from mousetrap.worker.handling import current_handling, current_task

CALL_TIMEOUT = 30.0  # seconds

_lock = forks.released_in_child(threads.Lock())  # guards `_requests` while one is opened
_requests: dict[tuple[int, Settings], Requests] = {}  # by process and broker


def call(
    target: str | Queue | Stage[..., Any],
    data: Any = None,
    timeout: float = CALL_TIMEOUT,
    settings: Settings | None = None,
    *,
    priority: int | None = None,
) -> Any:
    """Send *data* to *target*, a queue or a stage, and return what its handler returns for it.

    The answer is plain data: the value that the handler returned or yielded, a list if it yielded
    several, None if none. If the stage writes to a queue, the outputs are sent there as well; the
    answer comes when the broker has confirmed them. Retries take their time; a request that is
    dead-lettered raises `CallFailed`.

    The request expires with the call: a worker that gets it later than *timeout* seconds after the
    call dead-letters it, with the reason ``Expired``. An answer that comes too late is dropped.

    Inside a handler it uses the settings and the namespace of the handler's worker; the request
    counts as a part of the handled job, and is made again if the handler is retried.

    Raises:
        CallTimedOut: no answer came within *timeout* seconds; a `TimeoutError`.
        CallFailed: the request was dead-lettered; ``reason`` says why.
        Unroutable: there is no such queue. PublishRefused, OutcomeUnknown: as from `publish`.
        ConnectionLost: the connection broke meanwhile; the text says what is known.
        SettingsError: *target* is no queue; ValueError, TypeError: *data* cannot be JSON.
        UndecodableMessage: another program answered, and not with JSON.
        MousetrapError: a coroutine of a handler calls it, which would stop its event loop: use
            ``await call_async(...)`` there.

    Threads: any, several at a time.
    """
    _check_not_in_handlers_coroutine()
    deadline = clock.monotonic() + timeout
    message, queue, where = _prepare(target, data, timeout, settings, priority)
    requests = open_requests(where, timeout)
    name = where.topology.wire_name(queue)
    request = requests.request(message, name, deadline, priority=priority)
    return answer_of(requests, request, queue, clock.remaining(deadline), timeout)


async def call_async(
    target: str | Queue | Stage[..., Any],
    data: Any = None,
    timeout: float = CALL_TIMEOUT,
    settings: Settings | None = None,
    *,
    priority: int | None = None,
) -> Any:
    """Send *data* to *target* and return the answer, as `call` does, without stopping the loop.

    If the task is cancelled, the request stays at the broker until it expires.

    It raises the errors of `call`.

    Threads: any with a running event loop.
    """
    deadline = clock.monotonic() + timeout
    message, queue, where = _prepare(target, data, timeout, settings, priority)
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    wake = _waker(loop, done)
    name = where.topology.wire_name(queue)

    def begin() -> tuple[Requests, Request]:
        requests = open_requests(where, timeout)
        return requests, requests.request(message, name, deadline, priority=priority, on_done=wake)

    # in a thread: it may have to connect, or to wait for room
    requests, request = await loop.run_in_executor(None, begin)
    try:
        async with asyncio.timeout(clock.remaining(deadline)):
            await done.wait()
    except TimeoutError:
        pass  # said below
    finally:
        requests.forget(request)
    return answer_of(requests, request, queue, 0.0, timeout)


def answer_of(requests: Requests, request: Request, queue: str, left: float, timeout: float) -> Any:
    """Wait *left* seconds for the answer to *request*, and return it or raise as `call` does."""
    try:
        is_done = request.wait(left)
    finally:  # also after Ctrl-C
        requests.forget(request)
    message, receipt = request.message, request.receipt
    if request.error is not None:
        raise request.error
    if not is_done or request.answer is None:
        known = (
            "the broker has the request: no worker has answered, or each took too long"
            if receipt is not None and receipt.confirmed
            else f"the broker has not confirmed the request (connection: "
            f"{requests.connection.state})"
        )
        raise CallTimedOut(
            f"no answer from {queue!r} to request {message.short_id} in {timeout:g} s: {known}. A "
            f"worker that gets it now dead-letters it; start a worker, or give a longer timeout",
            message.id,
        )
    answer = request.answer
    if answer.reason is not None:
        raise CallFailed(
            f"request {message.short_id} to {queue!r} was dead-lettered: {answer.reason}; the dead "
            f"letter in {Queue(queue).dead!r} has the traceback",
            message.id,
            answer.reason,
        )
    return answer.data


def open_requests(settings: Settings, timeout: float) -> Requests:
    """Return the open connection for calls to the broker of *settings*; open it if there is none.

    Raises what `Publisher.open` raises.
    """
    bare = settings.replace(namespace="", queues_expire=False)
    key = os.getpid(), bare
    found = _requests.get(key)
    if found is not None and found.connection.state not in ("closed", "failed"):
        return found
    if not _lock.acquire(timeout=max(0.0, timeout)):
        raise CallTimedOut(
            f"the connection to {settings.url} was not open within {timeout:g} s: wait longer "
            f"(timeout=), or check the broker by mousetrap doctor"
        )
    try:
        found = _requests.get(key)
        if found is None or found.connection.state in ("closed", "failed"):
            found = Requests(
                bare.replace(connect_timeout=min(bare.connect_timeout, max(0.5, timeout)))
            )
            found.open()
            _requests[key] = found
        return found
    finally:
        _lock.release()


def late_answers() -> int:
    """Return how many answers came to this process when their call had ended already."""
    return sum(each.late for (pid, _), each in _requests.items() if pid == os.getpid())


def close_calls() -> None:
    """Close the connections of all calls of this process; the next call opens a new one."""
    for key in [each for each in _requests if each[0] == os.getpid()]:
        _requests.pop(key).close()


def new_request(data: Any, timeout: float, priority: int | None) -> Message:
    """Return the message of a request that expires after *timeout* seconds.

    Raises:
        ValueError: *timeout* or *priority* is out of range.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout {timeout!r}: it must be a number of seconds above 0")
    headers = SendOptions.checked(priority, expires=timeout).headers()
    if (handling := current_handling.get(None)) is None:
        return Message(data, headers=headers)
    parent = handling.message
    return Message(
        data, headers=headers, parent=parent.id, job=parent.job, past_retries=parent.retries
    )


def queue_name(target: Any) -> str:
    """Return the plain name of the queue *target*: a name, a `Queue`, or a stage.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(target, Stage):
        return target.queue.name
    if isinstance(target, Queue):
        return target.name
    if isinstance(target, str) and target:
        return target
    raise SettingsError(
        f"{target!r} cannot be called: give the name of a queue, a Queue or a stage. Behind an "
        f"exchange there may be any number of workers that answer"
    )


def _prepare(
    target: Any, data: Any, timeout: float, settings: Settings | None, priority: int | None
) -> tuple[Message, str, Settings]:
    """Return the request, the plain name of its queue, and the settings to send it with."""
    return (
        new_request(data, timeout, priority),
        queue_name(target),
        settings or Settings.from_environment(),
    )


def _waker(loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> Callable[[], None]:
    def wake() -> None:  # on the I/O thread
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:  # the loop is closed: nobody waits
            return

    return wake


def _check_not_in_handlers_coroutine() -> None:
    if current_handling.get(None) is not None and current_task() is not None:
        raise MousetrapError(
            "call(...) in a coroutine of a handler would stop its event loop, and with it the "
            "other messages: use `await mousetrap.call_async(...)` there"
        )

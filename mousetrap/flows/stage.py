"""A stage: a plain function together with the queue that it reads and the targets that it writes.

Calling a stage calls its function, so you can write and test it without a broker. Prototyped in
``notebooks/04_stages.ipynb``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from mousetrap.amqp.io_thread import IOThread
from mousetrap.display.safe_text import safe
from mousetrap.errors import SettingsError
from mousetrap.flows.joins import join_points
from mousetrap.flows.known_queues import known_beside
from mousetrap.model.batch import Batch
from mousetrap.model.headers import check_carried
from mousetrap.model.join_groups import Join
from mousetrap.model.join_headers import JoinPoint
from mousetrap.model.message import Message, current_message
from mousetrap.model.targets import OutputTargets, SentMessage, Targets
from mousetrap.model.topology import Queue
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.settings import Settings
from mousetrap.worker.batch_handler import new_handler
from mousetrap.worker.handling import Handling, current_handling, inherit_in_threads, pass_on
from mousetrap.worker.join_types import check_no_batch
from mousetrap.worker.join_worker import JoinHandler, JoinWorker
from mousetrap.worker.options import check_options
from mousetrap.worker.service import WorkerService
from mousetrap.worker.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")


class Stage(Generic[P, R]):
    """A function bound to its queues, as the decorator `stage` returns it; see there."""

    def __init__(
        self,
        function: Callable[P, R],
        queue: Queue,
        writes: Targets,
        concurrency: int,
        prefetch: int | None,
        name: str | None = None,
        timeout: float | None = None,
        routes: Targets = None,
        carry: Sequence[str] = (),
        batch: Batch | None = None,
        joins: Join | str | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.joins = Join(joins) if isinstance(joins, str) else joins
        headers = check_carried(carry)
        if self.joins is None:
            self.handler = new_handler(function, name, headers, batch)
        else:
            check_no_batch(batch)
            self.handler = JoinHandler(function, self.joins, name, headers)
        self.name = self.handler.name
        self.queue = queue
        self.writes: Any = writes
        self.routes: Any = routes
        self.concurrency = concurrency
        self.prefetch = prefetch
        self.timeout = timeout
        self.batch = batch
        self._check()

    def replace(self, **changes: Any) -> Stage[P, R]:
        """Return a copy with other attributes: ``function``, ``queue``, ``writes``, ``prefetch``...

        Everything else stays, the name too. A *function* must call this stage's own.

        Raises:
            TypeError: a stage has no such attribute.
            SettingsError, ValueError: a value is not allowed.
        """
        if unknown := changes.keys() - ("function", *OPTIONS):
            raise TypeError(f"a stage has no {', '.join(sorted(unknown))}")
        new = copy.copy(self)
        vars(new).update(changes)
        new._check()
        if "batch" in changes:
            new.handler = new_handler(self.function, self.name, self.handler.carry, new.batch)
        if "function" in changes:
            new.handler = new.handler.replace(new.function)
        return new

    def _check(self) -> None:
        check_options(self.concurrency, self.prefetch, self.timeout, self.batch)
        if not isinstance(self.queue, Queue):
            raise SettingsError(
                f"{self.name} reads {self.queue!r}: give the name of a queue, or a Queue"
            )
        if self.joins is not None:
            self.queue = dataclasses.replace(self.queue, join=f"{self.queue.name}.join")
        before: OutputTargets | None = vars(self).get("targets")
        self.targets = OutputTargets(self.writes, self.routes)
        if before is not None:  # a copy, which has the names of these queues only
            self.targets.named = before.named | self.targets.named
        self.writes, self.routes = self.targets.given, self.targets.routes

    @property
    def message_type(self) -> Any:
        """The type to which the data of a message is decoded; Any, or `Message` for the whole."""
        return self.handler.accepts

    @property
    def options(self) -> dict[str, Any]:
        """What a worker of this stage is started with, besides the function and the settings."""
        return {each: getattr(self, each) for each in OPTIONS}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, without a broker."""
        return self.function(*args, **kwargs)

    def handle(self, message: Message) -> list[Message]:
        """Handle *message* as a worker would, without a broker; return the messages it would send.

        Unlike a call of the stage, this decodes the body to the annotated type of the function's
        parameter, and the output messages have their final ids. Messages that the function sends
        by `mousetrap.send` are not sent; they follow those that it returned.

        Raises:
            UndecodableMessage: the body does not have that type.
            Exception: anything that the function raises.
        """
        return [output.message for output in self.outputs(message)]

    def outputs(self, message: Message) -> list[SentMessage]:
        """Handle *message* as `handle` does; return each output with its target.

        Raises:
            UndecodableMessage, Exception: as `handle`.
        """
        inherit_in_threads()
        handling = Handling(message, self.name, targets=self.targets)
        tokens = current_message.set(message), current_handling.set(handling)
        try:
            returned = self.handler.call(message, handling)
            plain = self.targets.plain
            kept = [SentMessage(each, plain) for each in returned] if plain else []
            outputs = [*kept, *handling.end()]
            pass_on(message, self.handler.carry, [each.message for each in outputs])
            return outputs
        finally:
            handling.end()
            current_message.reset(tokens[0])
            current_handling.reset(tokens[1])

    def worker(
        self,
        settings: Settings | None = None,
        *,
        concurrency: int | None = None,
        prefetch: int | None = None,
        retry_delays: tuple[float, ...] | None = None,
        timeout: float | None = None,
        queues: Mapping[str, Queue] | None = None,
        stages: Iterable[Stage[..., Any]] | None = None,
        io_thread: IOThread | None = None,
    ) -> Worker:
        """Return a worker for this stage, not started; arguments replace the decorator's values.

        *queues* are those of its flow that have arguments or exist already, by their names, and
        *stages* are its stages: one of them may join what this one makes. Without these they are
        those in the same module. *io_thread* is shared with other workers of one run.

        Raises:
            SettingsError: no way leads from this stage to one that joins what it makes.
        """
        known = known_beside(self) if queues is None else queues
        writes, routes = self.targets.with_known(known)
        make: Any = JoinWorker if self.joins else Worker
        worker: Worker = make(
            with_delays(self.queue, retry_delays),
            self.handler,
            settings,
            writes=writes,
            routes=routes,
            concurrency=self.concurrency if concurrency is None else concurrency,
            prefetch=self.prefetch if prefetch is None else prefetch,
            timeout=self.timeout if timeout is None else timeout,
            io_thread=io_thread,
        )
        worker.targets.joins = self.joined_by(stages)
        return worker

    def joined_by(self, stages: Iterable[Stage[..., Any]] | None = None) -> list[JoinPoint]:
        """Return the joins among *stages* that name this stage; default: those in its module.

        Raises:
            SettingsError: none of *stages* leads from this one to such a join.
        """
        return join_points(self, _stages_of_module(self) if stages is None else stages)

    def start(self, settings: Settings | None = None, **options: Any) -> Worker:
        """Start a worker in the background and return it; *options* are those of `worker`.

        Raises:
            BrokerUnreachable, AccessRefused, TopologyMismatch: the worker did not start.
        """
        return self.worker(settings, **options).start()

    def run(self, settings: Settings | None = None, **options: Any) -> None:
        """Work until SIGINT or SIGTERM, then finish or give back the messages in progress."""
        run_until_signalled(WorkerService(self.worker(settings, **options)))

    def __repr__(self) -> str:
        path = safe(f"{self.queue.name} → {self.name}{self.targets}")
        batches = "" if self.batch is None else f", batches of {self.batch.size}"
        return f"<Stage {path}, concurrency {self.concurrency}{batches}>"


# What a worker of a stage is started with; the others are those of its handler.
OPTIONS = tuple(
    each
    for each in inspect.signature(Stage).parameters
    if each not in ("function", "name", "carry")
)


def with_delays(queue: Queue | str, retry_delays: tuple[float, ...] | None) -> Queue:
    """Return *queue* with these retry delays; with None it has its own, or the default ones."""
    if isinstance(queue, str):
        queue = Queue(queue)
    if retry_delays is None:
        return queue
    return dataclasses.replace(queue, retry_delays=retry_delays)


def queue_of(target: Stage[..., Any] | Queue | str) -> Queue:
    """Return *target* as a queue: the queue that a stage reads, or the one with that name."""
    if isinstance(target, Stage):
        return target.queue
    return Queue(target) if isinstance(target, str) else target


def _stages_of_module(stage: Stage[..., Any]) -> list[Stage[..., Any]]:
    """Return the stages that the module of *stage*'s function has, or has imported."""
    names = getattr(inspect.unwrap(stage.function), "__globals__", None)
    if names is None:
        names = vars(sys.modules.get(getattr(stage.function, "__module__", ""), sys))
    found = [each for each in list(names.values()) if isinstance(each, Stage)]
    return list(dict.fromkeys(found))


def stage(
    reads: Queue | str,
    writes: Targets = None,
    *,
    routes: Targets = None,
    retry_delays: tuple[float, ...] | None = None,
    concurrency: int = 1,
    prefetch: int | None = None,
    name: str | None = None,
    timeout: float | None = None,
    carry: Sequence[str] = (),
    batch: Batch | None = None,
    joins: Join | str | None = None,
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Bind a plain function to the queue it *reads* and the queue or queues it *writes*.

    The function gets the message's data, decoded to the annotated type of its first parameter, and
    returns the data to send to *writes* (see `mousetrap.worker.handler`). It may be `async def`.
    Each of several targets in *writes* gets every output (fan-out). *routes* names further targets,
    for outputs of the form ``Send(data, to=...)``:

        @stage(reads="visits", writes=["scored", "archive"], routes=["errors"])
        def score(visit: Visit) -> Iterator[Score | Send]:
            yield Send(visit, to="errors") if visit.status >= 500 else Score(...)

    *retry_delays* are the seconds between attempts (default: those of *reads*, if it is a `Queue`);
    *concurrency* is the number of messages that one worker handles at a time.

    *timeout* is the time limit of the function in seconds (default: none). A message that takes
    longer has failed: it is retried, and dead-lettered when its retries are used up. What the
    function returns later is dropped; a coroutine is cancelled (see `Worker`).

    Outputs get the correlation id of their message and its headers ``traceparent`` and
    ``tracestate``, also when it was retried or replayed. *carry* names further headers that they
    get: ``carry=["tenant"]``.

    With ``batch=Batch(100, within=2.0)`` the function gets a list of messages and returns None, or
    one element for each (see `Batch` and `mousetrap.worker.batch_handler`). Each has its own
    outcome: `FailedItems` fails those that it names; after any other error each is handled alone.

    *joins* names a stage: the function gets the list of all that came of one message (see `Join`).

    *name* (default: the function's) is the stage's identity: the ids of the outputs are computed
    from it. **Renaming a function gives its outputs other ids**, and a sink stores a result twice
    if its message is handled before and after. Then give the old name: ``name="fetch"``.

    Raises:
        SettingsError: a target, a retry delay or another option is not allowed.
        ValueError: *concurrency* or *prefetch* is out of range.
        TypeError: the function cannot take the data, or no JSON can become its type (`Handler`).
    """
    queue = with_delays(reads, retry_delays)
    if name is not None and not (isinstance(name, str) and name.strip() and name.isprintable()):
        raise SettingsError(f"the name {name!r} of a stage: use a word, mostly the function's")

    def bind(function: Callable[P, R]) -> Stage[P, R]:
        rest = (timeout, routes, carry, batch, joins)
        return Stage(function, queue, writes, concurrency, prefetch, name, *rest)

    return bind

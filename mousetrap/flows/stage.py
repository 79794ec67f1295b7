"""A stage: a plain function, with the queue it reads and the queue it writes.

Calling the stage calls the function, so it is tested and prototyped without a broker. Prototyped
in ``notebooks/04_stages.ipynb``.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from mousetrap.display.safe_text import safe
from mousetrap.model.message import Message, current_message
from mousetrap.model.topology import DEFAULT_RETRY_DELAYS, Queue
from mousetrap.runtime.signals import run_until_signalled
from mousetrap.settings import Settings
from mousetrap.worker.handler import Handler
from mousetrap.worker.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")


class Stage(Generic[P, R]):
    """What the `stage` decorator makes; see there."""

    def __init__(
        self,
        function: Callable[P, R],
        queue: Queue,
        writes: str | None,
        concurrency: int,
        prefetch: int | None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.handler = Handler(function)
        self.name = self.handler.name
        self.queue = queue
        self.writes = writes
        self.concurrency = concurrency
        self.prefetch = prefetch

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function; no broker is involved."""
        return self.function(*args, **kwargs)

    def handle(self, message: Message) -> list[Message]:
        """Do with *message* what a worker would, without a broker; return what would be sent on.

        Unlike a call, it decodes the body to the type that the function reads, and outputs get
        their ids.

        Raises:
            UndecodableMessage: the body is not what the function reads.
            Exception: whatever the function raises.
        """
        token = current_message.set(message)
        try:
            result = self.handler.function(*self.handler.arguments(message))
            if self.handler.is_async:
                result = _awaited(result)
            return self.handler.outputs(result, message) if self.writes is not None else []
        finally:
            current_message.reset(token)

    def worker(
        self,
        settings: Settings | None = None,
        *,
        concurrency: int | None = None,
        prefetch: int | None = None,
        retry_delays: tuple[float, ...] | None = None,
    ) -> Worker:
        """Return a worker for this stage, not started; what is given wins over the decorator's."""
        queue = self.queue if retry_delays is None else Queue(self.queue.name, retry_delays)
        return Worker(
            queue,
            self.handler,
            settings,
            writes=self.writes,
            concurrency=concurrency or self.concurrency,
            prefetch=prefetch or self.prefetch,
        )

    def start(self, settings: Settings | None = None, **options: Any) -> Worker:
        """Start a worker in the background and return it; *options* as for `worker`.

        Raises:
            BrokerUnreachable, AccessRefused, TopologyMismatch: it did not start.
        """
        return self.worker(settings, **options).start()

    def run(self, settings: Settings | None = None, **options: Any) -> None:
        """Work until SIGINT or SIGTERM, then finish what is in hand; see `run_until_signalled`."""
        run_until_signalled(self.worker(settings, **options))

    def __repr__(self) -> str:
        arrow = f" → {self.writes}" if self.writes else ""
        way = safe(f"{self.queue.name} → {self.name}{arrow}")
        return f"<Stage {way}, concurrency {self.concurrency}>"


def _awaited(coroutine: Any) -> Any:
    """Run *coroutine* to its end on a thread of its own: a notebook's has a loop already."""
    import asyncio  # not for those who never need it
    from concurrent.futures import ThreadPoolExecutor

    context = contextvars.copy_context()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(context.run, asyncio.run, coroutine).result()


def queue_of(target: Stage[..., Any] | Queue | str) -> Queue:
    """Return the queue that is meant: the one of that name, or that a stage reads."""
    if isinstance(target, Stage):
        return target.queue
    return Queue(target) if isinstance(target, str) else target


def stage(
    reads: Queue | str,
    writes: str | None = None,
    *,
    retry_delays: tuple[float, ...] = DEFAULT_RETRY_DELAYS,
    concurrency: int = 1,
    prefetch: int | None = None,
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """Bind a plain function to the queue it *reads* and the queue it *writes*.

    The function gets the message's data, decoded to the annotated type of its first parameter,
    and returns what to send on (see `mousetrap.worker.handler`); `async def` works too.
    *retry_delays* are the seconds between attempts; *concurrency* how many messages are
    handled at a time.

        @stage(reads="start_fetch", writes="data_processing", concurrency=4)
        def fetch(job: FetchJob = FetchJob()) -> list[Place]: ...

    Raises:
        SettingsError: a queue name or a delay that cannot work.
        TypeError: a function that cannot be called with one argument.
    """
    queue = Queue(reads, retry_delays) if isinstance(reads, str) else reads

    def bind(function: Callable[P, R]) -> Stage[P, R]:
        return Stage(function, queue, writes, concurrency, prefetch)

    return bind

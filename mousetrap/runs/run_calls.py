"""Requests to the stages of a run, whose ledger counts them as jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mousetrap.errors import SettingsError
from mousetrap.flows.call import CALL_TIMEOUT, answer_of, new_request, open_requests, queue_name
from mousetrap.runtime import clock

if TYPE_CHECKING:
    from mousetrap.flows.flow import Flow
    from mousetrap.flows.stage import Stage
    from mousetrap.model.ledger import Ledger
    from mousetrap.model.topology import Queue
    from mousetrap.settings import Settings


class RunCalls:
    """The part of `mousetrap.Run` that asks its stages and waits for their answers."""

    flow: Flow
    ledger: Ledger
    settings: Settings

    def call(
        self,
        data: Any = None,
        to: str | Queue | Stage[..., Any] | None = None,
        timeout: float = CALL_TIMEOUT,
    ) -> Any:
        """Send one job, by default to the flow's entry queue, and return the stage's answer.

        See `mousetrap.call`, also for the errors. The job counts like one that `send` has sent.

        Raises:
            SettingsError: no stage of the flow reads that queue, or *to* is not given, and the flow
                has several entry queues or none.
        """
        self._require_open()
        queue = self.flow.entry() if to is None else queue_name(to)
        if queue not in self.flow.reads:
            reads = ", ".join(self.flow.reads)
            raise SettingsError(f"no stage reads {queue!r} and could answer: one of {reads}")
        deadline = clock.monotonic() + timeout
        message = new_request(data, timeout, None)
        requests = open_requests(self.settings, timeout)

        def on_confirmed() -> None:  # before that it is no job: it may never have been sent
            body = message.readable_body
            kept = body if len(body) <= self.settings.keep_bodies else None
            self.ledger.sent(message.id, queue, at, kept)
            self.ledger.confirmed(message.id)

        at, name = clock.steady_time(), self.settings.topology.wire_name(queue)
        request = requests.request(message, name, deadline, on_confirmed=on_confirmed)
        return answer_of(requests, request, queue, clock.remaining(deadline), timeout)

    def _require_open(self) -> None:
        raise NotImplementedError

"""Everything that a notebook shows, with fixed data: what `test_surfaces` compares and measures."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import matplotlib
from matplotlib import pyplot

from mousetrap import Message, Messages, Settings, stage
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.table import Table
from mousetrap.flows.flow import Step
from mousetrap.flows.send import SendResult
from mousetrap.model.ledger import Ledger
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.model.outcome import Outcome, outputs_of
from mousetrap.model.topology import Queue
from mousetrap.notebook.panel import Panel
from mousetrap.notebook.stats_source import StageView, View, spent_now
from mousetrap.runs import plot
from mousetrap.runs.find_dead_letters import dead
from mousetrap.runs.run import Run
from mousetrap.runtime import clock
from mousetrap.worker.statistics import Statistics
from support.hostile_text import bundle

START = 1_700_000_000.0  # seconds since 1970
NOW = START + 90.0
AT = "2023-11-14 22:14:50"  # the local time is then that of any machine
JOBS = 700
LONG = "customer_archive_price_normalised"
REASONS = ("ValueError: no price for customer {}", "Reject: country 'XX' is unknown (row {})",
           "TimeoutError: the shop took 2.{} s")  # fmt: skip


@stage(reads="orders", writes="prices", retry_delays=(1, 5))
def price(order: str) -> float: ...


@stage(reads="prices", writes=(LONG, "mails"))
def invoice(price: float) -> str: ...


@stage(reads=LONG)
def archive_with_a_long_name(invoice: str) -> None: ...


@stage(reads="mails")
def mail(invoice: str) -> None: ...


FLOW = (price, invoice, archive_with_a_long_name, mail)


def fed_run() -> Run:
    """Return a run that seems to be open, whose ledger knows 700 jobs through four stages.

    Some are retried, some are dead, two are open.
    """
    run = Run(FLOW, Settings(namespace="visl-dc7ecf98"))
    feed(run.ledger)
    run._state = "open"
    return run


def feed(ledger: Ledger) -> None:
    for n in range(JOBS):
        id, at = _id(n), START + n * 0.01
        ledger.sent(id, "orders", at)
        ledger.confirmed(id)
        begun, attempt = at + 0.02 + (n % 40) * 0.004, 1
        if n in (310, 311):
            continue
        if n % 5 == 3:
            ledger.add([_outcome("retried", "price", "orders", id, begun, 0.02, 1, delay=1.0,
                                 reason=REASONS[0].format(n))], begun + 0.03)  # fmt: skip
            begun, attempt = begun + 1.03, 2
        if n % 13 == 4:
            reason = REASONS[n % 3].format(n)
            facts = {"reason": reason, "traceback": f"Traceback (most recent call last):\n{reason}"}
            ledger.add([_outcome("dead", "price", "orders", id, begun, 0.03, attempt, **facts)],
                       begun + 0.04)  # fmt: skip
            continue
        _done(ledger, id, begun, attempt)


def _id(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()[:32]


def _done(ledger: Ledger, id: str, begun: float, attempt: int) -> None:
    first = _outcome("done", "price", "orders", id, begun, 0.03, attempt, writes=["prices"])
    [made] = first.outputs
    at = begun + 0.09
    second = _outcome("done", "invoice", "prices", made.id, at, 0.012, 1, job=id, parent=id,
                      writes=[LONG, "mails"])  # fmt: skip
    stages = {LONG: "archive_with_a_long_name", "mails": "mail"}
    last = [
        _outcome("done", stages[each.queue], each.queue, each.id, at + 0.05, 0.004, 1, job=id,
                 parent=made.id)
        for each in second.outputs
    ]  # fmt: skip
    ledger.add([first, second, *last], at + 0.06)


def _outcome(
    kind: Any, stage: str, queue: str, id: str, begun: float, seconds: float, attempt: int,
    job: str = "", parent: str | None = None, writes: Sequence[str] = (), **facts: Any,
) -> Outcome:  # fmt: skip
    outputs = outputs_of(id, stage, writes)
    return Outcome(
        id, kind, stage, queue, "here:1", begun, seconds, attempt, job, parent, outputs, **facts
    )


def picture(draw: Callable[[], object]) -> dict[str, str]:
    """Return what a notebook shows of the figure that *draw* makes: a PNG, cut to its content."""
    matplotlib.use("agg")
    pyplot.close("all")
    draw()
    file = io.BytesIO()
    pyplot.gcf().savefig(file, format="png", bbox_inches="tight")  # as the inline backend does
    pyplot.close("all")
    return {"text/plain": "<Figure>", "image/png": base64.b64encode(file.getvalue()).decode()}


def sent(outcome: str) -> SendResult:
    """Return the result of sending three messages, each with *outcome*."""
    receipts = []
    for n in range(3):
        receipt = Receipt(Message(n, id=_id(n)), "orders", 0, None, 0.0, None)
        receipt.state, receipt.reason = outcome, "NO_ROUTE" if outcome == "returned" else ""
        receipts.append(receipt)
    return SendResult("orders", receipts, 0.0123)


STATISTICS = Statistics(
    state="open", received=1_234_567, done=1_230_000, retried=4_321, dead=12, in_progress=4,
    prefetched=16, prefetch=64, reconnects=1, alive=True, connected=True, consuming=True,
    problem="", oldest=1.234,
)  # fmt: skip


class FixedPanel(Panel):
    """A panel of one view, which does not change."""

    def __init__(self, view: View) -> None:
        super().__init__([])
        self.view = view

    def poll(self) -> list[View]:
        return [self.view]


def running_view() -> View:
    """Return what a panel knows of a run of two stages in its middle."""
    steps = [Step("price", "orders", ("prices",)), Step("invoice", "prices", ("invoices",))]
    rates = [tuple([0.0] * 52 + [20.0, 150, 190, 185, 201, 192, 190, 192]),
             tuple([0.0] * 53 + [90.0, 120, 131, 138, 130, 129, 131])]  # fmt: skip
    stages = (
        StageView(steps[0], 1_418, 207, 4, 192.0, rates[0], 61, 5, 64, 12, "0 s", 0.1, "open",
                  next_retry=0.4),
        StageView(steps[1], 967, 0, 0, 131.0, rates[1], 447, 4, 32, 0, "3 s", 0.1, "open"),
    )  # fmt: skip
    return View(
        "run visl-dc7ecf98", "RabbitMQ 4.3.6 on localhost:5672", "open", stages,
        {"invoices": 967}, "result", unit="job", jobs=JobCounts(1_500, 967, 529, 4),
        started=NOW - 7, left=4.0, spent=spent_now(stages),
        next=("run.settle()", "mousetrap.dead(run)"),
    )  # fmt: skip


def settled_view() -> View:
    """Return what a panel knows of the same run at its end."""
    running = running_view()
    ended = [
        dataclasses.replace(each, done=1_488, waiting=0, in_progress=0, waiting_retry=0, oldest="",
                            in_work=0.0, state="closed", dead=12 - 12 * n, retried=265 - 265 * n)
        for n, each in enumerate(running.stages)
    ]  # fmt: skip
    return dataclasses.replace(
        running, state="settled", stages=tuple(ended), queues={"invoices": 1_488},
        jobs=JobCounts(1_500, 1_488, 0, 12), started=NOW - 12.1, ended=NOW, left=None,
        next=("mousetrap.dead(run)", "run.plot()"),
    )  # fmt: skip


def troubled_view() -> View:
    """Return what a panel knows of a run whose second stage has no connection."""
    running = running_view()
    first, second = running.stages
    broken = dataclasses.replace(
        second, state="reconnecting", rate=0.0,
        problem="the connection to localhost:5672 broke; next try in 2 s",
    )  # fmt: skip
    stages = (first, broken)
    return dataclasses.replace(running, stages=stages, left=None, spent=spent_now(stages))


def surfaces() -> dict[str, dict[str, str]]:
    """Return, by name, the MIME bundle of each thing that a notebook shows; the clock stands."""
    with mock.patch.multiple(
        clock, time=lambda: NOW, steady_time=lambda: NOW, local_date_time=lambda _=None: AT
    ):
        run = fed_run()
        bundles = {name: bundle(value) for name, value in _shown(run).items()}
    bundles["plot"] = picture(lambda: plot.run(run.ledger))
    return {
        name: {mime: data.replace(run.namespace, "visl-dc7ecf98") for mime, data in each.items()}
        for name, each in bundles.items()
    }


def _shown(run: Run) -> dict[str, object]:
    messages = Messages(
        [Message({"city": "Tromsø", "n": n}, id=_id(n), sent=NOW - 60 * n) for n in range(30)],
        " in orders", "Given back: nothing was taken out of the queue.",
    )  # fmt: skip
    rows = [(f"stage_{n}", 1_234 * n, n / 7, None if n else "first") for n in range(25)]
    return {
        "table": Table(("stage", "done", "rate", "note"), rows, "25 stages", units={"rate": "1/s"}),
        "message": messages[3],
        "messages": messages,
        "dead_letters": dead(run),
        "messages_of_a_run": run.messages(),
        "summary": run.summary(),
        "settings": Settings(password="not shown", namespace="prod", heartbeat=20),
        "queue": Queue("orders", retry_delays=(1, 5)),
        "statistics": STATISTICS.table("price", [("reads", "orders"), ("writes", "prices")]),
        "sent": sent("confirmed"),
        "sent_failed": sent("returned"),
        "diagram": run.diagram(),
        "panel_running": FixedPanel(running_view()),
        "panel_settled": FixedPanel(settled_view()),
        "panel_troubled": FixedPanel(troubled_view()),
    }

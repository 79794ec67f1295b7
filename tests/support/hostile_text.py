"""Text that acts if it is taken for markup, and every object of the package that shows text."""

from __future__ import annotations

from mousetrap import Message, Messages, Recording, RunSummary, Settings, stage
from mousetrap.amqp.properties import AMQPProperties
from mousetrap.amqp.receipt import Receipt
from mousetrap.display.safe_text import SafeText
from mousetrap.display.table import Table
from mousetrap.flows.flow import Step
from mousetrap.flows.recording import RecordedMessage
from mousetrap.flows.send import SendResult
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.model.outcome import Outcome, Output
from mousetrap.model.summary import StageSummary
from mousetrap.model.topology import Queue
from mousetrap.notebook.panel import Panel
from mousetrap.notebook.stats_source import StageView, View
from mousetrap.runs.dead_letter_list import DeadLetterList, ReplayResult
from mousetrap.runs.diagram import Diagram
from mousetrap.runs.find_dead_letters import dead
from mousetrap.runs.run import Run
from mousetrap.runtime import clock

PASSWORD = "c4n4ry/p@ss word"  # must not appear in any text, in any encoding

PAYLOADS = [
    # elements and attributes that act
    "<script>alert(1)</script>", "<ScRiPt src=//evil></sCrIpT>", "</script><script>alert(1)",
    "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<svg><script>alert(1)</script></svg>",
    "<body onload=alert(1)>", "<iframe src=javascript:alert(1)>", "<object data=//evil>",
    "<embed src=//evil>", "<link rel=stylesheet href=//evil>", "<style>*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=//evil'>", "<base href=//evil>",
    "<form action=//evil><input autofocus onfocus=alert(1)></form>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)></video>", "<a href=javascript:alert(1)>x</a>",
    "<math><mtext><img src=x onerror=alert(1)></math>", "<template><script>alert(1)</script>",
    # markup that leaves the element or attribute that it is in
    '"><script>alert(1)</script>', "'><script>alert(1)</script>", "' onmouseover='alert(1)",
    '" onmouseover="alert(1)', "</td></tr></table><script>alert(1)</script>",
    "</text></svg><script>alert(1)</script>", "</title><script>alert(1)</script>", "]]><x/>",
    "<!-- --><script>alert(1)</script>", "<![CDATA[<script>alert(1)</script>]]>",
    "</pre></div><img src=x onerror=alert(1)>", "</textarea><script>alert(1)</script>",
    "&lt;script&gt;alert(1)&lt;/script&gt;", "&#60;script&#62;", "&", "<", "<!doctype html>",
    # markdown and formulas
    "[x](javascript:alert(1))", "![x](//evil/x.png)", "**bold** `code` # head",
    "$\\href{javascript:alert(1)}{x}$", "$$\\unicode{x3c}script$$", "\\(x^2\\) \\[y\\]",
    # templates
    "{{constructor.constructor('alert(1)')()}}", "${alert(1)}", "{0.__class__} %s %(x)s",
    # terminals
    "\x1b[31mred\x1b[0m", "\x1b]8;;http://evil\x07x\x1b]8;;\x07", "\x1b[2J\x1b[H",
    "\x9b31m \x9d0;x\x07",
    "\x00 \x07 \x08 \x0b \x0c \x7f", "over\rwritten", "one\nline\r\nmore\ttabs", "\x85\u2028\u2029",
    # text that looks like other text
    "\u202egnp.exe", "\u2066x\u2069 \u200e\u200f\u061c", "\ufeff\u200b", "\ufffe\uffff",
    "\ud800 \udfff", "e\u0301" * 50, "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    # very long text
    "x" * 20_000, "<b>" * 3000, "\x1b" * 3000, "&" * 5000, "\u202e" * 3000, "\n" * 3000,
]  # fmt: skip
HARMLESS = "quite harmless"


def hostile_message(text: str) -> Message:
    headers = {"mousetrap-reason": text, "mousetrap-traceback": f"Traceback\n{text}", text: text,
               "mousetrap-died": 1_790_000_000}  # fmt: skip
    body = text.encode("utf-8", "surrogatepass")
    message = Message.from_wire(
        body, AMQPProperties(message_id=short_string(text), headers=headers, timestamp=2**63)
    )
    message.parent, message.job = text, f"job {text}"
    return message


def short_string(text: str) -> str:
    """Return as much of *text* as fits an id: AMQP's short strings are UTF-8 of up to 255 bytes."""
    return text.encode("utf-8", "replace")[:240].decode("utf-8", "ignore")


def hostile_run(text: str) -> Run:
    """Return a run whose outcomes have *text* wherever a forged event could have it."""

    @stage(reads="words", writes="shares")
    def share(word: str) -> float: ...

    run = Run(share, Settings(password=PASSWORD), keep_bodies=1_000_000)
    body = text.encode("utf-8", "surrogatepass")
    facts = {"queue": "words", "begun": 1.0, "seconds": 0.1, "reason": text, "traceback": text}
    run.ledger.sent(f"{short_string(text)}1", "words", 1.0, body)
    one, two, three = (f"{short_string(text)}{n}" for n in (1, 2, 3))
    run.ledger.add([
        Outcome(id=one, kind="dead", stage=text, worker=text, body=body, job=f"job {text}",
                **facts),
        Outcome(id=two, kind="retried", stage=text, worker=text, parent=text, delay=1, **facts),
        Outcome(id=three, kind="done", stage="share", worker=text, queue="words", begun=1,
             seconds=1, outputs=(Output(text, text, body),)),
    ], 2.0)  # fmt: skip
    return run


def hostile_receipt(text: str, outcome: str) -> Receipt:
    message = hostile_message(text)
    receipt = Receipt(message, text, 0, None, 0.0, None)
    receipt.state, receipt.reason = outcome, text
    return receipt


def hostile_view(text: str, lost: str = "") -> View:
    steps = [Step(text, f"in {text}", (text,)), Step(f"2 {text}", text)]
    stages = tuple(
        StageView(step, 1, 2, 3, 4.5, (1, 2), 6, 7, 8, 9, text, 12.0, text, text, 1.0)
        for step in steps
    )
    return View(
        text,
        text,
        text,
        stages,
        {text: 1},
        text,
        (text, text),
        reconnects=(text,),
        spent={text: 2.0, "next": 1.0},
        next=(text, text),
        jobs=JobCounts(9, 3, 2, 4),
        started=1.0,
        ended=2.0,
        left=3.0,
        lost=lost,
    )


class HostilePanel(Panel):
    """A panel of nine views, each full of *text*."""

    def __init__(self, text: str) -> None:
        super().__init__([])
        self.text = text

    def poll(self) -> list[View]:
        return [hostile_view(self.text), *[hostile_view(self.text, self.text)] * 8]


def shown(text: str) -> dict[str, object]:
    """Return everything that displays itself, with *text* wherever text of others can be."""
    run, message = hostile_run(text), hostile_message(text)
    dead_letters = DeadLetterList(
        [message], {message.id: Queue("words")}, Settings(password=PASSWORD), title=text, note=text
    )
    records = {
        text: StageSummary(1, 2, 3, {"p50": 1.0}, {"p50": 1.0}),
        "other": StageSummary(1, 2, 3, {}, {"p50": 0.1}),
    }
    sent = SendResult(text, [hostile_receipt(text, "returned")], 1.0)
    tables = {
        "table": Table((text, "b"), [(text, 1), (None, text)] * 15, text, text),
        "text": SafeText(text),
        "message": message,
        "messages": Messages([message], text, text),
        "bodies": Messages([message], text, text).bodies(),
        "typed bodies": Messages([message], text).bodies(str),
        "dead letters": dead_letters,
        "kinds of dead letters": dead_letters.kinds(),
        "each dead letter": dead_letters.table(),
        "bodies of dead letters": dead_letters.bodies(int),
        "traceback": dead_letters.traceback(dead_letters[0].id),
        "replayed": ReplayResult([text], {text: text}),
        "sent": sent,
        "summary": RunSummary(1, 1, 1, 0, 0, 0, 0, 1.0, {}, {text: 1}, records),
        "summary of a run": run.summary(),
        "run": run,
        "messages of a run": run.messages(),
        "diagram of a run": run.diagram(),
        "dead of a run": dead(run),
        "died": run._settlement.message_died(),
        "not settled": run._settlement.not_settled(1.0, clock.monotonic()),  # asks no broker
        "settings": Settings(password=PASSWORD),
        "recording": Recording([RecordedMessage(text, text, text, reason=text)]).differences(
            Recording([RecordedMessage(text, text, text, outcome="done", reason=text)])
        ),
        "diagram": Diagram([Step(text, f"in {text}", (text,))], records, {text: 1}),
    }  # fmt: skip
    for outcome in ("waiting", "confirmed", "returned", "refused", "unknown"):
        receipt = hostile_receipt(text, outcome)
        tables[f"receipt {outcome}"] = receipt
        tables[f"error {outcome}"] = receipt.error
    return tables | {"panel": HostilePanel(text)}


def bundles(text: str) -> dict[str, dict[str, str]]:
    return {name: bundle(value) for name, value in shown(text).items()}


def bundle(value) -> dict[str, str]:
    """Return what IPython would take from *value*: text, HTML, SVG."""
    if isinstance(value, Panel):
        return value.render(value.poll(), end="")  # as it is while updates follow
    found = {"text/plain": str(value) if isinstance(value, Exception) else repr(value)}
    if hasattr(value, "_repr_html_"):
        found["text/html"] = value._repr_html_()
    if hasattr(value, "_repr_mimebundle_"):
        found |= {k: v for k, v in value._repr_mimebundle_().items() if isinstance(v, str)}
    return found

"""Dead letters as a list: see why they died, edit them, replay them, turn them into tests.

The list holds copies; no queue changes before `DeadLetterList.replay`. Prototyped in
``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mousetrap.display.formats import age, counted, size
from mousetrap.display.next_calls import call_of, html_of, name_of, text_of
from mousetrap.display.safe_text import NO_FORMULAS, SafeText, safe
from mousetrap.display.table import Table
from mousetrap.errors import MousetrapError, SettingsError
from mousetrap.flows.dead_letters import attach_replayed, send_back
from mousetrap.flows.flow import reference
from mousetrap.flows.recording import test_module
from mousetrap.flows.stage import Stage
from mousetrap.model.dead_letter_kinds import kinds_of, kinds_table, shown_kinds
from mousetrap.model.decoding import decode
from mousetrap.model.error_kinds import NO_REASON
from mousetrap.model.message import Message
from mousetrap.model.message_list import Messages
from mousetrap.model.topology import Queue
from mousetrap.runs.edited_messages import edited, editor
from mousetrap.runs.next_calls import settings_argument
from mousetrap.runs.run import Run
from mousetrap.settings import Settings

HOW_TO_KEEP = (
    "Bodies are kept by run(..., keep_bodies=100_000); while the run is open, "
    "dead(stage, settings=run.settings) reads them from the dead queue."
)
MAX_REPLAYS = 5  # of one dead letter; a guess: another replay without a correction will not help


@dataclass(frozen=True)
class ReplayResult:
    """The ids of the dead letters that were sent back, and why others stay."""

    sent: list[str]
    kept: dict[str, str] = field(default_factory=dict)  # id -> reason; not those beyond the limit

    def __len__(self) -> int:
        return len(self.sent)

    def __repr__(self) -> str:
        lines = [f"{len(self.sent):,} sent back"]
        for why in dict.fromkeys(self.kept.values()):
            ids = [id for id, reason in self.kept.items() if reason == why]
            names = ", ".join(id[:8] for id in ids[:5]) + " ..." * (len(ids) > 5)
            lines.append(safe(f"{len(ids):,} stay, {why}: {names}"))
        return "\n".join(lines)


class DeadLetterList(Messages):
    """A list of dead letters, shown by kind of error and without their bodies.

    Methods take an id, or the first characters of one. `edit` returns a new list with edited copies
    and does not change this one.

    Threads: one.
    """

    def __init__(
        self,
        messages: Iterable[Message],
        queues: Mapping[str, Queue],
        settings: Settings,
        *,
        stages: Iterable[Stage[..., Any]] = (),
        run: Run | None = None,
        without_body: Collection[str] = (),
        title: str = "",
        note: str = "",
    ) -> None:
        super().__init__(messages, title, note)
        self._queues = queues  # message id -> the queue where it died
        self._settings = settings
        self._stages = {stage.queue.name: stage for stage in stages}
        self._run = run
        self._without_body = frozenset(without_body)  # ids of messages whose body was not kept

    # ---- looking at them -------------------------------------------------------------------------

    def kinds(self) -> Table:
        """Return one row for each kind of error: how many, attempts, first and last, an example.

        Reasons that differ only in numbers, ids, quoted values, addresses and paths are of one
        kind (see `mousetrap.model.error_kinds`).
        """
        return kinds_table(self, self._taken, self.title, self.note)

    def where(self, text: str) -> DeadLetterList:
        """Return a list of the messages whose reason contains *text*: ``where("KeyError")``."""
        found = self._with([each for each in self if text in (each.reason or NO_REASON)])
        found.title = f" with {text!r} among the {len(self):,}{self.title}"
        return found

    def table(self) -> Table:
        """Return one row for each message, without columns that are the same in all rows.

        `size` is in bytes, `died` in seconds before this list was made.
        """
        columns: dict[str, Callable[[Message], Any]] = {
            "message": lambda each: each.id[:8],
            "queue": lambda each: self._queues[each.id].name,
            "reason": lambda each: each.reason or NO_REASON,
            "attempts": lambda each: each.attempt,
            "died": lambda each: self._died(each),
            "size": lambda each: None if each.id in self._without_body else len(each.body),
            "replayed": lambda each: each.replayed or None,
            "edited": lambda each: "yes" if each.is_edited else None,
        }
        for name in ("replayed", "edited"):
            if not any(map(columns[name], self)):
                del columns[name]
        if all(each.id in self._without_body for each in self):
            del columns["size"]
        if len({queue.name for queue in self._queues.values()}) < 2:
            del columns["queue"]
        rows = [tuple(value(each) for value in columns.values()) for each in self]
        title = counted(len(self), "dead letter") + self.title
        shows = {"size": size, "died": lambda seconds: f"{age(seconds)} ago",
                 "replayed": lambda times: f"{times}×"}  # fmt: skip
        return Table(tuple(columns), rows, title, self.note, shows=shows, wrapped="reason")

    def __repr__(self) -> str:
        if not self:
            return safe(f"no dead letters{self.title}")
        table = shown_kinds(self, self._taken, self.title, self.note)
        return f"{table!r}\n{text_of(self._next())}"

    def _repr_html_(self) -> str:
        if not self:
            return f"<div class='{NO_FORMULAS}'>{html.escape(repr(self))}</div>"
        table = shown_kinds(self, self._taken, self.title, self.note)
        calls = html_of(self._next())
        return f"<div class='{NO_FORMULAS}'>{table._repr_html_()}<div>{calls}</div></div>"

    def _next(self) -> list[str]:
        """Return what a person would call next on this list, by its name or as ``letters``."""
        first, *others = kinds_of(self)
        calls = [f"traceback({self[first.members[0]].id[:8]!r})"]
        calls += [f"where({first.error!r})"] if others and first.error else []
        calls += ["bodies()"] if len(self._without_body) < len(self) else []
        calls += ["replay()"] if self._run is None or self._run.state == "open" else []
        name = name_of(self, "")
        before = [] if name else [f"letters = {self._call()}"]
        return [*before, *(f"{name or 'letters'}.{each}" for each in [*calls, "table()"])]

    def _call(self) -> str:
        """Return the call that makes this list, as far as it is known here."""
        if self._run is not None:
            return call_of("dead", name_of(self._run, "run"))
        names = list({queue.name for queue in self._queues.values()})
        queue = repr(names[0]) if len(names) == 1 else "…"
        return call_of("dead", f"{queue}{settings_argument(self._settings)}")

    def bodies(self, type: Any = None) -> Table:
        """Return one row for each with its body, truncated; decoded to *type*, if one is given."""
        table = super().bodies(type)
        rows = [tuple(row.values()) for row in table]
        for n, each in enumerate(self):
            if each.id in self._without_body:
                rows[n] = (rows[n][0], None, "not kept")
        note = HOW_TO_KEEP if self._without_body else ""
        return Table(table.columns, rows, table.title, note, shows={"size": size}, wrapped="body")

    def traceback(self, id: str) -> SafeText:
        """Return the traceback of the exception that the handler raised for this message."""
        return SafeText(self.dead_letter(id).traceback or "this dead letter has no traceback")

    def body(self, id: str, type: Any = None) -> Any:
        """Return the data of one message, decoded to *type* if one is given.

        If the body cannot be decoded, return its bytes.

        Raises:
            SettingsError: the body was not kept.
        """
        message = self.dead_letter(id)
        self._check_bodies([message])
        try:
            return message.data if type is None else decode(message.content, type)
        except ValueError:
            return message.body

    def dead_letter(self, id: str) -> Message:
        """Return the message whose id begins with *id*.

        Raises:
            SettingsError: there is none, or more than one.
        """
        found = self._selected([id])
        if len({each.id for each in found}) > 1:
            raise SettingsError(f"{id!r} begins the ids of {len(found)} dead letters: give more")
        return found[0]

    # ---- editing and replaying -------------------------------------------------------------------

    def edit(
        self, function: Callable[[Any], Any], ids: str | Collection[str] | None = None
    ) -> DeadLetterList:
        """Return a new list in which *function* has replaced the data of each message.

        *function* takes the data and returns the new data. As with a stage, the data is decoded to
        the annotated type of its parameter; with the annotation `Message` it gets the whole
        message, which helps if the body is not JSON. A message keeps its id and is marked as
        edited. Nothing is sent.

        Raises:
            MousetrapError: *function* raised an exception or returned None; names the message.
            SettingsError: there is no such message, or its body was not kept.
            TypeError: *function* needs more than one argument.
        """
        handler = editor(function)
        chosen = {each.id: each for each in self._selected(ids)}
        self._check_bodies(chosen.values())
        return self._with([edited(each, handler) if each.id in chosen else each for each in self])

    def replay(
        self,
        ids: str | Collection[str] | None = None,
        limit: int | None = None,
        *,
        cap: int = MAX_REPLAYS,
    ) -> ReplayResult:
        """Send dead letters of this list back to the queue where they died, as first attempts.

        At most *limit* messages, and only those of *ids* if given. A message that was replayed
        *cap* times stays. An edited message is sent as it is in this list. A dead letter is removed
        from its dead queue when the broker has confirmed the copy; a header of the copy counts the
        replays.

        Raises:
            PublishError: the broker did not confirm a copy; its dead letter stays.
            QueueMissing, MousetrapError: the dead queue does not exist, or the run has ended.
            ``replayed`` of each exception has the ids that were sent back before.
        """
        if self._run is not None and self._run.state != "open":
            raise MousetrapError(
                "this run has ended, and its queues with it: send the messages to another run with "
                "run.send_many(dead_letters), if the run kept their bodies (keep_bodies=100_000)"
            )
        waiting = {each.id: each for each in self._selected(ids)}
        again = {id: each.replayed for id, each in waiting.items() if each.replayed >= cap}
        kept = {id: f"replayed {n} times already (cap={cap})" for id, n in again.items()}
        waiting = {id: each for id, each in waiting.items() if id not in kept}
        sent: list[str] = []
        for queue in {self._queues[id].name: self._queues[id] for id in waiting}.values():
            left = None if limit is None else limit - len(sent)
            ours = {id: each for id, each in waiting.items() if self._queues[id] == queue}
            try:
                self._send_back(queue, ours, left, sent)
            except BaseException as error:
                attach_replayed(error, sent)
                raise
        if limit is None or len(sent) < limit:
            kept |= dict.fromkeys(waiting.keys() - set(sent), "no longer in the dead queue")
        return ReplayResult(sent, kept)

    def _send_back(
        self, queue: Queue, ours: dict[str, Message], limit: int | None, sent: list[str]
    ) -> None:
        def pick(found: Message) -> Message | None:
            listed = ours.get(found.id)
            # a listed message as the dead queue has it, unless it was edited in the list
            return found if listed is not None and not listed.is_edited else listed

        def on_replayed(copy: Message) -> None:
            sent.append(copy.id)
            if self._run is not None:
                self._run.ledger.replayed(copy.id)

        send_back(queue, pick, limit=limit, settings=self._settings, on_replayed=on_replayed)

    # ---- testing ---------------------------------------------------------------------------------

    def to_test(
        self,
        path: str | Path,
        ids: str | Collection[str] | None = None,
        *,
        stage: Stage[..., Any] | str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a module with a pytest test for each message, its body included; return its path.

        A test calls *stage* with the message, without a broker, and passes if it does not raise.
        *stage*, or ``"module:name"``, says where the test finds the function; it may be left out if
        this list was made from a stage or a run.

        Raises:
            SettingsError: the file exists; a body was not kept; no test can import the stage.
        """
        messages = self._selected(ids)
        self._check_bodies(messages)
        where = stage or self._only_stage(messages)
        module, _, name = (_reference(where) if isinstance(where, Stage) else where).partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), name]):
            raise SettingsError(f"stage is {where!r}: give the stage, or 'module:name'")
        path, text = Path(path), test_module(messages, module, name)
        try:
            with path.open("w" if overwrite else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise SettingsError(f"{path} exists: give another path, or overwrite=True") from None
        return path

    # ---- inside ----------------------------------------------------------------------------------

    def _with(self, messages: list[Message]) -> DeadLetterList:
        return DeadLetterList(
            messages, self._queues, self._settings, stages=self._stages.values(), run=self._run,
            without_body=self._without_body, title=self.title, note=self.note,
        )  # fmt: skip

    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        return self._with(found) if isinstance(index, slice) else found

    def _selected(self, ids: str | Collection[str] | None) -> list[Message]:
        if ids is None:
            return list(self)
        wanted = [ids] if isinstance(ids, str) else list(ids)
        for id in wanted:
            if not id:
                raise SettingsError("an id is empty: leave ids out to select all dead letters")
            if not any(each.id.startswith(id) for each in self):
                raise SettingsError(
                    f"no dead letter in this list begins with {id[:40]!r}: .table() shows their ids"
                )
        return [each for each in self if each.id.startswith(tuple(wanted))]

    def _check_bodies(self, messages: Iterable[Message]) -> None:
        if missing := sum(each.id in self._without_body for each in messages):
            raise SettingsError(f"{missing:,} bodies were not kept. {HOW_TO_KEEP}")

    def _only_stage(self, messages: list[Message]) -> Stage[..., Any]:
        names = {self._queues[each.id].name for each in messages}
        found = [stage for name, stage in self._stages.items() if name in names]
        if len(names) > 1 or len(found) != 1:
            raise SettingsError("it is not clear which stage to test: give stage=...")
        return found[0]

    def _died(self, message: Message) -> float | None:
        return None if message.dead_since is None else message.age_at(self._taken)


def _reference(stage: Stage[..., Any]) -> str:
    try:
        return reference(stage)
    except SettingsError:
        raise SettingsError(
            f"stage {stage.name} exists only in this notebook, where no test can import it: put it "
            f"into a module and give its name, stage='my_flow:{stage.name}'"
        ) from None

"""A bench for dead letters: see why they died, mend them, send them back, make tests of them.

The list holds copies; no queue changes before `DeadLetterList.replay`. Prototyped in
``notebooks/08_watching.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mousetrap.display.safe_text import SafeText, safe
from mousetrap.display.table import Table, age
from mousetrap.errors import MousetrapError, QueueMissing, SettingsError
from mousetrap.flows.dead_letters import dead_letters, send_back
from mousetrap.flows.flow import reference
from mousetrap.flows.recording import test_module
from mousetrap.flows.stage import Stage, queue_of
from mousetrap.job_queue import depth
from mousetrap.model.ledger import LedgerEntry
from mousetrap.model.message import (
    DEAD_SINCE,
    EDITED,
    ORIGIN,
    REASON,
    TRACEBACK,
    Message,
    decode,
    encode,
)
from mousetrap.model.message_list import Messages
from mousetrap.model.topology import Queue
from mousetrap.runs.run import Run
from mousetrap.settings import Settings
from mousetrap.worker.handler import Handler

SHOWN = 100  # letters that are laid on the bench unless more are asked for
CAP = 5  # replays of one letter; a guess: what died five times wants another remedy


@dataclass(frozen=True)
class Replayed:
    """What a replay did: ids of the letters that went back, and why each other one stayed."""

    sent: list[str]
    kept: dict[str, str] = field(default_factory=dict)

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
    """Dead letters: a list of messages, shown as a table without their bodies.

    Ids are named by their beginning. `edit` returns a bench with mended copies and leaves this
    one as it is.

    Threads: one.
    """

    def __init__(
        self,
        letters: Iterable[Message],
        places: Mapping[str, Queue],
        settings: Settings,
        *,
        stages: Iterable[Stage[..., Any]] = (),
        run: Run | None = None,
        unkept: Collection[str] = (),
        title: str = "",
        note: str = "",
    ) -> None:
        super().__init__(letters, title, note)
        self._places = places  # id -> the queue it died in
        self._settings = settings
        self._stages = {stage.queue.name: stage for stage in stages}
        self._run = run
        self._unkept = frozenset(unkept)  # ids of those whose body nobody remembers

    # ---- seeing ----------------------------------------------------------------------------------

    def table(self) -> Table:
        """One row for each letter: which, why, how often tried, how long ago, how large."""
        shown: dict[str, Callable[[Message], Any]] = {
            "message": lambda each: each.id[:8],
            "queue": lambda each: self._places[each.id].name,
            "reason": lambda each: each.reason or "no reason given",
            "attempts": lambda each: each.attempt,
            "died": lambda each: self._died(each),
            "size": lambda each: None if each.id in self._unkept else f"{len(each.body):,} B",
            "replayed": lambda each: f"{each.replayed}×" if each.replayed else None,
            "edited": lambda each: "yes" if each.is_edited else None,
        }
        if len({queue.name for queue in self._places.values()}) < 2:
            del shown["queue"]
        for name in ("replayed", "edited"):
            if not any(getattr(each, name) for each in self):
                del shown[name]
        rows = [tuple(show(each) for show in shown.values()) for each in self]
        return Table(tuple(shown), rows, f"{len(self):,} dead letters{self.title}", self.note)

    def bodies(self, type: Any = None) -> Table:
        """One row for each letter with its body, cut short; decoded to *type*, if one is given."""
        table = super().bodies(type)
        rows = [
            (row["message"], None, "not kept") if each.id in self._unkept else tuple(row.values())
            for row, each in zip(table, self, strict=True)
        ]
        return Table(table.columns, rows, table.title, self._how_to_keep() if self._unkept else "")

    def traceback(self, id: str) -> SafeText:
        """Where in its handler the letter died."""
        return SafeText(self.letter(id).traceback or "no traceback was told")

    def body(self, id: str, type: Any = None) -> Any:
        """The data of one letter, decoded to *type* if one is given; bytes if that cannot be.

        Raises:
            SettingsError: the body was not kept.
        """
        letter = self.letter(id)
        self._check_kept([letter])
        try:
            return letter.data if type is None else decode(letter.body, type)
        except ValueError:
            return letter.body

    def letter(self, id: str) -> Message:
        """The letter whose id begins with *id*.

        Raises:
            SettingsError: there is none, or more than one.
        """
        found = self._chosen([id])
        if len({each.id for each in found}) > 1:
            raise SettingsError(f"{len(found)} letters begin with {id!r}: give more of the id")
        return found[0]

    # ---- mending ---------------------------------------------------------------------------------

    def edit(
        self, function: Callable[[Any], Any], ids: str | Collection[str] | None = None
    ) -> DeadLetterList:
        """Return a bench where *function* has mended the data of each letter: data in, data out.

        As with a stage, the data is decoded to the annotated type of its parameter; annotated
        `Message`, it gets the letter itself, which helps where the body is not JSON. A letter
        keeps its id and is marked as edited. Nothing is sent.

        Raises:
            MousetrapError: *function* failed with a letter, which is named, or returned None.
            SettingsError: there is no such letter, or its body was not kept.
        """
        handler = _handler(function)
        chosen = {each.id: each for each in self._chosen(ids)}
        self._check_kept(chosen.values())
        mended = [_mended(each, handler) if each.id in chosen else each for each in self]
        return self._with(mended)

    def replay(
        self,
        ids: str | Collection[str] | None = None,
        limit: int | None = None,
        *,
        cap: int = CAP,
    ) -> Replayed:
        """Send letters of this bench back to the queue where they died, as first attempts.

        At most *limit*, only those of *ids* if given, and none that was replayed *cap* times: those
        stay. What was edited goes as it is on the bench. A letter leaves its dead queue when the
        broker has confirmed the copy, which says in a header how often it was replayed.

        Raises:
            PublishError: a copy did not verifiably arrive; its letter stays.
            QueueMissing, MousetrapError: the dead queue is gone; the run has ended.
        """
        if self._run is not None and self._run.state != "open":
            raise MousetrapError(
                "this run has ended, and its queues with it: send the letters to another run, "
                "run.send_many(letters)"
            )
        waiting = {each.id: each for each in self._chosen(ids)}
        kept = {
            id: f"replayed {each.replayed} times already (cap={cap})"
            for id, each in waiting.items()
            if each.replayed >= cap
        }
        for id in kept:
            del waiting[id]
        sent: list[str] = []
        for queue in {self._places[id].name: self._places[id] for id in waiting}.values():
            rest = None if limit is None else limit - len(sent)
            ours = {id: each for id, each in waiting.items() if self._places[id] == queue}
            sent += self._send_back(queue, ours, rest)
        if limit is None or len(sent) < limit:
            kept |= dict.fromkeys(waiting.keys() - set(sent), "no longer in the dead queue")
        return Replayed(sent, kept)

    def _send_back(self, queue: Queue, ours: dict[str, Message], limit: int | None) -> list[str]:
        sent: list[str] = []

        def pick(letter: Message) -> Message | None:
            mine = ours.get(letter.id)
            # a letter's own bytes and headers, unless they were edited here
            return letter if mine is not None and not mine.is_edited else mine

        def on_replayed(copy: Message) -> None:
            sent.append(copy.id)
            if self._run is not None:
                self._run.ledger.replayed(copy.id)

        send_back(queue, pick, limit=limit, settings=self._settings, on_replayed=on_replayed)
        return sent

    # ---- testing ---------------------------------------------------------------------------------

    def to_test(
        self,
        path: str | Path,
        ids: str | Collection[str] | None = None,
        *,
        stage: Stage[..., Any] | str | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a module with a pytest case for each letter, its body in it; return its path.

        The test calls *stage* on the letter, without a broker, and passes when it no longer raises.
        *stage*, or ``"module:name"``, is where the test finds the function; it need not be said if
        the bench was made of a stage or a run.

        Raises:
            SettingsError: the file exists; a body was not kept; the stage lives in a notebook.
        """
        letters = self._chosen(ids)
        self._check_kept(letters)
        where = stage or self._only_stage(letters)
        module, _, name = (_address(where) if isinstance(where, Stage) else where).partition(":")
        if not all(part.isidentifier() for part in [*module.split("."), name]):
            raise SettingsError(f"stage is {where!r}: give the stage, or 'module:name'")
        path = Path(path)
        try:
            with path.open("w" if overwrite else "x", encoding="utf-8") as file:
                file.write(test_module(letters, module, name))
        except FileExistsError:
            raise SettingsError(f"{path} exists: give another path, or overwrite=True") from None
        return path

    # ---- inside ----------------------------------------------------------------------------------

    def _with(self, letters: list[Message]) -> DeadLetterList:
        return DeadLetterList(
            letters, self._places, self._settings, stages=self._stages.values(), run=self._run,
            unkept=self._unkept, title=self.title, note=self.note,
        )  # fmt: skip

    def __getitem__(self, index: Any) -> Any:
        found = list.__getitem__(self, index)
        return self._with(found) if isinstance(index, slice) else found

    def _chosen(self, ids: str | Collection[str] | None) -> list[Message]:
        if ids is None:
            return list(self)
        wanted = [ids] if isinstance(ids, str) else list(ids)
        for id in wanted:
            if not id:
                raise SettingsError("an id is empty: leave ids out to mean all letters")
            if not any(each.id.startswith(id) for each in self):
                raise SettingsError(f"no letter on this bench begins with {id[:40]!r}")
        return [each for each in self if each.id.startswith(tuple(wanted))]

    def _check_kept(self, letters: Iterable[Message]) -> None:
        if missing := sum(each.id in self._unkept for each in letters):
            raise SettingsError(f"{missing:,} bodies were not kept. {self._how_to_keep()}")

    def _how_to_keep(self) -> str:
        return (
            "Bodies are remembered by run(..., keep_bodies=100_000); while the run is open, "
            "dead(stage, settings=run.settings) reads them from the dead queue."
        )

    def _only_stage(self, letters: list[Message]) -> Stage[..., Any]:
        names = {self._places[each.id].name for each in letters}
        found = [stage for name, stage in self._stages.items() if name in names]
        if len(names) > 1 or len(found) != 1:
            raise SettingsError("say which stage the test is to call: stage=...")
        return found[0]

    def _died(self, letter: Message) -> str | None:
        seconds = letter.age_at(self._taken)
        return None if seconds is None or letter.dead_since is None else f"{age(seconds)} ago"


def dead(
    source: Queue | Stage[..., Any] | str | Run, n: int = SHOWN, settings: Settings | None = None
) -> DeadLetterList:
    """Lay up to *n* dead letters on the bench: of a queue, of what a stage reads, or of a run.

    In a queue they are looked at and given back (see `mousetrap.peek`). Of a run the bench shows
    what its ledger knows, and no queue is touched; that works after the run has ended, too.

    Raises:
        QueueMissing: nothing has been set up for this queue yet.
    """
    if isinstance(source, Run):
        return _of_run(source, n)
    settings = settings or Settings.from_environment()
    queue = queue_of(source)
    try:
        letters = dead_letters(queue, n, settings)
    except QueueMissing:
        raise QueueMissing(
            f"there is no queue {queue.dead!r}: nothing of ours has read {queue.name!r} yet; look "
            f"at another queue with mousetrap.peek"
        ) from None
    total = depth(queue.dead, settings).messages if len(letters) == n else len(letters)
    return DeadLetterList(
        letters,
        {each.id: queue for each in letters},
        settings,
        stages=[source] if isinstance(source, Stage) else (),
        title=f" of {queue.name}" if total <= n else f" of {queue.name}, the first of {total:,}",
        note=letters.note if letters else "",
    )


def _of_run(run: Run, n: int) -> DeadLetterList:
    entries = [each for each in run.ledger.entries() if each.is_dead]
    queues = {queue.name: queue for queue in run.queues}
    known = [each for each in entries if each.queue in queues][:n]
    return DeadLetterList(
        [_letter(run, each) for each in known],
        {each.id: queues[each.queue] for each in known},
        run.settings,
        stages=run.flow.stages,
        run=run,
        unkept=[each.id for each in known if each.body is None],
        title=f" of {run.namespace}"
        + (f", the first of {len(entries):,}" if len(entries) > n else ""),
    )


def _letter(run: Run, entry: LedgerEntry) -> Message:
    """What the dead queue holds of it, as the ledger remembers it."""
    outcome = entry.outcome
    assert outcome is not None  # it is dead, so it has one
    headers = {
        REASON: outcome.reason, TRACEBACK: outcome.traceback, ORIGIN: entry.queue,
        DEAD_SINCE: int(run.ledger.time(outcome, outcome.ended)),
    }  # fmt: skip
    sent = run.ledger.queued_at(entry)
    return Message(
        id=entry.id, body=entry.body or b"", attempt=outcome.attempt, parent=entry.parent,
        job=entry.job or None, headers=headers, sent=None if sent is None else int(sent),
    )  # fmt: skip


def _handler(function: Callable[[Any], Any]) -> Handler:
    try:
        return Handler(function)
    except ValueError:  # `str`, `abs` and their like do not tell what they take
        return Handler(lambda data: function(data), getattr(function, "__name__", None))


def _address(stage: Stage[..., Any]) -> str:
    try:
        return reference(stage)
    except SettingsError:
        raise SettingsError(
            f"stage {stage.name} lives in this notebook, where no test finds it: put it into a "
            f"module and say where, stage='my_flow:{stage.name}'"
        ) from None


def _mended(letter: Message, handler: Handler) -> Message:
    try:
        data = handler.function(*handler.arguments(letter))
        body = encode(data)
    except Exception as error:
        raise MousetrapError(
            f"{handler.name} failed with letter {letter.short_id}: {type(error).__name__}; nothing "
            f"was edited: mend it, or choose the letters by ids=..."
        ) from error
    if data is None and letter.body:
        raise MousetrapError(
            f"{handler.name} returned nothing for letter {letter.short_id}: let it return the data "
            f"to send; nothing was edited"
        )
    return letter.copy(letter.attempt, {**letter.headers, EDITED: True}, body)

"""A flow: stages that are connected by the queues they read and write.

Nothing here connects to a broker. Prototyped in ``notebooks/07_runs.ipynb``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple

from mousetrap.errors import SettingsError
from mousetrap.flows.edges import edges, routed
from mousetrap.flows.flow_checks import FlowFinding, check
from mousetrap.flows.joins import check_joins
from mousetrap.flows.known_queues import check_queues, known_queues
from mousetrap.flows.stage import Stage
from mousetrap.model.exchanges import Exchange
from mousetrap.model.targets import OutputTargets
from mousetrap.model.topology import Queue


class Step(NamedTuple):
    """The name of a stage, and the queues that it reads and writes: what a picture shows.

    *exchanges* are those that it sends to, and *routed* the queues of *writes* that get a message
    only by one of them. *bound* are the exchanges to which the queue that it reads is bound.
    *routes* are the queues of *writes* that get only what a `Send` names them for. *shape* says
    what is special about the stage: ``"batch of 100"``, ``"join of split"``.
    """

    name: str
    reads: str
    writes: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    routed: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    shape: str = ""

    @property
    def path(self) -> str:
        """The step as a text: ``raw → parse → visits, archive``."""
        return f"{self.reads} → {self.name}" + f" → {', '.join(self.writes)}" * bool(self.writes)


class Flow:
    """A flow of *stages*: a list of stages, a single stage, or a module that contains stages.

    It is checked when it is made: `mousetrap.flows.flow_checks` has the rules. `findings` has what
    was found and is no error.

    Raises:
        SettingsError: there is no stage, something is not a stage, two have the same name, or two
            read the same queue: a message goes to one reader of a queue only. Or a rule of the
            checks is an error, as when no value that one stage sends can be decoded by the next.
    """

    def __init__(
        self, stages: Flow | Stage[..., Any] | Iterable[Stage[..., Any]] | ModuleType
    ) -> None:
        self.stages: list[Stage[..., Any]] = _list_of(stages)
        for each in self.stages:
            if not isinstance(each, Stage):
                name = getattr(each, "__name__", type(each).__name__)
                raise SettingsError(
                    f"{name} is not a stage: decorate it with @stage(reads=..., writes=...)"
                )
        names = [each.name for each in self.stages]
        if not names:
            raise SettingsError("a flow needs at least one stage: functions decorated with @stage")
        if len(set(names)) < len(names):
            raise SettingsError(f"two stages of {', '.join(names)} have the same name: rename one")
        self._check_exchanges()
        for queue in self.reads:
            readers = [each.name for each in self.stages if each.queue.name == queue]
            if len(readers) > 1:
                raise SettingsError(_several_readers(queue, readers))
        check_queues(self.stages)
        self.findings: tuple[FlowFinding, ...] = (
            stages.findings if isinstance(stages, Flow) else check(self.stages)
        )
        check_joins(self.stages)

    @property
    def steps(self) -> list[Step]:
        """The stages as steps."""
        found = edges(self.stages)
        steps = []
        for stage in self.stages:
            own = [each for each in found if each.writer is stage]
            plain = {each.queue for each in own if not each.is_route}
            queues = dict.fromkeys(each.queue for each in own)
            step = step_of(stage.name, stage.queue, stage.targets, queues)
            routes = tuple(each for each in queues if each not in plain)
            steps.append(step._replace(routes=routes, shape=_shape(stage)))
        return steps

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges that stages write, or to which the queues that they read are bound."""
        written = [each for stage in self.stages for each in stage.targets.exchanges]
        bound = [each.exchange for stage in self.stages for each in stage.queue.bindings]
        return list(dict.fromkeys([*written, *bound]))

    @property
    def known_queues(self) -> dict[str, Queue]:
        """The queues that have arguments or exist already, by their names."""
        return known_queues(self.stages)

    def routed(self, exchange: str, key: str) -> list[str]:
        """Return the queues of this flow that *exchange* passes a message with *key* to."""
        return routed(self.stages, exchange, key)

    def _check_exchanges(self) -> None:
        types: dict[str, str] = {}
        for each in self.exchanges:
            if types.setdefault(each.name, each.type) != each.type:
                raise SettingsError(
                    f"exchange {each.name!r} has the types {types[each.name]} and {each.type}: "
                    f"use one `Exchange` in all stages"
                )

    @property
    def reads(self) -> list[str]:
        """The queues that stages read."""
        return list(dict.fromkeys(each.queue.name for each in self.stages))

    @property
    def collects(self) -> list[str]:
        """The queues from which joins collect."""
        return [each.queue.join for each in self.stages if each.queue.join]

    @property
    def writes(self) -> list[str]:
        """The queues that stages write."""
        return list(dict.fromkeys(name for each in self.steps for name in each.writes))

    @property
    def entries(self) -> list[str]:
        """The entry queues, where jobs are sent: queues that a stage reads and none writes."""
        return [name for name in self.reads if name not in self.writes]

    @property
    def results(self) -> list[str]:
        """The result queues: queues that a stage writes and none reads."""
        return [name for name in self.writes if name not in self.reads]

    def entry(self) -> str:
        """Return the only entry queue.

        Raises:
            SettingsError: there are several entry queues, or none because the stages form a circle.
        """
        if len(self.entries) != 1:
            choice = ", ".join(self.entries or self.reads)
            raise SettingsError(f"say which queue to send to (to=...): one of {choice}")
        return self.entries[0]

    def __repr__(self) -> str:
        return f"<Flow {'; '.join(repr(each)[7:-1] for each in self.stages)}>"


def step_of(name: str, queue: Queue, targets: OutputTargets, writes: Iterable[str]) -> Step:
    """Return the step of the stage *name*, whose outputs may get into the queues *writes*."""
    names = tuple(writes)
    return Step(
        name, queue.name, names,
        tuple(each.name for each in targets.exchanges),
        tuple(each for each in names if each not in targets.queues),
        tuple(dict.fromkeys(each.exchange.name for each in queue.bindings)),
    )  # fmt: skip


def _shape(stage: Stage[..., Any]) -> str:
    if stage.joins is not None:
        return f"join of {stage.joins.stage}"
    return f"batch of {stage.batch.size:,}" if stage.batch is not None else ""


def _several_readers(queue: str, readers: list[str]) -> str:
    return (
        f"stages {' and '.join(readers)} read the same queue {queue!r}, so each message would go "
        f"to only one of them. For fan-out, where each gets every message, give each stage a queue "
        f"of its own and name both in writes=[...] of the stage before them; to share the work, "
        f"use one stage with a higher concurrency or more processes"
    )


def reference(stage: Stage[..., Any]) -> str:
    """Return ``module:attribute``, by which another process imports *stage*.

    Raises:
        SettingsError: the stage was defined in a notebook or inside a function, so another process
            cannot import it.
    """
    name = stage.function.__module__
    module = importlib.import_module(name)
    attribute = next((key for key, value in vars(module).items() if value is stage), None)
    if name == "__main__" or attribute is None:
        raise SettingsError(
            f"stage {stage.name} cannot run in another process, because only this process has it: "
            f"put it into a module, or run it on threads (workers='threads')"
        )
    return f"{name}:{attribute}"


def _list_of(stages: Any) -> list[Stage[..., Any]]:
    if isinstance(stages, Flow):
        return stages.stages
    if isinstance(stages, Stage):
        return [stages]
    if isinstance(stages, ModuleType):
        found = [value for value in vars(stages).values() if isinstance(value, Stage)]
        return list(dict.fromkeys(found))  # a stage may have several names in the module
    return list(stages)

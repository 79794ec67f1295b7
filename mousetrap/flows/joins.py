"""Which queues lead from a stage to the one that joins what it makes, and what is refused.

A worker of the stage that a join names puts these queues into the header of its outputs; the stages
on the way need to know nothing (`mousetrap.model.join_headers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from mousetrap.errors import SettingsError
from mousetrap.model.exchanges import Exchange
from mousetrap.model.join_groups import Join
from mousetrap.model.join_headers import JoinPoint
from mousetrap.model.targets import OutputTargets
from mousetrap.model.topology import Queue


class AnyStage(Protocol):
    """What is needed of a `Stage` here."""

    function: Callable[..., Any]
    name: str
    queue: Queue
    targets: OutputTargets
    joins: Join | None

    def joined_by(self) -> list[JoinPoint]:
        """Return the joins in the module of its function that name this stage."""


def join_points(stage: AnyStage, stages: Iterable[AnyStage]) -> list[JoinPoint]:
    """Return the joins among *stages* that name *stage*.

    Raises:
        SettingsError: none of *stages* leads from *stage* to such a join.
    """
    known = list(stages)
    found = []
    for join in _joins(known):
        if join.joins is not None and join.joins.stage == stage.name and join is not stage:
            ways = _ways(stage, join, known)
            found.append(JoinPoint(join.queue.join, join.queue.name, tuple(sorted(ways))))
    return found


def check_joins(stages: Sequence[AnyStage]) -> None:
    """Check that each join of a flow gets all that it waits for, and nothing else.

    Raises:
        SettingsError: it does not; the text says what to change.
    """
    for join in _joins(stages):
        split = _split(join, stages)
        ways = _ways(split, join, stages)
        for feeder in stages:
            is_on_the_way = feeder is split or feeder.queue.name in ways
            if join.queue.name in feeder.targets.queues and not is_on_the_way:
                raise SettingsError(
                    f"{feeder.name} writes to {join.queue.name!r}, which {join.name} joins for "
                    f"{split.name}, but does not come after {split.name}: its messages belong to "
                    f"no group; write them to a queue of their own"
                )
        _check_around(split, join, ways, stages)


def check_importable(stages: Sequence[AnyStage]) -> None:
    """Check that the module of each stage shows which joins wait for what it makes.

    Raises:
        SettingsError: a worker in another process, which imports that module, would not know it.
    """
    for stage in stages:
        if wanted := join_points(stage, stages):
            try:
                known = stage.joined_by()
            except SettingsError:
                known = []
            if missing := [each for each in wanted if each not in known]:
                raise SettingsError(
                    f"a process that works {stage.name} would not know that its messages are "
                    f"joined from {missing[0].reads!r}: define the join, and the stages on the way "
                    f"to it, in the module {stage.function.__module__}, or import them there"
                )


def _check_around(
    split: AnyStage, join: AnyStage, ways: set[str], stages: Sequence[AnyStage]
) -> None:
    """Check that each other join is wholly inside of *join*, or wholly outside."""
    for other in _joins(stages):
        if other is join:
            continue
        other_split = _split(other, stages)
        inside = _ways(other_split, other, stages)
        begins = other_split.queue.name in ways
        ends = other.queue.name in ways
        leaves_inside = join.queue.name in _forward(inside, stages, without=other)
        overlaps = begins and not ends and bool(inside & ways)
        if (ends and not begins) or overlaps or (begins and ends and leaves_inside):
            raise SettingsError(
                f"the joins {join.name} (of {split.name}) and {other.name} (of "
                f"{other_split.name}) overlap: everything between {other_split.name} and "
                f"{other.name} must go through {other.name} before it comes to {join.name}"
            )


def _joins(stages: Iterable[AnyStage]) -> Iterator[AnyStage]:
    return (each for each in stages if each.joins is not None)


def _split(join: AnyStage, stages: Iterable[AnyStage]) -> AnyStage:
    name = "" if join.joins is None else join.joins.stage
    found = next((each for each in stages if each.name == name and each is not join), None)
    if found is None:
        names = ", ".join(each.name for each in stages if each is not join) or "none"
        raise SettingsError(
            f"{join.name} joins what {name!r} makes, which is no other stage of this flow (there "
            f"are: {names}): name the stage that makes several messages of one"
        )
    return found


def _ways(split: AnyStage, join: AnyStage, stages: Sequence[AnyStage]) -> set[str]:
    """Return the queues that lead from *split* to *join*, the one that it reads among them.

    Raises:
        SettingsError: there are none, or they lead back to *split*, or through an exchange.
    """
    reached = _forward(split.targets.queues, stages, without=join)
    leading = {join.queue.name}
    while (
        more := {
            each.queue.name
            for each in stages
            if each is not join and leading & _written(each, stages)
        }
        - leading
    ):
        leading |= more
    for each in stages:
        if each is split or each.queue.name in reached:
            for target in each.targets.all:
                if not isinstance(target, str) and leading & _bound(target, stages):
                    raise SettingsError(
                        f"{each.name} writes to the exchange {target}, which leads to the join "
                        f"{join.name} of {split.name}: only queues can, because an exchange does "
                        f"not say how many copies it makes; write to a queue there"
                    )
    if join.queue.name not in reached:
        raise SettingsError(
            f"{join.name} joins what {split.name} makes, but no stage that is known leads from "
            f"{split.name} to {join.queue.name!r}: correct `joins`, `writes` or `reads`, or "
            f"import the stages between them into the module of {split.name}"
        )
    if split.queue.name in reached & leading:
        raise SettingsError(
            f"what {split.name} makes comes back to {split.name} before {join.name} joins it: "
            f"give the messages that go round a stage of their own"
        )
    return reached & leading


def _forward(queues: Iterable[str], stages: Sequence[AnyStage], *, without: AnyStage) -> set[str]:
    """Return *queues*, and those to which stages pass on what comes to them, but not *without*."""
    reached = set(queues)
    while (
        more := {
            name
            for each in stages
            if each is not without and each.queue.name in reached
            for name in each.targets.queues
        }
        - reached
    ):
        reached |= more
    return reached


def _written(stage: AnyStage, stages: Sequence[AnyStage]) -> set[str]:
    found = set(stage.targets.queues)
    return found.union(*(_bound(e, stages) for e in stage.targets.all if not isinstance(e, str)))


def _bound(target: Any, stages: Sequence[AnyStage]) -> set[str]:
    """Return the queues of *stages* that are bound to the exchange of *target*, by any key."""
    exchange = target if isinstance(target, Exchange) else target.exchange
    return {
        each.queue.name for each in stages
        if any(binding.exchange == exchange for binding in each.queue.bindings)
    }  # fmt: skip

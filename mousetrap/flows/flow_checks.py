"""Checks a flow when it is made. These are the rules:

======= ====================================================================================
level   what is found
======= ====================================================================================
error   two stages read one queue, or have one name; an exchange has two types (see `Flow`)
error   no value that a stage sends, to a queue, by an exchange or by a route, can be decoded
        by the stage that reads it
error   a stage returns `Send`, and names no target
error   a join waits for a stage that is not there or does not lead to it, or gets other messages
        as well (see `mousetrap.flows.joins`)
warning some values that a stage sends cannot be decoded by the stage that reads them
warning messages go round for ever: each stage of a circle always returns a value to the next
warning a stage reads a queue that none writes, and one writes a queue of nearly that name
warning a stage sends with a key that matches no binding, and a binding that no key matches
        has nearly that key
hint    stages form a circle, and no annotation says where it ends
hint    no queue of the flow is bound by a key with which a stage sends
hint    a queue is bound, to an exchange that stages write, by a key that none of them has
hint    a stage names a route, and its annotation has no `Send`
hint    a stage names a target and returns None, or returns a value and names no target
======= ====================================================================================

All of these are right: several stages to which only jobs are sent, a queue that no stage reads (its
messages are results), a circle through a route, through an iterator or through a stage that may
return None, and an exchange that other programs write or read.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from types import NoneType

from mousetrap.display.safe_text import safe
from mousetrap.errors import SettingsError
from mousetrap.flows.connected_types import check_types, is_send, members, plain_type, type_name
from mousetrap.flows.edges import AnyStage, Edge, bound_to, edges, exchange_of
from mousetrap.flows.finding import FlowFinding as FlowFinding  # re-exported for the flow
from mousetrap.flows.near_names import is_near
from mousetrap.model.exchanges import RoutingKey


def check(stages: Sequence[AnyStage]) -> tuple[FlowFinding, ...]:
    """Check the flow of *stages*: warn of what may be wrong, and return all findings but errors.

    Raises:
        SettingsError: a finding is an error.
    """
    found = tuple(dict.fromkeys(findings(stages)))
    for each in found:
        if each.level == "error":
            raise SettingsError(safe(each.text))
    for each in found:
        if each.level == "warning":
            warnings.warn(safe(each.text), stacklevel=_levels_to_caller())
    return found


def findings(stages: Sequence[AnyStage]) -> Iterator[FlowFinding]:
    """Yield all that the rules of this module find."""
    connected = edges(stages)
    yield from check_types(connected)
    for stage in stages:
        yield from _check_outputs(stage)
    yield from _check_circles(stages, connected)
    yield from _check_queues(stages, connected)
    yield from _check_keys(stages)


# ---- what a stage sends, and the targets that it names -------------------------------------------


def _check_outputs(stage: AnyStage) -> Iterator[FlowFinding]:
    targets, written = stage.targets, members(stage.handler.output_type)
    has_send = any(map(is_send, written))
    returns_none = stage.handler.returned_type in (None, NoneType)
    if has_send and not targets.all:
        yield FlowFinding(
            "error",
            f"{stage.name} returns Send, and names no target: name each one in writes=[...] or "
            f"routes=[...]",
        )
    if returns_none and targets.all:
        yield FlowFinding(
            "hint", f"{stage.name} returns None, so nothing but mousetrap.send goes to "
            f"{targets.names}",
        )  # fmt: skip
    elif stage.handler.returns_a_value and not targets.all and not has_send:
        yield FlowFinding(
            "hint",
            f"{stage.name} returns {type_name(plain_type(stage))}, which is dropped: it names no "
            f"target in writes",
        )
    elif targets.routes and not has_send and stage.handler.returns_a_value is not None:
        routes = ", ".join(map(str, targets.routes))
        yield FlowFinding(
            "hint",
            f"{stage.name} names the route {routes}, and its annotation has no Send: only a Send "
            f"goes to a route, as in Iterator[Score | Send]",
        )


# ---- circles -------------------------------------------------------------------------------------


def _check_circles(stages: Sequence[AnyStage], connected: Sequence[Edge]) -> Iterator[FlowFinding]:
    """Find the circles of plain outputs: each message is passed on by every stage of the circle."""
    always = {each.name: _passes_on(each) for each in stages}
    for is_certain in (True, False):
        ahead: dict[str, list[str]] = {each.name: [] for each in stages}
        for each in connected:
            answer = always[each.writer.name]
            is_edge = answer and each.is_certain if is_certain else answer is not False
            if each.reader is not None and not each.is_route and is_edge:
                ahead[each.writer.name].append(each.reader.name)
        if circle := _circle(ahead):
            path = " → ".join([*circle, circle[0]])
            yield (
                FlowFinding("warning", _endless(path))
                if is_certain
                else FlowFinding(
                    "hint",
                    f"messages go round: {path}; it ends where a stage returns None (say so in its "
                    f"annotation: -> int | None) or raises",
                )
            )
            return


def _endless(path: str) -> str:
    return (
        f"messages go round for ever: {path}, because each of these stages always returns a value "
        f"to the next one, so a run never settles. Let one of them return None at the end (-> int "
        f"| None), or send the message back by a route (routes=[...] and Send)"
    )


def _passes_on(stage: AnyStage) -> bool | None:
    """Return whether each message makes a plain output of *stage*; None: it is not known."""
    if any(map(is_send, members(stage.handler.output_type))):
        return False
    return stage.handler.returns_a_value


def _circle(ahead: dict[str, list[str]]) -> list[str]:
    """Return the names on one circle of the graph *ahead*; empty if there is none."""
    done: set[str] = set()
    for start in ahead:
        path: list[str] = []
        rest = [iter([start])]
        while rest:
            name = next(rest[-1], None)
            if name is None:
                rest.pop()
                if path:
                    done.add(path.pop())
            elif name in path:
                return path[path.index(name) :]
            elif name not in done:
                path.append(name)
                rest.append(iter(ahead[name]))
    return []


# ---- queues and exchanges that lead nowhere ------------------------------------------------------


def _check_queues(stages: Sequence[AnyStage], connected: Sequence[Edge]) -> Iterator[FlowFinding]:
    """Find a queue that is misspelt: nobody writes the one, and nobody reads the other."""
    written = {each.queue for each in connected}
    entries = [e for e in stages if e.queue.name not in written and not e.queue.bindings]
    for stage in entries if len(entries) > 1 else ():  # the only entry is where jobs are sent
        for each in connected:
            if each.reader is None and is_near(stage.queue.name, each.queue):
                yield FlowFinding(
                    "warning",
                    f"no stage writes to {stage.queue.name!r}, which {stage.name} reads, and no "
                    f"stage reads {each.queue!r}, which {each.writer.name} writes: use one name, "
                    f"or names that differ more",
                )


def _check_keys(stages: Sequence[AnyStage]) -> Iterator[FlowFinding]:
    """Compare the keys with which stages send to an exchange with the bindings of the queues."""
    for exchange in dict.fromkeys(e for stage in stages for e in stage.targets.exchanges):
        bindings = [
            (stage, each) for stage in stages for each in stage.queue.bindings
            if each.exchange == exchange
        ]  # fmt: skip
        sent = [
            (stage, target) for stage in stages for target in stage.targets.all
            if exchange_of(target) == exchange
        ]  # fmt: skip
        if not bound_to(stages, exchange):
            names = ", ".join(dict.fromkeys(stage.name for stage, _ in sent))
            yield FlowFinding(
                "hint",
                f"no queue of the flow is bound to the exchange {exchange.name!r}, to which {names}"
                f" sends: where no other program has bound one, messages wait in their queue until "
                f"there is one; in a run they are results",
            )
        elif exchange.type != "fanout":
            yield from _unmatched(sent, bindings)


def _unmatched(
    sent: Sequence[tuple[AnyStage, object]], bindings: Sequence[tuple[AnyStage, RoutingKey]]
) -> Iterator[FlowFinding]:
    fixed = [(s, each) for s, each in sent if isinstance(each, RoutingKey) and each.is_fixed]
    lost = [
        (stage, each) for stage, each in fixed
        if not any(binding.matches(str(each.key)) for _, binding in bindings)
    ]  # fmt: skip
    idle = [
        (stage, each) for stage, each in bindings
        if len(fixed) == len(sent) and not any(each.matches(str(key.key)) for _, key in fixed)
    ]  # fmt: skip
    near = [
        (writer, key, reader, binding) for writer, key in lost for reader, binding in idle
        if _is_near_key(str(binding.key), str(key.key))
    ]  # fmt: skip
    for writer, key, reader, binding in near:
        yield FlowFinding(
            "warning",
            f"{writer.name} sends to {key}, which matches no binding of the flow, and nothing "
            f"matches {binding}, by which {reader.queue.name!r} is bound: correct one of the keys",
        )
    for writer, key in lost:
        if not any(key is one for _, one, _, _ in near):
            yield FlowFinding(
                "hint",
                f"{writer.name} sends to {key}, which matches no binding of the flow: where no "
                f"other program has bound a queue for it, messages wait in their queue",
            )
    for reader, binding in idle:
        if not any(binding is one for *_, one in near):
            yield FlowFinding(
                "hint",
                f"{reader.queue.name!r} is bound by {binding}, and no stage sends with such a key: "
                f"{reader.name} gets what other programs send",
            )


def _is_near_key(pattern: str, key: str) -> bool:
    """Return whether *key* would match but for words that are nearly those of *pattern*."""
    one, other = pattern.split("."), key.split(".")
    return len(one) == len(other) and all(
        a in ("*", "#", b) or is_near(a, b) for a, b in zip(one, other, strict=True)
    )


def _levels_to_caller() -> int:
    """Return the stack level of the code outside of this package that makes the flow."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__package__", "") in _PACKAGES:
        frame, level = frame.f_back, level + 1
    return level


_PACKAGES = ("mousetrap.flows", "mousetrap.runs", "mousetrap.cli")

"""Faults of definition: functions, types and flows that cannot work are refused, or work."""

from __future__ import annotations

import gc
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pydantic
import pytest
from rig.trial import trial_counts
from support.callables import AWAITED, KNOWN_ASYNC, REFUSED, TAKES, take_seen
from support.messages import QUICK, send

import mousetrap
from mousetrap import Worker, consume, stage
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow
from mousetrap.job_queue import drain


@dataclass
class Left:
    n: int


@dataclass
class Right:
    n: int


class Model(pydantic.BaseModel, arbitrary_types_allowed=True):
    lock: threading.Event


@dataclass
class Order:
    buyer: Model


UNDECODABLE = [Model, list[Model], Order, Left | Right, Callable[[int], int], complex, "Missing"]


WAYS = {
    "stage": lambda function, _: stage(reads="work", writes="out")(function),
    "Worker": lambda function, settings: Worker(QUICK, function, settings),
    "consume": lambda function, settings: consume("work", function, settings),
    "swap": lambda function, settings: Worker(QUICK, len, settings).swap(function),
}


def count(fault_row, lost, number):
    fault_row.trials += 1
    fault_row.messages += number
    fault_row.lost += lost
    assert not lost


@pytest.mark.fault("F46")
@trial_counts(1, 20)
def test_callable_that_takes_the_data(settings, fault_row, times):
    """Every kind of callable gets each message's data, exactly; none is acked without it."""
    with Worker(QUICK, print, settings, writes="out") as worker:
        for n in range(times):
            missed = []
            for name, function in TAKES.items():
                worker.swap(function)
                take_seen()
                done = worker.statistics().done
                send(settings, n)
                worker.wait_until(done=done + 1, timeout=20)
                if take_seen() != [n]:
                    missed.append(name)
            assert missed == []
            count(fault_row, len(missed), len(TAKES))


@pytest.mark.fault("F46")
@trial_counts(1, 20)
@pytest.mark.parametrize("is_known", [True, False], ids=["known before", "known by a call"])
def test_callable_that_returns_something_to_await(settings, fault_row, times, is_known):
    """Its value is sent on, and Python warns of no coroutine that was never awaited."""
    functions = [each for name, each in AWAITED.items() if (name in KNOWN_ASYNC) is is_known]
    with (
        warnings.catch_warnings(record=True) as caught,
        Worker(QUICK, functions[0], settings, writes="out", concurrency=2) as worker,
    ):
        warnings.simplefilter("always")
        for _ in range(times):
            for n, function in enumerate(functions):
                worker.swap(function)
                done = worker.statistics().done
                send(settings, n)
                worker.wait_until(done=done + 1, timeout=20)
            results = sorted(each.data for each in drain("out", settings=settings))
            assert results == [2 * n for n in range(len(functions))]
            count(fault_row, len(functions) - len(results), len(functions))
    gc.collect()

    assert [each for each in caught if "never awaited" in str(each.message)] == []


@pytest.mark.fault("F46")
@trial_counts(1, 20)
@pytest.mark.parametrize("way", WAYS)
def test_callable_that_cannot_take_the_data(settings, fault_row, times, way):
    """It is refused where it is defined, before a message can be acked without its data."""
    for _ in range(times):
        accepted = []
        for name, (function, reason) in REFUSED.items():
            try:
                WAYS[way](function, settings)
            except TypeError as error:
                if re.search(reason, str(error)):
                    continue
            accepted.append(name)
        assert accepted == []
        count(fault_row, len(accepted), len(REFUSED))


@pytest.mark.fault("F46")
@trial_counts(1, 20)
@pytest.mark.parametrize("way", WAYS)
def test_type_that_no_body_can_become(settings, fault_row, times, way):
    """It is refused where the function is defined, and no message is dead-lettered for it."""
    for _ in range(times):
        for type in UNDECODABLE:

            def of_type(data):
                return data

            of_type.__annotations__["data"] = type
            with pytest.raises(TypeError, match=r"of_type cannot handle messages: .* data"):
                WAYS[way](of_type, settings)
        count(fault_row, 0, len(UNDECODABLE))


@pytest.mark.fault("F46")
@trial_counts(1, 20)
def test_two_stages_that_read_one_queue(settings, fault_row, times):
    """They are no flow: each message would reach one of the two."""

    @stage(reads="work", writes="out")
    def left(n: int) -> int:
        return n

    @stage(reads="work", writes="other")
    def right(n: int) -> int:
        return n

    for _ in range(times):
        for make in (Flow, lambda stages: mousetrap.run(stages, settings)):
            with pytest.raises(SettingsError, match="fan-out"):
                make([left, right])
        count(fault_row, 0, 2)

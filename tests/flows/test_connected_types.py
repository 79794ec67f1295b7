"""A flow compares the types of its stages when it is made."""

from __future__ import annotations

import functools
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from mousetrap import Batch, Exchange, Message, Queue, Send, stage
from mousetrap.errors import SettingsError
from mousetrap.flows.flow import Flow
from mousetrap.worker.signature import output_type


@dataclass
class Visit:
    url: str


class Scored(pydantic.BaseModel):
    url: str
    score: float


def flow_of(returns: Any, takes: Any, **options: Any) -> Flow:
    def parse(line: str) -> None: ...
    def score(visit: Any) -> None: ...

    parse.__annotations__["return"] = returns
    score.__annotations__["visit"] = takes
    targets = {"writes": "visits", "routes": "other"} | options
    return Flow([stage(reads="lines", **targets)(parse), stage("visits")(score)])


@pytest.mark.parametrize(
    "returns", [Visit, Visit | None, Iterator[Visit], "AsyncIterator[Visit | Send]", Visit | int]
)
def test_flow_whose_types_never_fit_is_refused(returns):
    """The error names both stages, the queue, both types, and what is missing."""
    with pytest.raises(SettingsError) as caught:
        flow_of(returns, Scored)

    text = str(caught.value)
    assert text.startswith("what parse writes to 'visits' can never be decoded by score: ")
    assert "Visit has no 'score', which Scored needs (parse returns " in text or "int" in text
    assert "score takes Scored); change one of the two annotations" in text


@pytest.mark.parametrize(
    ("returns", "takes", "why"),
    [(float, int, "float is not int"), (Visit | int, Visit, "int is not Visit"),
     (list[int], list[str], "int is not str")],
)  # fmt: skip
def test_flow_whose_types_may_not_fit_warns(returns, takes, why):
    """Once, with both types; the flow can be used."""
    with pytest.warns(UserWarning, match=f"may not always be decoded by score: {why}") as caught:
        flow = flow_of(returns, takes)

    assert len(caught) == 1
    assert [each.name for each in Flow(flow).stages] == ["parse", "score"]


@pytest.mark.parametrize(
    ("returns", "takes"),
    [(Visit, Visit), (Scored, Visit), (Iterator[Visit], Visit), (Any, Scored), (None, Scored),
     (dict, Scored), (bytes, Scored), (Message, Scored), (Send, Scored), (Scored | Send, Scored),
     (Iterator[bytes | Send], Scored), (Iterable[Visit], Scored), (Visit, Any), (Visit, Message),
     ("Missing", Scored), (Visit, dict[str, str]), (Scored | Send[Visit], Scored)],
)  # fmt: skip
def test_flow_whose_types_fit_or_are_not_known_is_accepted(returns, takes):
    """Without a warning; bytes are a body that is ready."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow_of(returns, takes)


def test_a_queue_that_no_stage_reads_has_no_type():
    """Whatever is written there is a result."""
    assert flow_of(Visit, Scored, writes="elsewhere")


TO_TWO = {"writes": "other", "routes": ["visits", "third"]}
LEVELS = ["accepted", "warning", "error"]


@pytest.mark.parametrize(
    ("returns", "level"),
    [
        (Visit | Send, "accepted"),  # it may have any type
        (Visit, "accepted"),  # a plain output goes to `other`
        (Visit | Send[Scored], "accepted"),
        (Iterator[Visit | Send[Scored]], "accepted"),
        (Visit | Send[Visit] | Send[Scored], "accepted"),  # each to its own route
        (Visit | Send[Visit | Scored], "accepted"),
        (Visit | Send[bytes], "accepted"),
        (Visit | Send[Visit], "error"),
        (Iterator[Visit | Send[Visit] | Send[int]], "error"),
        (Visit | Send[Visit] | Send, "accepted"),
    ],
)
def test_types_of_a_route(returns, level):
    """A route gets nothing but Sends: an error says that none of their types fits its reader."""
    assert outcome_of(lambda: flow_of(returns, Scored, **TO_TWO)) == level


orders = Exchange("orders", "topic")


@pytest.mark.parametrize(
    ("writes", "returns", "level"),
    [
        (orders["a.b"], Scored, "accepted"),
        (orders["a.b"], Visit, "error"),
        (orders["a.b"], Visit | Scored, "warning"),
        (orders["x.y"], Visit, "accepted"),  # no queue of the flow gets it
        (orders[lambda _: "a.b"], Scored, "accepted"),
        (orders[lambda _: "a.b"], Visit, "warning"),  # the key may say otherwise
        (orders[lambda _: "a.b"], Visit | Scored, "accepted"),  # each with a key of its own
    ],
)
def test_types_that_go_through_an_exchange(writes, returns, level):
    """They are compared with those of the stages whose queues are bound by that key."""

    def parse(line: str) -> None: ...
    def score(visit: Scored) -> None: ...

    parse.__annotations__["return"] = returns
    bound = Queue("visits", bindings=[orders["a.*"]])
    stages = [stage("lines", writes)(parse), stage(bound)(score)]

    assert outcome_of(lambda: Flow(stages)) == level


def outcome_of(make: Callable[[], Flow]) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # of what other tests left unclosed
        try:
            make()
        except SettingsError as error:
            return "error" if "can never be decoded by score" in str(error) else str(error)
    assert all("may not always be decoded by score" in str(each.message) for each in caught)
    return LEVELS[len(caught)]


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return str(function(*args))

    return wrapper


def test_output_type_is_that_of_each_value_that_is_sent():
    """Any, where that is not certain."""

    def of(annotation: Any) -> Any:
        def function(data: Any) -> Any: ...

        function.__annotations__["return"] = annotation
        return output_type(function)

    async def coroutine(data: Any) -> int | None: ...
    def plain(data): ...

    assert of(int) is of(int | None) is of(Awaitable[int]) is of(Iterator[int]) is int
    assert of(Generator[int, None, str]) is of("AsyncIterator[int]") is int
    assert of(list[int]) == list[int]
    assert of(int | str | None) == int | str
    assert of(None) is of(Any) is of("Missing") is of("1 +") is of(Iterable[int]) is Any
    assert output_type(coroutine) is int
    assert output_type(plain) is output_type(_decorated(coroutine)) is output_type(print) is Any
    assert AsyncIterator


@pytest.mark.parametrize(
    ("returns", "sends", "always"),
    [
        (list[Visit], Visit, True), (Iterator[Visit], Visit, True),
        (list[Visit | None], Visit, False), (list[Visit] | None, Visit, False),
        (list[Iterator[Visit]], Visit, False), (None, Any, False), (list, Any, None),
        (Visit, Any, None), (list[Visit] | Iterator[Scored], Any, None),
    ],
    ids=str,
)  # fmt: skip
def test_output_type_of_a_batch_is_that_of_an_element(returns, sends, always):
    """It returns one element for each message: what a handler of one message returns."""

    def insert(visits: list[Visit]) -> None: ...

    insert.__annotations__["return"] = returns
    handler = stage("visits", batch=Batch(10))(insert).handler

    assert handler.output_type == sends
    assert handler.returns_a_value is always

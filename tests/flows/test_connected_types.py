"""A flow compares the types of its stages when it is made."""

from __future__ import annotations

import functools
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from mousetrap import Message, Send, stage
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
    writes = options.get("writes", "visits")
    return Flow(
        [stage(reads="lines", writes=writes, routes="other")(parse), stage("visits")(score)]
    )


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
     ("Missing", Scored), (Visit, dict[str, str])],
)  # fmt: skip
def test_flow_whose_types_fit_or_are_not_known_is_accepted(returns, takes):
    """Without a warning; bytes are a body that is ready."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow_of(returns, takes)


def test_only_plain_outputs_are_compared():
    """What goes to a route is what its `Send` has; a queue outside of the flow has no type."""
    assert flow_of(Visit, Scored, writes="elsewhere")


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

"""How the function of a batch is called, and what it may return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from mousetrap import Batch, FailedItems, Send, send, stage
from mousetrap.errors import MousetrapError, UndecodableMessage
from mousetrap.model.message import Message
from mousetrap.worker.batch_handler import BatchHandler
from mousetrap.worker.handler import Handler

BATCH = Batch(10)


@dataclass
class Score:
    n: int


def plain(scores: list[Score]) -> None: ...
def sequence(scores: Sequence[Score]) -> None: ...
def annotated(scores: Annotated[list[Score], "of a game"]) -> None: ...
def messages(messages: list[Message]) -> None: ...
def bare(values: list) -> None: ...
def untyped(values): ...
def default(scores: list[Score] = ()) -> None: ...
def variable(*lists: list[Score]) -> None: ...
async def later(scores: list[Score]) -> None: ...


@pytest.mark.parametrize(
    ("function", "type"),
    [
        (plain, Score), (sequence, Score), (annotated, Score), (messages, Message), (bare, Any),
        (untyped, Any), (default, Score), (variable, Score), (later, Score),
    ],
    ids=lambda each: getattr(each, "__name__", "Any"),
)  # fmt: skip
def test_handler_accepts_items_of_the_list(function, type):
    """The type of a message's data is that of the items."""
    handler = BatchHandler(function, BATCH)

    assert handler.accepts is type
    assert handler.is_async is (function is later)


def single(score: Score) -> None: ...
def one_tuple(scores: tuple[Score, ...]) -> None: ...
def no_parameter() -> None: ...
def two(scores: list[Score], other: int) -> None: ...
def no_json(scores: list[type]) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (single, r"with batch= it gets a list: annotate it list\[Score\]"),
        (one_tuple, "with batch= it gets a list"),
        (no_parameter, "no parameter for the list of messages"),
        (two, "give other a default"),
        (no_json, "no JSON value can become type"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_function_that_cannot_take_a_list_is_refused(function, words):
    """Where the stage is defined."""
    with pytest.raises(TypeError, match=words):
        stage(reads="work", batch=BATCH)(function)


def test_list_of_messages_without_a_batch_is_refused():
    """A plain handler never gets a list of them."""
    with pytest.raises(TypeError, match="cannot handle messages"):
        Handler(messages)


def generator(values: Sequence[Any]) -> Iterator[Any]:
    yield from values


@pytest.mark.parametrize(
    ("result", "elements"),
    [
        (None, [(), ()]),
        ([1, None], [(1,), ()]),
        ((1, 2), [(1,), (2,)]),
        (generator([1, 2]), [(1,), (2,)]),
        ({"a": 1, "b": 2}.values(), [(1,), (2,)]),
        ([[1, 2], []], [([1, 2],), ([],)]),  # a list is one output, as without batches
        ([generator([1, 2]), generator([])], [(1, 2), ()]),
    ],
    ids=["None", "list", "tuple", "iterator", "view", "lists", "iterators"],
)
def test_result_has_one_element_for_each_message(result, elements):
    """Each element is what a handler of that message alone would have returned."""
    assert BatchHandler(lambda _: result, BATCH).call_items([None, None]) == elements


@pytest.mark.parametrize(
    ("result", "kind", "words"),
    [
        ([1], ValueError, "returned 1 element for a batch of 2 messages"),
        ([1, 2, 3], ValueError, "returned 3 elements"),
        ([], ValueError, "named by raising FailedItems"),
        ({0: 1, 1: 2}, TypeError, "returned a dict for a batch: return None, or a list"),
        ("ab", TypeError, "returned a str"),
        (3, TypeError, "returned a int"),
        (Send(1), TypeError, "returned a Send"),
    ],
    ids=str,
)
def test_any_other_result_is_an_error_that_says_what_to_return(result, kind, words):
    """Nothing is guessed: an output belongs to one message."""
    with pytest.raises(kind, match=words):
        BatchHandler(lambda _: result, BATCH).call_items([None, None])


def failing(*arguments: Any) -> BatchHandler:
    def raise_failed(values: list) -> None:
        raise FailedItems(*arguments)

    return BatchHandler(raise_failed, BATCH)


@pytest.mark.parametrize(
    ("results", "expected"),
    [(None, [(), ()]), ([1, 2, None], [(1,), ()]), (iter("abc"), [("a",), ("c",)])],
    ids=["none", "list", "iterator"],
)
def test_failed_items_fail_alone(results, expected):
    """The others have the outputs that *results* says."""
    error = ValueError("no luck")

    first, failed, last = failing({1: error}, results).call_items([0, 0, 0])

    assert failed is error
    assert [first, last] == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (({2: ValueError()},), "position 2 of a batch of 2"),
        (({0: ValueError()}, [1]), "1 element for"),
    ],
)
def test_failed_items_that_do_not_fit_the_batch_are_an_error(arguments, words):
    """A position that does not exist, or a wrong number of results."""
    with pytest.raises(ValueError, match=words):
        failing(*arguments).call_items([0, 0])


def test_element_whose_iterator_raises_fails_its_message_alone():
    """Its neighbours keep their outputs."""

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no luck")

    first, failed = BatchHandler(lambda _: [7, broken()], BATCH).call_items([0, 0])

    assert first == (7,)
    assert repr(failed) == "ValueError('no luck')"


# ---- without a broker ----------------------------------------------------------------------------


@stage(reads="scored", writes="out", routes=["late"], batch=BATCH, carry=["tenant"])
def insert(scores: list[Score]) -> list[int | Send]:
    return [each.n if each.n < 10 else Send(each.n, to="late") for each in scores]


@stage(reads="scored", writes="out", routes=["late"], carry=["tenant"], name="insert")
def insert_one(score: Score) -> int | Send:
    return score.n if score.n < 10 else Send(score.n, to="late")


@pytest.mark.parametrize("n", [7, 12])
def test_outputs_of_a_message_are_those_of_a_stage_without_batches(n):
    """The same ids, targets, headers and correlation id: a batch can be introduced at any time."""
    message = Message({"n": n}, id="a", headers={"tenant": "x"}, correlation_id="c")

    with_batch, without = insert.outputs(message), insert_one.outputs(message)

    assert [(e.message.id, e.message.data, e.target, e.message.headers, e.message.correlation_id)
            for e in with_batch] == [
        (e.message.id, e.message.data, e.target, e.message.headers, e.message.correlation_id)
        for e in without
    ]  # fmt: skip
    assert [each.data for each in insert.handle(message)] == [n]


def test_stage_is_still_a_function_of_a_list():
    """Calling it calls the function; its message type is one item's."""
    assert insert([Score(1), Score(2)]) == [1, 2]
    assert insert.message_type is Score
    assert repr(insert).endswith("concurrency 1, batches of 10>")


def test_body_that_cannot_be_decoded_never_reaches_the_list():
    """Also an empty one: there is no default for one of several."""
    for body in (b"", b"{}", b"not JSON"):
        with pytest.raises(UndecodableMessage):
            insert.handle(Message(body=body))


def test_coroutine_function_of_a_batch_is_awaited():
    """As a handler without batches is."""

    @stage(reads="scored", writes="out", batch=BATCH)
    async def insert(scores: list[Score]) -> list[int]:
        return [each.n for each in scores]

    assert [each.data for each in insert.handle(Message({"n": 3}))] == [3]


def test_send_inside_a_batch_is_refused():
    """It would be no message's output; the text says what to return."""

    @stage(reads="scored", writes="out", batch=BATCH)
    def insert(scores: list[Score]) -> None:
        send("elsewhere", 1)

    with pytest.raises(MousetrapError, match=r"cannot send to elsewhere itself.*to='elsewhere'"):
        insert.handle(Message({"n": 3}))


@pytest.mark.parametrize(
    "changes", [{"prefetch": 5}, {"batch": 10}, {"batch": Batch(70_000 // 2), "concurrency": 2}]
)
def test_options_that_cannot_work_are_refused_where_the_stage_is_defined(changes):
    """A prefetch that is too small, a number instead of a batch, too many unacked messages."""
    with pytest.raises(ValueError, match=r"prefetch|batch"):
        insert.replace(**changes)

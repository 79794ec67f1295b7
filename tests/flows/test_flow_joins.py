"""Which joins are refused where a flow is made, and which queues lead to those that are not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from support import joins as module
from support.joins import FLOW, album, resize, split

from mousetrap import Exchange, Join, Message, Missing, Queue, stage
from mousetrap.errors import SettingsError
from mousetrap.flows.definitions import definitions
from mousetrap.flows.flow import Flow
from mousetrap.flows.joins import check_importable, join_points
from mousetrap.settings import Settings

events = Exchange("events", "topic")


def made(name, reads, writes=None, routes=None, **options):
    """Return a stage that passes everything on."""

    def function(data):
        return data

    return stage(reads, writes, routes=routes, name=name, **options)(function)


SPLIT = made("split", "files", "images")
RESIZE = made("resize", "images", "thumbs", ["archive"])
ALBUM = made("album", "thumbs", "albums", joins="split")
STORE = made("store", "archive", "stored")
OUTER = [made("unpack", "books", "files"), SPLIT, RESIZE, ALBUM]
SHELF = made("shelf", "albums", "library", joins="unpack")


def test_queues_that_lead_to_a_join():
    """Those that do not lead there, like that of a branch, are not among them."""
    [point] = join_points(SPLIT, [SPLIT, RESIZE, ALBUM, STORE])

    assert (point.queue, point.reads) == ("thumbs.join", "thumbs")
    assert point.ways == ("images", "thumbs")
    assert join_points(RESIZE, [SPLIT, RESIZE, ALBUM]) == []


def test_stage_knows_the_joins_in_its_module():
    """Without a flow, as in `mousetrap work`, the module of the function is looked at."""
    assert split.joined_by() == join_points(split, vars_of(module)) != []
    assert album.joined_by() == resize.joined_by() == []
    check_importable(FLOW)


def vars_of(module):
    return [each for each in vars(module).values() if hasattr(each, "targets")]


def test_queue_of_a_join_is_made_for_users_who_may_not_declare_it():
    """`mousetrap topology` has it, with its argument; workers may read it."""
    found = definitions(Flow(FLOW), Settings())

    assert found.queues["thumbs.join"].arguments == {"x-single-active-consumer": True}
    assert re.match(found.read, "thumbs.join")


def test_flow_whose_joins_are_inside_each_other():
    """The outer one waits for the inner one, wholly inside of it."""
    flow = Flow([*OUTER, SHELF])

    assert flow.collects == ["thumbs.join", "albums.join"]
    assert flow.results == ["archive", "library"]
    [point] = join_points(OUTER[0], flow.stages)
    assert point.ways == ("albums", "files", "images", "thumbs")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([RESIZE, ALBUM], "'split' makes, which is no other stage of this flow .there are: resize"),
        ([made("split", "files", "images", joins="split")], "no other stage of this flow"),
        ([SPLIT, ALBUM], "no stage that is known leads from split to 'thumbs'"),
        ([SPLIT, RESIZE, ALBUM, made("other", "in", "thumbs")], "other writes to 'thumbs'"),
        ([SPLIT, made("resize", "images", ["thumbs", "files"]), ALBUM], "comes back to split"),
        (
            [SPLIT, made("resize", "images", events["x"]), made(
                "album", Queue("thumbs", bindings=[events["x"]]), "albums", joins="split")],
            "resize writes to the exchange events.x., which leads to the join album",
        ),
        ([*OUTER[:2], made("resize", "images", ["thumbs", "albums"]), ALBUM, SHELF], "overlap"),
        ([*OUTER, made("page", "albums", "pages"), made("book", "pages", joins="split")],
         "the joins book .of split. and album .of split. overlap"),
    ],
    ids=["no split", "itself", "no way", "from elsewhere", "circle", "exchange", "leaves",
         "one after the other"],
)  # fmt: skip
def test_joins_that_cannot_work_are_refused(stages, message):
    """Where the flow is made, with what to change."""
    with pytest.raises(SettingsError, match=message):
        Flow(stages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("",), "give the name of the stage"), ((3,), "give the name"),
     (("split", "drop"), "use 'fail' or 'pass'"), (("split", "fail", 0), "above 0"),
     (("split", "fail", float("nan")), "above 0")],
)  # fmt: skip
def test_join_with_a_wrong_value_is_refused(arguments, message):
    """Each message says what is allowed."""
    with pytest.raises(SettingsError, match=message):
        Join(*arguments)


def test_function_of_a_join_takes_a_list():
    """Other annotations are refused where the stage is defined."""

    def takes(type):
        def function(parts): ...

        function.__annotations__["parts"] = type
        return stage(reads="thumbs", joins="split")(function)

    types = {
        list[int]: int, list: object, Sequence[str]: str, tuple[int, ...]: int,
        list[int | Missing]: int, list[int | str | Missing]: int | str,
    }  # fmt: skip
    for type, part in types.items():
        found = takes(type).handler.part_type
        assert found == part or part is object
    for type in (int, dict[str, int], tuple[int, str]):
        with pytest.raises(TypeError, match=r"it is called with the list of the parts.*use list"):
            takes(type)


@pytest.mark.parametrize("annotation", [list[str], Sequence[dict[str, int]], tuple[int | str, ...]])
def test_join_that_passes_missing_parts_has_a_place_for_them(annotation):
    """A list without `Missing` is refused: at the first dead part the function would fail."""

    def take(parts):
        return len(parts)

    take.__annotations__ = {"parts": annotation}
    with pytest.raises(TypeError, match=r"use list\[.* \| mousetrap\.Missing\], or missing='fail'"):
        stage("thumbs", joins=Join("split", missing="pass"))(take)
    for good in (list[str | Missing], list, Message, list[Missing | int], list[Any], list[object]):
        take.__annotations__ = {"parts": good}
        stage("thumbs", joins=Join("split", missing="pass"))(take)
    take.__annotations__ = {"parts": annotation}
    stage("thumbs", joins="split")(take)


def test_types_of_parts_are_compared_with_what_the_stage_before_returns():
    """The type is that of a part, not of the list."""

    @stage(reads="images", writes="thumbs")
    def wrong(data: int) -> str:
        return str(data)

    def total(parts: list[int]) -> int:
        return sum(parts)

    with pytest.raises(SettingsError, match="can never be decoded"):
        Flow([SPLIT, wrong, stage(reads="thumbs", joins="split")(total)])


def test_stage_that_joins_can_be_called_and_handles_a_list_without_a_broker():
    """As the others: the body is the list of the parts."""
    assert album([1.5]) == [1.5]
    [output] = album.handle(Message([1, 2]))

    assert output.data == [1, 2]
    assert isinstance(split([1]), Iterator)


def test_run_in_processes_needs_the_join_in_the_module_of_its_stage():
    """Another process imports that module, and would not know of this join."""
    other = made("other", "thumbs", joins="split")
    with pytest.raises(SettingsError, match=r"in the module support\.joins, or import them there"):
        check_importable([split, made("step", "images", "thumbs2"),
                          made("late", "thumbs2", joins="split"), other][:3])  # fmt: skip

"""Finds the flow that a person names on the command line."""

from __future__ import annotations

import sys

import pytest

from mousetrap.cli.find_stage import find_flow, find_stage
from mousetrap.errors import SettingsError

PARSE = """
from mousetrap import Message, stage

@stage(reads="raw", writes="visits")
def parse(line: str) -> int:
    return len(line)

count = 3
empty = []
pair = [parse, count]
"""
STORE = """
from mousetrap import stage
from mousetrap.flows.flow import Flow
from their_flow.parse import parse

@stage(reads="visits")
def store(n: int) -> None: ...

both = [parse, store]
flow = Flow(both)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with the package ``their_flow`` of two modules, in which a command is run."""
    package = tmp_path / "their_flow"
    package.mkdir()
    for name, text in (("__init__", ""), ("parse", PARSE), ("store", STORE), ("none", "")):
        (package / f"{name}.py").write_text(text)
    (package / "__main__.py").write_text("raise SystemExit('this starts a program')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [each for each in sys.modules if each.partition(".")[0] == "their_flow"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("names", "stages"),
    [
        (["fetch"], ["fetch"]),
        (["fetch", "process"], ["fetch", "process"]),
        (["their_flow.parse:parse"], ["parse"]),
        (["their_flow.store:both"], ["parse", "store"]),
        (["their_flow.store:flow"], ["parse", "store"]),
        (["their_flow.store"], ["parse", "store"]),
        (["their_flow"], ["parse", "store"]),
        (["their_flow.parse:parse", "their_flow.store:store", "fetch"],
         ["parse", "store", "fetch"]),
    ],
)  # fmt: skip
def test_find_flow(names, stages):
    """Stages, lists and flows by their attribute; modules; packages; several of them."""
    assert [each.name for each in find_flow(names).stages] == stages


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("their_flw", "cannot import 'their_flw'"),
        ("their_flow.none", "module 'their_flow.none' has no stage: decorate a function"),
        ("their_flow.parse:prse", "did you mean parse"),
        ("their_flow.parse:count", "no stage and no list of stages, but int"),
        ("their_flow.parse:pair", "no stage and no list of stages, but list"),
        ("their_flow.parse:empty", "no stage and no list of stages, but list"),
        (":flow", "use a module, or module:attribute"),
    ],
)
def test_find_flow_says_what_to_name(name, says):
    """What is no flow is refused with what to give."""
    with pytest.raises(SettingsError, match=says):
        find_flow([name])


@pytest.mark.parametrize("name", ["their_flow", "their_flow.store", "their_flow:work"])
def test_find_stage_names_the_stages_of_a_module(name):
    """A command works on one stage: who names the module is told which there are."""
    with pytest.raises(SettingsError, match=r"their_flow\.parse:parse, their_flow\.store:store;"):
        find_stage(name, None)

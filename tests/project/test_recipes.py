"""Every Python block of the recipes runs as it stands, and does what its recipe says."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import mousetrap
from mousetrap.job_queue import delete

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = (ROOT / "deploy" / "docs" / "recipes.md").read_text(encoding="utf-8")
# Recipes whose block goes on with what the block before has left, in this order.
STORY = ["Consume in the background", "Find out why messages died", "Ask a stage", "Send later"]


def blocks() -> dict[str, str]:
    """Return the Python block of each recipe that has one, by the beginning of its title."""
    found: dict[str, str] = {}
    title = ""
    for heading, block in re.findall(r"^## (.+?)$|^```python\n(.*?)^```", RECIPES, re.M | re.S):
        title = heading or title
        if block:
            assert title not in found, f"{title}: a recipe has one block"
            found[title] = block
    return found


def block(beginning: str) -> str:
    [found] = [code for title, code in blocks().items() if title.startswith(beginning)]
    return found


def run_block(beginning: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the block of a recipe, as a notebook would; *names* is what it knows, and then has."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(block(beginning), f"recipes.md: {beginning}", "exec", flags, dont_inherit=True)
    coroutine = eval(code, names)
    if coroutine is not None:
        asyncio.run(coroutine)
    return names


@pytest.fixture
def names(settings, monkeypatch, tmp_path):
    """What the recipes begin with: the stage of the first example, in a module of its own."""
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    example = re.findall(r"```python\n(.*?)```", README, re.S)[0].partition("\n\nwith ")[0]
    (tmp_path / "readme_flow.py").write_text(example)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(mousetrap.__file__).parents[1]}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    measure = importlib.import_module("readme_flow").measure
    yield {"mousetrap": mousetrap, "measure": measure, "my_flow": [measure]}
    del sys.modules["readme_flow"]


def test_recipes_of_a_consumer(names, settings, capsys, tmp_path):
    """A consumer, its dead letters, its answers, and messages for later."""
    run_block(STORY[0], names)
    assert "2 confirmed" in repr(mousetrap.send("words", ["mouse", "trap"]))
    assert [each.data for each in names["lengths"]] == [5, 4]
    handle = names["handle"]
    handle.wait_until(done=4, timeout=20)

    run_block(STORY[1], names)
    handle.wait_until(done=5, timeout=20)  # the number has become a text
    assert "def test_" in (tmp_path / "test_words.py").read_text()
    assert not mousetrap.dead(names["measure"])

    run_block(STORY[2], names)
    assert names["length"] == 5

    run_block(STORY[3], names)
    handle.wait_until(done=5 + 3 + 2, timeout=20)
    assert mousetrap.depth("words.delay.3600s").messages == 1
    handle.stop()
    delete("words.delay.3600s", settings=settings)


def test_recipe_of_a_run_in_processes(names):
    """A flow is settled, plotted, drawn and listed; its results are there."""
    run_block("Know when a flow is finished", names)

    assert (names["summary"].sent, names["summary"].done) == (2, 2)


def test_recipe_of_a_recording(names):
    """The run is a file, and the file is a test."""
    run_block("Turn a run into a test", names)

    names["test_monday"]()


@pytest.mark.long
def test_recipe_of_faults(names):
    """Each fault is triggered, and nothing is lost."""
    run_block("Break your own flow", names)

    assert names["faults"].not_triggered == []
    assert names["run"].summary().done == 100


@dataclasses.dataclass
class Refunded:
    kind: Literal["refunded"]


# The beginning of a recipe that defines stages; the stages; what is sent to the first of them; the
# data of the results by their queues.
DEFINED = {
    "Send each output": (["measure"], ["mouse"], {"lengths": [5], "archive": [5]}),
    "Route outputs": (["sort_out"], [3, 30], {"short": [3], "long": [30]}),
    "Handle messages in batches": (["insert"], [3, 4], {}),
    "Join what a stage made": (["split", "shrink", "album"], [["a", "b"]], {"albums": []}),
    "Read from an exchange": (["publish", "audit"], [{"id": 1}], {"log": [{"id": 1}]}),
    "Work on queues that exist": (["accept"], [{"express": 1}], {"jobs": [{"express": 1}]}),
    "Give messages a type": (["receipt"], [{"kind": "paid", "amountInCents": 5}], {}),
    "Store each result": (["keep"], [5], {}),
}


@pytest.mark.parametrize("beginning", DEFINED)
def test_recipe_of_a_stage(names, beginning, tmp_path):
    """Its stages run: every message is done, and its results are in the queues that it names."""
    pydantic = pytest.importorskip("pydantic")
    stages, jobs, expected = DEFINED[beginning]
    sink = mousetrap.Sink(tmp_path / "results.db")
    names |= {"sink": sink, "pydantic": pydantic, "Literal": Literal}
    names |= {"Refunded": Refunded, "Receipt": dict, "Iterator": Iterator}
    flow = [run_block(beginning, names)[each] for each in stages]

    with mousetrap.run(flow) as run:
        run.send_many(jobs, flow[0].queue.name)
        summary = run.settle(timeout=30)
        found = {queue: [each.data for each in run.results(queue=queue)] for queue in expected}

    assert found == expected
    assert (summary.done, summary.dead, summary.lost) == (len(jobs), 0, 0)
    assert all(each.done for each in summary.stages.values()), summary
    stored = sorted(row["data"] if beginning.startswith("Handle") else row["data"]["length"]
                    for row in sink.rows())  # fmt: skip
    assert stored == (jobs if stages in (["insert"], ["keep"]) else [])
    sink.close()


KNOWN = """
import asyncio
from collections.abc import Iterator
from typing import Any, Literal
import pydantic
import mousetrap
from readme_flow import measure
my_flow = [measure]
sink = mousetrap.Sink("results.db")
handle = mousetrap.consume(measure.queue, measure)
class Refunded(pydantic.BaseModel):
    kind: Literal["refunded"]
class Receipt(pydantic.BaseModel): ...
"""


@pytest.mark.long
def test_type_checker_accepts_the_recipes(names, tmp_path):
    """Who copies a block into a program with types gets no error from the arguments."""
    del names
    mypy_api = pytest.importorskip("mypy.api")
    for number, code in enumerate(blocks().values()):
        inside = "".join(f"    {line}\n" for line in code.splitlines())
        (tmp_path / f"block{number}.py").write_text(f"{KNOWN}async def block() -> None:\n{inside}")
    quiet = ["--disable-error-code=empty-body", "--disable-error-code=func-returns-value"]

    found, errors, exit_code = mypy_api.run([*quiet, "--check-untyped-defs", str(tmp_path)])

    assert (exit_code, errors) == (0, ""), found


def test_every_recipe_is_tested():
    """A new block needs a test here."""
    others = ["Know when a flow is finished", "Turn a run into a test", "Break your own flow"]
    beginnings = [*STORY, *others, *DEFINED]

    untested = [each for each in blocks() if not each.startswith(tuple(beginnings))]
    assert untested == []
    assert len(blocks()) == len(beginnings)

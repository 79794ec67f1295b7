"""`mousetrap describe`: a flow as a picture, as data, and as an AsyncAPI document."""

from __future__ import annotations

import json

import pytest

FLOW = "support.describable:flow"
PICTURE = """\
○ raw
■ parse  str → Visit
├─○ archive  result
○ visits
■ score  Visit → Score | Send[Visit]; concurrency 4; retries after 1, 60 s
├┈○ errors
│ ■ repair  Message; no retry
├┈◇ alarms  fanout exchange
│ ○ pager
│ ■ page  Visit → str
│ ○ raw  ↑ above
○ scored
■ publish  Score → Score
├─◇ orders[key(...)]  topic exchange
│ ○ audit  bound by orders[order.*]
│ ■ audit  Score; timeout 30
◇ orders[order.paid]  topic exchange
○ audit  ↑ above
"""
JOINED = """\
○ films  entry; exists already
■ split  str → int
○ frames  x-max-priority: 5
■ album  list[int] → str; joins what split made of one message
○ albums
■ insert  str; batch of 100 within 2 s
"""


def test_describe_draws_the_flow(run):
    """Queues, stages, exchanges, types, options; what is read from others begins a picture."""
    result = run("describe", FLOW, COLUMNS="100")

    assert result.exit_code == 0, result.output
    assert PICTURE in result.output
    assert result.output.startswith(
        "◇ company  direct exchange; other programs write it\n"
        "○ news  entry; bound by a, b\n■ listen"
    )
    assert JOINED in result.output
    assert "Retries after 1, 5, 25 s, where no others are named." in result.output


@pytest.mark.parametrize("width", [40, 60, 100])
def test_describe_is_as_wide_as_the_terminal(run, width):
    """What does not fit stands in further lines, below its stage; names are never cut."""
    lines = run("describe", FLOW, COLUMNS=str(width)).output.partition("Jobs go")[0].splitlines()

    assert max(map(len, lines)) <= width
    assert [each.split()[-1] for each in lines if "■ audit" in each]
    assert " ".join(" ".join(lines).replace("│", " ").split()).count("retries after 1, 60 s") == 1


def test_describe_prints_data(run):
    """With --json, for programs: the same stages, queues, exchanges and findings."""
    found = json.loads(run("describe", FLOW, "--json").output)

    assert found["stages"][1] == {
        "name": "score", "reads": "visits", "writes": ["scored"], "routes": ["errors", "alarms"],
        "takes": "Visit", "returns": "Score | Send[Visit]", "retry_delays": [1.0, 60.0],
        "options": {"concurrency": 4},
    }  # fmt: skip
    queues = {each["name"]: each for each in found["queues"]}
    assert queues["audit"]["bindings"] == ["orders[order.*]"]
    assert (queues["archive"]["kind"], queues["archive"]["written_by"]) == ("result", ["parse"])
    assert {"name": "alarms", "type": "fanout", "written_by": ["score"],
            "bound": [["pager", ""]]} in found["exchanges"]  # fmt: skip
    assert found["findings"] == []


def test_describe_prints_asyncapi(run):
    """With --asyncapi, a document whose title is the name of the flow."""
    document = json.loads(run("describe", FLOW, "--asyncapi", "--doc-version", "2.1").output)

    assert document["asyncapi"] == "3.0.0"
    assert document["info"] == {"title": FLOW, "version": "2.1"}


def test_describe_shows_hints_and_refuses_errors(run, tmp_path, monkeypatch):
    """A hint stands below the picture; a flow with an error is refused with exit code 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hinted_flow.py").write_text(
        "from mousetrap import Send, stage\n"
        "@stage('a', 'b')\ndef count(n: int) -> None: ...\n"
        "@stage('c')\ndef forget(n: int) -> Send: ...\n"
    )

    hinted, refused = run("describe", "hinted_flow:count"), run("describe", "hinted_flow")

    assert "hint: count returns None, so nothing but mousetrap.send goes to b" in hinted.output
    assert refused.exit_code == 2
    assert "forget returns Send, and names no target" in refused.output


def test_title_belongs_to_asyncapi(run):
    """Without it the option would have no effect."""
    result = run("describe", FLOW, "--title", "mine")

    assert result.exit_code == 2
    assert "--asyncapi" in result.output

"""Write the tables of tests/MEASURED.md and README.md: ``python tests/make_measured.py``.

They come from the results files in ``tests/measured``: ``bench_*.json`` as the benchmarks write
them, and ``long_tier.json``, to which figures of the long tier are added by hand. A benchmark of
`SHAPES` without a file there has no row. A test compares the documents with what this module
renders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
RESULTS = TESTS / "measured"
MEASURED = TESTS / "MEASURED.md"
README = TESTS.parent / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

SPEED = "Speed, as ratios in one run"  # the section
PUBLISH = "mousetrap check notebooks/bench_publish.ipynb -p messages=20000 -p repeats=4"
FLOW = "mousetrap check notebooks/bench_flow.ipynb -p messages=10000 -p rounds=3 -p repeats=3"
LATENCY = "mousetrap check notebooks/bench_latency.ipynb -p messages=1000 -p largest=100000"
BATCH = "mousetrap check notebooks/bench_batch.ipynb -p messages=2000 -p repeats=3"
CALL = "mousetrap check notebooks/bench_call.ipynb -p messages=1000 -p calls=10000"
JOIN = "mousetrap check notebooks/bench_join.ipynb -p parts=20000 -p repeats=5"
# Of the shapes of a flow: the benchmark, what it measures, its figure, its format, the command.
SHAPES = (
    ("batch", "messages into SQLite, in batches of 100 ÷ one at a time (rate)",
     "batch / single", "{:.1f}", BATCH),
    ("call", "a call ÷ a request by hand in plain pika, with nothing confirmed (median)",
     "call / by hand, p50", "{:.2f}", CALL),
    ("join", "a part of a join, in groups of 100 ÷ one hop (time)",
     "part / hop", "{:.2f}", JOIN),
)  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return every measured figure: section, what, figure, command, and whether README has it."""
    found = json.loads((RESULTS / "long_tier.json").read_text(encoding="utf-8"))
    return [*_speed(), *_shapes(), *found]


def _shapes() -> list[dict[str, Any]]:
    found = []
    for name, what, figure, form, command in SHAPES:
        results = RESULTS / f"bench_{name}.json"
        if results.exists():
            value = json.loads(results.read_text(encoding="utf-8"))[figure]
            found.append({"section": SPEED, "what": what, "figure": form.format(value),
                          "command": command, "readme": False})  # fmt: skip
    return found


def _speed() -> list[dict[str, Any]]:
    publish, flow, latency = (
        json.loads((RESULTS / f"bench_{name}.json").read_text(encoding="utf-8"))
        for name in ("publish", "flow", "latency")
    )
    bare, peer = publish["publish_many / bare socket"], publish["publish_many / fastest peer"]
    small, large = bare  # body sizes in bytes
    fastest = publish["fastest peer"][small]
    costs = flow["cost of outcomes, per cent"]
    curve = latency["scaling"]
    tutorial = flow["hop / tutorial's loop"]
    two_stages = latency["two stages / bare pika, safe, p50"]

    def row(what: str, figure: str, command: str, *, readme: bool = False) -> dict[str, Any]:
        return {"section": SPEED, "what": what, "figure": figure,
                "command": command, "readme": readme}  # fmt: skip

    found = [
        row(f"confirmed publishing ÷ ready-made bytes on a bare socket ({small} B, {large} B)",
            f"{bare[small]:.2f}, {bare[large]:.2f}", PUBLISH, readme=True),
        row(f"confirmed publishing ÷ the fastest other library, {fastest} ({small} B, {large} B)",
            f"{peer[small]:.1f}, {peer[large]:.1f}", PUBLISH, readme=True),
        row("one hop (decode, handle, publish confirmed, ack) ÷ bare sockets",
            f"{flow['hop / bare socket']:.2f}", FLOW),
        row(f"one hop ÷ the fastest other library, {flow['fastest peer']}",
            f"{flow['hop / fastest peer']:.1f}", FLOW, readme=True),
        row("one hop ÷ the tutorial's loop, which loses messages",
            f"{tutorial:.1f}", FLOW),
        row("cost of publishing outcomes, in % of the rate without: no listener, a run listens",
            f"{costs['outcomes, no listener']:.0f} %, {costs['a run listens']:.0f} %", FLOW),
        row("two stages on the embedded broker ÷ on RabbitMQ",
            f"{flow['two stages, embedded broker / this one']:.2f}", FLOW),
        row("one job through two stages ÷ a bare-pika ping with the same promises (median)",
            f"{two_stages:.2f}", LATENCY),
        row(f"{curve[-1]['messages']:,} messages, published and moved one hop",
            f"{curve[-1]['microseconds']:.0f} µs each; {latency['RSS growth, MB']:.0f} MB more "
            f"than for {curve[0]['messages']:,}", LATENCY),
    ]  # fmt: skip
    if "rates, defaults" in publish:
        name = publish["defaults: fastest peer"]
        found.append(row(
            f"with everybody's defaults: publishing ÷ the fastest other library, {name}",
            f"{publish['defaults: publish_many / fastest peer']:.1f}", PUBLISH))  # fmt: skip
    if "rates, defaults" in flow:
        name = flow["defaults: fastest peer"]
        found.append(row(
            f"with everybody's defaults: one hop ÷ the fastest other library, {name}",
            f"{flow['defaults: hop / fastest peer']:.1f}", FLOW))  # fmt: skip
    if hops := latency.get("one hop, defaults"):
        ours = hops.pop("mousetrap")["p50"]
        by_hand = hops["pika blocking, one by one"]["p50"]
        others = [each["p50"] for name, each in hops.items() if "pika blocking" not in name]
        found.append(row(
            "with everybody's defaults: one message through one hop ÷ pika's blocking loop, ÷ the "
            "other libraries and the tutorial's loop (median)",
            f"{ours / by_hand:.2f}, {ours / max(others):.2f} to {ours / min(others):.2f}",
            LATENCY))  # fmt: skip
    return found


def measured_table() -> str:
    """Return the tables of MEASURED.md, one for each section."""
    sections: dict[str, list[str]] = {}
    for row in rows():
        command = row["command"] if row["command"] == "as above" else f"`{row['command']}`"
        line = f"| {row['what']} | {row['figure']} | {command} |"
        sections.setdefault(row["section"], []).append(line)
    head = "| what | figure | command |\n|---|---|---|\n"
    return "\n\n".join(f"## {name}\n\n{head}" + "\n".join(each) for name, each in sections.items())


def readme_table() -> str:
    """Return README's table: at most ten short rows, each also in MEASURED.md."""
    lines = [f"| {row['what']} | {row['figure']} |" for row in rows() if row["readme"]]
    return "\n".join(["| what | figure |", "|---|---|", *lines])


def replaced(document: str, table: str) -> str:
    """Return *document* with *table* between the two markers."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    """Write both tables."""
    for path, table in ((MEASURED, measured_table()), (README, readme_table())):
        path.write_text(replaced(path.read_text("utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()

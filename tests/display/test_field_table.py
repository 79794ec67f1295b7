"""A value with fields as a table: those that differ from the default first."""

from __future__ import annotations

from dataclasses import dataclass, field

from mousetrap import Queue, Settings
from mousetrap.display.field_table import HIDDEN, field_table


@dataclass
class Options:
    name: str
    delays: tuple[float, ...] = (1.0, 0.5)
    secret: str = field(default="default", repr=False)
    is_on: bool = False
    wait: float = 60.0
    more: dict = field(default_factory=dict)


def test_fields_that_differ_are_the_first():
    """With value and default in words and with units; secrets are hidden, also by default."""
    table = field_table(
        Options("x", secret="s3cret", is_on=True), "Options",
        units={"wait": "s", "delays": "s"}, variables={"wait": "WAIT"},
    )  # fmt: skip

    assert table.title == "Options: 3 of 6 settings differ from the default (≠)"
    assert [line.split("  ")[0] for line in repr(table).splitlines()[2:6]] == [
        "≠ name", "≠ secret", "≠ is_on", "delays",
    ]  # fmt: skip
    assert "<b>≠ name</b>" in table._repr_html_()
    assert [tuple(row.values()) for row in table] == [
        ("name", "x", "–", "–"),
        ("secret", HIDDEN, HIDDEN, "–"),
        ("is_on", "yes", "no", "–"),
        ("delays", "1, 0.5 s", "1, 0.5 s", "–"),
        ("wait", "60 s", "60 s", "WAIT"),
        ("more", "none", "none", "–"),
    ]


def test_settings_and_queues_are_tables_in_a_notebook():
    """With the environment variable of each setting."""
    html = Settings(host="far", password="s3cret")._repr_html_()

    assert "Settings: 2 of 22 settings differ from the default" in html
    assert ">environment variable</th>" in html
    assert html.index(">RABBITMQ_HOST<") < html.index(">RABBITMQ_PORT<")
    assert "s3cret" not in html
    assert ">5672<" in html
    assert ">24 h<" in html
    assert ">2, 9 s<" in Queue("orders", retry_delays=(2, 9))._repr_html_()

"""Tables in a real Chromium: legible on both grounds; wide ones are scrolled by keyboard."""

from __future__ import annotations

import pytest

from mousetrap import Message, Messages, Queue, RunSummary, Settings
from mousetrap.display.table import Table
from mousetrap.fault_injection.fault import Fault, table
from mousetrap.model.dead_letter_kinds import kinds_table
from mousetrap.model.summary import StageSummary

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

# What has text of its own: too small, or in a colour that is not the page's.
ILLEGIBLE = """() => [...document.querySelectorAll('body *')].filter(element => {
  const words = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  const style = getComputedStyle(element);
  return words && (parseFloat(style.fontSize) < 11
    || style.color !== getComputedStyle(document.body).color);
}).map(element => element.outerHTML)"""
REASONS = [f"KeyError: no tariff for region 'EU-{n % 3}' in the table of 2026" for n in range(30)]
LETTERS = [
    Message(n, headers={"mousetrap-reason": reason, "mousetrap-died": 1_790_000_000})
    for n, reason in enumerate([*REASONS, "ConnectionError: " + "a long sentence " * 20])
]
SUMMARY = RunSummary(
    1_234_567, 1_234_567, 1_234_000, 98_765, 567, 0, 12, 3600.0,
    dict.fromkeys(("p50", "p90", "p99", "max"), 12.3), dict.fromkeys(REASONS, 7),
    {"customer_price_v2": StageSummary(1_234_567, 98_765, 567, {"p50": 0.1}, {"p99": 0.1})},
    "RabbitMQ 4.3", 2_469_134, 99,
)  # fmt: skip
SHOWN = [
    kinds_table(LETTERS, 1_790_000_100.0, " of orders"),
    SUMMARY,
    Messages(LETTERS),
    LETTERS[0],
    Settings(host="rabbit.example.org"),
    Queue("orders", retry_delays=(2, 9)),
    table([Fault("cut", "4 connections, 3 consumers")], 0.0, " with seed 7"),
]


def html(value) -> str:
    if hasattr(value, "_repr_html_"):
        return value._repr_html_()
    return value._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("ground", ["background:#fff;color:#1f2328", "background:#111;color:#eee"])
def test_tables_are_legible_on_both_grounds(page, ground):
    """Words have the page's colour and at least 11 pixels, and 800 pixels are wide enough."""
    page.set_viewport_size({"width": 800, "height": 600})
    shown = "".join(map(html, SHOWN))
    page.set_content(f"<body style='font:13px sans-serif;{ground}'>{shown}</body>")

    assert page.evaluate(ILLEGIBLE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 800
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("th:not([scope])").count() == 0


def test_a_wide_table_is_scrolled_by_keyboard(page):
    """Tab goes to it, and the arrow keys move it; the page itself stays."""
    page.set_viewport_size({"width": 800, "height": 600})
    page.set_content(Table([f"column {n}" for n in range(40)], [tuple(range(40))])._repr_html_())

    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")

    page.wait_for_function("document.activeElement.scrollLeft > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 800

"""A panel as plain text, for terminals and for notebooks that are shown without HTML."""

from __future__ import annotations

from mousetrap.display import next_calls, sparkline
from mousetrap.display.safe_text import safe
from mousetrap.display.table import Table
from mousetrap.notebook import panel_words as words
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.stats_source import View


def text(view: View, at: AsOf, rows: int) -> str:
    """Return *view* with up to *rows* stages."""
    table = Table(
        words.PANEL_COLUMNS,
        [
            (
                safe(each.step.name, words.MAX_TEXT),
                *words.cells(each, is_finished=view.is_finished),
                sparkline.bars(each.history),
            )
            for each in view.stages[:rows]
        ],
    )
    lines = [
        str(words.verdict(view)),
        " · ".join(words.totals(view)),
        *filter(None, [words.slowest(view)]),
        *words.problems(view, rows),
        repr(table),
        *filter(None, [next_calls.text_of(view.next)]),
        *(" · ".join(parts) for parts in words.foot(view, at) if parts),
        *words.remarks(view, rows),
    ]
    return "\n".join(lines)

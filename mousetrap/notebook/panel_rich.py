"""A panel drawn by Rich, for a terminal: the words are those of the HTML.

A column of which nothing is known is left out, and the pictures of the last minute get the width
that the terminal has left, if any.
"""

from __future__ import annotations

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mousetrap.display import design_tokens as tokens
from mousetrap.display import next_calls, sparkline
from mousetrap.display.formats import UNKNOWN, shortened
from mousetrap.display.safe_text import safe
from mousetrap.notebook import panel_words as words
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.panel_html import MAX_STAGE_NAME
from mousetrap.notebook.stats_source import StageView, View

PICTURE_WIDTH = 20  # characters, of which each is three seconds of the last minute
MIN_PICTURE_WIDTH = 10
COLUMN_SPACE = 2  # characters between two columns

_COLORS = {
    tokens.RUNNING_SIGN: tokens.OK_MARK, tokens.ENDED_SIGN: tokens.MUTED_MARK,
    tokens.RETRIED_SIGN: tokens.RETRIED_MARK, tokens.DEAD_SIGN: tokens.DEAD_MARK,
}  # fmt: skip


class TerminalPanel:
    """*view* with up to *rows* stages, as something that Rich prints."""

    def __init__(self, view: View, at: AsOf, rows: int) -> None:
        self._view, self._at, self._rows = view, at, rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view, rows = self._view, self._rows
        found = words.verdict(view)
        first, *others = words.totals(view)
        head = Text.assemble(_signed(found.sign), " ", (found.word, "bold"), found.rest)
        lines = [Text.assemble((first, "bold"), *(f" · {each}" for each in others))]
        lines += [Text(line) for line in filter(None, [words.slowest(view)])]
        lines += [
            Text.assemble(_signed(tokens.DEAD_SIGN), f" {line}")
            for line in words.problems(view, rows)
        ]
        feet = [
            *filter(None, [next_calls.text_of(view.next)]),
            *(" · ".join(parts) for parts in words.foot(view, self._at) if parts),
            *words.remarks(view, rows),
        ]
        above, below = [head, *lines], [Text(line) for line in feet]
        for text in (*above, *below):
            text.no_wrap, text.overflow = True, "ellipsis"
        needed = Measurement.get(console, options, self._table(0)).maximum
        room = min(PICTURE_WIDTH, options.max_width - needed - COLUMN_SPACE)
        yield Group(*above, self._table(room), *below)

    def _table(self, room: int) -> Table:
        """Return a line for each stage; a picture has *room* characters."""
        view = self._view
        stages = view.stages[: self._rows]
        cells = [words.cells(each, is_finished=view.is_finished) for each in stages]
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column(words.PANEL_COLUMNS[0], no_wrap=True, overflow="ellipsis")
        known = [
            n for n in range(len(words.PANEL_COLUMNS) - 2)
            if any(row[n] != UNKNOWN for row in cells)
        ]  # fmt: skip
        for n in known:
            table.add_column(words.PANEL_COLUMNS[n + 1], justify="right", no_wrap=True)
        has_pictures = any(each.history for each in stages) and room >= MIN_PICTURE_WIDTH
        if has_pictures:
            table.add_column(words.PANEL_COLUMNS[-1], no_wrap=True)
        for stage, row in zip(stages, cells, strict=True):
            marked = [_marked(words.PANEL_COLUMNS[n + 1], row[n]) for n in known]
            name = shortened(safe(stage.step.name, words.MAX_TEXT), MAX_STAGE_NAME)
            picture = [sparkline.bars(stage.history, room)] if has_pictures else []
            table.add_row(Text.assemble(_signed(self._sign(stage)), f" {name}"), *marked, *picture)
        return table

    def _sign(self, stage: StageView) -> str:
        if words.is_troubled(stage, self._view):
            return words.trouble_sign(stage)
        return tokens.ENDED_SIGN if self._view.is_finished else tokens.RUNNING_SIGN


def _signed(sign: str) -> tuple[str, str]:
    return sign, _COLORS.get(sign, "")


def _marked(column: str, cell: str) -> Text:
    """Return *cell* with the sign of its column, unless nothing was retried or is dead."""
    signs = {"retried": tokens.RETRIED_SIGN, "dead": tokens.DEAD_SIGN}
    if column not in signs or cell in ("0", UNKNOWN):
        return Text(cell)
    return Text.assemble(_signed(signs[column]), " ", (cell, "bold" if column == "dead" else ""))

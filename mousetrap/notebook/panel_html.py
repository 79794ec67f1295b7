"""A panel as HTML: a sentence, a bar, a line of totals, one table, and a foot.

While it is live nothing moves but digits: pictures have a fixed size, columns a least width, and
figures are as wide as each other. Styles are inline and pictures are images, because a saved
notebook is shown without scripts, classes and SVG elements.
"""

from __future__ import annotations

import html

from mousetrap.display import design_tokens as tokens
from mousetrap.display import inline_pictures as pictures
from mousetrap.display import next_calls
from mousetrap.display.formats import number, shortened
from mousetrap.display.safe_text import safe
from mousetrap.notebook import panel_words as words
from mousetrap.notebook.freshness import AsOf
from mousetrap.notebook.stats_source import StageView, View

MAX_STAGE_NAME = 28  # characters of a stage's name; a longer one is cut in its middle
# The least width of each column, in digits; the columns with counts are wider in large runs.
WIDTHS = (9, 7, 6, 6, 6, 7, 8, 6)
MAX_DIGITS = 7  # characters of a count for which these are enough: 999,999
# In JupyterLab, 600 pixels are left in a window of 800: all but the last column is seen there.
CELL = "padding:.5em .35em;white-space:nowrap"
LEFT, RIGHT = f"text-align:left;{CELL}", f"text-align:right;{CELL}"


def section(view: View, at: AsOf, rows: int, *, is_drawn: bool, is_one_of_many: bool) -> str:
    """Return *view* with up to *rows* stages, and with pictures if *is_drawn*.

    If it *is_one_of_many*, its first line says what it shows.
    """
    found = words.verdict(view)
    mark = at.mark() if found.sign == tokens.RUNNING_SIGN else _sign(found.sign)
    title = f"{html.escape(safe(view.title, words.MAX_TEXT))}: " if is_one_of_many else ""
    first, *others = map(html.escape, words.totals(view))
    others = [f"<b>{part}</b>" if part.endswith(" dead") and part[0] != "0" else part
              for part in others]  # fmt: skip
    troubles = "".join(f"<div>{_sign(tokens.DEAD_SIGN)} {html.escape(line)}</div>"
                       for line in words.problems(view, rows))  # fmt: skip
    feet = "".join(
        # an empty line is kept, so that nothing moves when something waits for a retry
        f'<div style="white-space:nowrap;font-size:12px">'
        f"{html.escape(' · '.join(parts)) or '&nbsp;'}</div>"
        for parts in words.foot(view, at)
    )
    slowest, calls = html.escape(words.slowest(view)), next_calls.html_of(view.next)
    if len(view.stages) > 1:  # the line is kept while no stage is named
        slowest = f"<div>{slowest or '&nbsp;'}</div>"
    if calls:
        calls = f'<div style="white-space:nowrap;margin:0 0 4px 0">{calls}</div>'
    remarks = html.escape("\n".join(words.remarks(view, rows)))
    if remarks:
        remarks = f'<pre style="font-family:monospace;margin:4px 0">{remarks}</pre>'
    return (
        f'<div style="margin:4px 0 12px 0">'
        f"<div>{title}{mark} <b>{html.escape(found.word)}</b>{html.escape(found.rest)}</div>"
        f'<div style="margin:4px 0">{_bar(view)}</div>'
        f'<div style="font-variant-numeric:tabular-nums">{" · ".join([f"<b>{first}</b>", *others])}'
        f"</div>{slowest}{troubles}"
        f'<div style="overflow-x:auto" tabindex="0">{_table(view, rows, is_drawn=is_drawn)}'
        f"{calls}{feet}</div>{remarks}</div>"
    )


def _bar(view: View) -> str:
    jobs = view.jobs
    alt = ", ".join(words.totals(view))
    if jobs is None:
        done, dead = (sum(getattr(each, name) for each in view.stages) for name in ("done", "dead"))
        whole = done + dead if view.is_finished else 0
        return pictures.part_of_whole(done, dead, whole, alt)
    return pictures.part_of_whole(jobs.done, jobs.dead, jobs.total, alt)


def _table(view: View, rows: int, *, is_drawn: bool) -> str:
    counts = [n for each in view.stages for n in (each.waiting or 0, each.done, each.retried)]
    digits = len(f"{max(counts, default=0):,}")
    wider = 0 if digits <= MAX_DIGITS else 2 if digits <= MAX_DIGITS + 2 else 6
    widths = [
        width + wider * (name in ("waiting", "done", "retried"))
        for name, width in zip(words.PANEL_COLUMNS, WIDTHS, strict=False)
    ]
    styles = [f"{RIGHT if n else LEFT};min-width:{width}ch" for n, width in enumerate(widths)]
    head = "".join(
        f'<th scope="col" style="{style}">{name}</th>'
        for name, style in zip(words.PANEL_COLUMNS, [*styles, LEFT], strict=True)
    )
    top = words.scale(view)
    body = "".join(_row(each, view, top, is_drawn=is_drawn) for each in view.stages[:rows])
    return (
        f'<table style="margin:6px 0;font-variant-numeric:tabular-nums"><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table>"
    )


def _row(stage: StageView, view: View, top: float, *, is_drawn: bool) -> str:
    name = safe(stage.step.name, words.MAX_TEXT)
    shown = html.escape(shortened(name, MAX_STAGE_NAME))
    *figures, retried, dead = map(html.escape, words.cells(stage, is_finished=view.is_finished))
    if stage.retried:
        retried = f"{_sign(tokens.RETRIED_SIGN)} {retried}"
    if stage.dead:
        dead = f"{_sign(tokens.DEAD_SIGN)} <b>{dead}</b>"
    cells = "".join(f'<td style="{RIGHT}">{cell}</td>' for cell in (*figures, retried, dead))
    picture = ""
    if is_drawn:
        most = max(stage.history, default=0.0)
        alt = f"{name}: at most {number(most)} per s in the last minute"
        picture = pictures.seconds(stage.history, top, alt)
    return (
        f'<tr><th scope="row" style="{LEFT};font-weight:normal" '
        f'title="{html.escape(name)}">{_sign(_state(stage, view))} '
        f'{shown}</th>{cells}<td style="{LEFT}">{picture}</td></tr>'
    )


def _state(stage: StageView, view: View) -> str:
    """Return the sign of the state of *stage*."""
    if words.is_troubled(stage, view):
        return words.trouble_sign(stage)
    is_over = view.is_finished or stage.state in ("closed", "replaced", "ended")
    return tokens.ENDED_SIGN if is_over else "○" if stage.state == "new" else tokens.RUNNING_SIGN


_COLORS = {
    tokens.RUNNING_SIGN: tokens.OK_MARK, tokens.ENDED_SIGN: tokens.MUTED_MARK,
    tokens.RETRIED_SIGN: tokens.RETRIED_MARK, tokens.DEAD_SIGN: tokens.DEAD_MARK,
    "○": tokens.MUTED_MARK,
}  # fmt: skip


def _sign(sign: str) -> str:
    return f'<span style="color:{_COLORS[sign]}">{sign}</span>'

"""Panels and reports in a real Chromium, which Playwright drives."""

from __future__ import annotations

import nbformat
import pytest
from support.grids import HOSTILE, make_grid
from support.hostile_text import PAYLOADS, bundles
from support.jupyterlab import SCREENSHOTS, chromium

from mousetrap import Panel
from mousetrap.check.report import write_report
from mousetrap.flows.flow import Step
from mousetrap.model.ledger_progress import JobCounts
from mousetrap.model.summary import StageSummary
from mousetrap.notebook.stats_source import StageView, View
from mousetrap.run_fetch_worker import fetch
from mousetrap.runs.diagram import Diagram
from mousetrap.runtime import clock

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def test_saved_panel_needs_no_javascript(tmp_path, settings):
    """nbconvert's page without JavaScript has the picture and the table of a panel."""
    nbconvert = pytest.importorskip("nbconvert")
    shown = Panel(fetch.worker(settings)).bundle()
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", shown)])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "saved.html").write_text(html, encoding="utf-8")

    with chromium() as browser:
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto((tmp_path / "saved.html").as_uri(), wait_until="domcontentloaded")
        picture = page.locator(".mousetrap img").first
        box = picture.bounding_box()
        is_loaded = picture.evaluate("image => image.complete && image.naturalWidth > 300")
        text = page.locator(".mousetrap").inner_text()

    assert is_loaded
    assert box["width"] > 300
    assert "per s" in text


OUTSIDE = """() => [...document.querySelectorAll('g')].flatMap(group => {
  const box = group.querySelector('rect, path').getBBox();
  const words = [...group.querySelectorAll('text')].map(text => [text.textContent, text.getBBox()]);
  return words.filter(([, at]) => at.width && (at.x < box.x || at.y < box.y
    || at.x + at.width > box.x + box.width || at.y + at.height > box.y + box.height));
})"""


@pytest.mark.parametrize("shown", ["counts", "plain"])
def test_ten_stages_are_legible_in_a_cell(page, shown):
    """A picture is at most 860 pixels wide, and its words are in their boxes, in 11 pixels."""
    names = [f"customer_archive_price_normalised_v{n}" for n in range(11)]
    steps = [
        Step(f"WRITE_the_prices_of_Mm_customer_{n}", names[n], (names[n + 1],), ("exchange_" * 3,),
             shape="join of WRITE_the_prices_of_Mm_customer_1")
        for n in range(10)
    ]  # fmt: skip
    counts = {each.name: StageSummary(1_234_567, 98_765, 4_321, {}, {}) for each in steps}
    waiting = dict.fromkeys(names, 1_234_567)
    diagram = Diagram(steps, counts, waiting, is_counted=shown != "plain")

    page.set_content(diagram.svg())

    assert page.evaluate("document.querySelector('svg').width.baseVal.value") <= 860
    assert page.evaluate(OUTSIDE) == []
    sizes = page.locator("text").evaluate_all(
        "all => all.map(t => Number(t.getAttribute('font-size')))"
    )
    assert min(sizes) >= 11


def test_a_diagram_follows_the_theme(page):
    """As an image, its words are bright where the page says that its theme is dark."""
    image = Diagram([Step("measure", "words")], {}, {"words": 1}).image()
    shades = []
    for theme, ground in (("light", "#fff"), ("dark", "#111")):
        page.emulate_media(color_scheme=theme)
        page.set_content(f"<body style='background:{ground};color-scheme:{theme}'>{image}")
        page.wait_for_function("document.images[0].complete")
        shades.append(page.evaluate(INK))

    assert shades[0] < 100 < 150 < shades[1]


# Mean brightness, 0 to 255, of the pixels of the picture that differ most from the box around them.
INK = """() => {
  const image = document.images[0], canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const data = context.getImageData(30, 20, 60, 40).data;
  const shades = [];
  for (let n = 0; n < data.length; n += 4)
    if (data[n + 3] === 255) shades.push((data[n] + data[n + 1] + data[n + 2]) / 3);
  shades.sort((one, other) => one - other);
  const middle = shades[Math.floor(shades.length / 2)];
  return middle > 128 ? shades[0] : shades[shades.length - 1];
}"""


REPLACE = """async frames => {
  const shifts = [], boxes = [], cell = document.getElementById('cell');
  const observer = new PerformanceObserver(list => shifts.push(...list.getEntries()));
  for (const frame of frames) {
    cell.innerHTML = frame;
    await Promise.all([...document.images].map(image => image.decode()));
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    boxes.push([...document.querySelectorAll('th, td, img, table, #next')].map(part => {
      const at = part.getBoundingClientRect();
      return [at.x, at.y, at.width, at.height].map(Math.round).join();
    }));
    if (boxes.length === 1) observer.observe({type: 'layout-shift'});
  }
  shifts.push(...observer.takeRecords());
  return [shifts.length, [...new Set(boxes.map(each => each.join(' ')))].length];
}"""
JUPYTERLAB = """<style>table {border-collapse: collapse; font-size: 12px; table-layout: fixed}
td, th {padding: .5em; white-space: normal; max-width: none; vertical-align: middle}</style>"""


@pytest.mark.parametrize("width", [800, 1300])
def test_live_panel_moves_nothing_but_digits(page, width, monkeypatch):
    """From the first job to the last of a run, no cell, picture or line below it moves."""
    monkeypatch.setattr(clock, "steady_time", lambda: 10.0)
    page.set_viewport_size({"width": width, "height": 700})
    page.set_content(f"{JUPYTERLAB}<div id=cell></div><p id=next>the next cell")

    frames = [Panel([]).render([run_at(n)], end="")["text/html"] for n in range(25)]

    assert page.evaluate(REPLACE, frames) == [0, 1]


def run_at(n: int) -> View:
    """Return a run of 150,000 jobs at its *n*-th of 24 updates."""
    done = 150_000 * n // 24
    history = tuple([0.0] * (60 - n) + [12_000.0 + 37 * k for k in range(n)])
    price = StageView(
        Step("price", "orders"), done, 31 * n * n, n // 3, 12_345.6 * (n > 2), history,
        150_000 - done, 16 * (n > 0), 16 * (1 + n % 2), n % 7, f"{n} s", n / 3, "open", "", 0.4,
    )  # fmt: skip
    jobs = JobCounts(150_000, done, 150_000 - done - n // 3, n // 3)
    left = 12.0 if n % 5 == 4 else None
    return View(
        "run a-1", "RabbitMQ 4.3.6 on localhost:5672", "open", (price, price), {"out": done},
        "result", unit="job", jobs=jobs, started=10.0 - n, left=left,
    )  # fmt: skip


def test_hostile_text_does_nothing_in_a_browser(page, tmp_path, monkeypatch):
    """All payloads in all displays, on one page with scripts allowed, do nothing."""
    monkeypatch.setattr("mousetrap.job_queue.depths", lambda *_, **__: [])
    shows = [each.get("text/html", "") for text in PAYLOADS for each in bundles(text).values()]
    head = "<!doctype html><meta charset=utf-8><title>all of it</title>"
    (tmp_path / "all.html").write_text(head + "\n".join(shows), encoding="utf-8")
    address = (tmp_path / "all.html").as_uri()
    events = []
    page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: events.append(message.text))
    page.on("request", lambda request: events.append(request.url))

    page.goto(address)
    acting = page.locator("script, iframe, object, embed, form, input, a, style, link, svg").count()
    page.mouse.move(200, 200)

    assert acting == 0
    assert [each for each in events if not each.startswith(("data:image/svg", address))] == []
    assert len(shows) > 50 * 20


def test_report_on_a_grid_is_inert_and_opens_what_is_asked_for(page, tmp_path):
    """In a grid's report no content of a notebook acts, and links open what they name."""
    events = []
    page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: events.append(message.text))
    page.on("request", lambda request: events.append(request.url))
    address = (tmp_path / "index.html").as_uri()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    write_report(make_grid(tmp_path, text="".join(HOSTILE)))
    page.goto(address)
    page.hover("tbody tr:first-child td")
    page.screenshot(path=SCREENSHOTS / "report.png", full_page=True)
    page.click(".squares a:last-child")
    page.wait_for_selector("#point-2", state="visible")
    page.click(".plots summary")
    page.wait_for_selector(".plots details[open] summary")

    assert [each for each in events if not each.startswith(("data:", address))] == []

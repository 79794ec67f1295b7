"""The documentation: every public name and command has its entry, and every example runs.

`deploy/docs.py` builds the site, and the workflow `docs` runs it. What can be known without that is
tested here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re

import pytest
from support.documentation import PAGES, ROOT, entries, examples, pages, run_examples
from test_architecture import FILES, PACKAGE

from mousetrap import Exchange, Message, Queue, errors, faults, send
from mousetrap.broker import ensure
from mousetrap.settings import _VARIABLES, PASSWORD_FILE, Settings

# Modules with an `__all__` whose names are no part of the public interface.
INTERNAL = {"mousetrap.runtime.threads"}  # the standard library's names, for the package itself


def public_names() -> list[str]:
    """Return every name in an `__all__` of the package, with its module: ``mousetrap.send``."""
    found = []
    for path in FILES:
        if not re.search(r"^__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE):
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if module not in INTERNAL:
            found += [f"{module}.{name}" for name in importlib.import_module(module).__all__]
    return found


def test_every_public_name_has_an_entry_with_an_example():
    """Add it to a page of deploy/docs/reference: an ``{entry}``, and an example below it."""
    with_example = {name for name, _, has_example in entries("entry") if has_example}

    assert len(public_names()) > 80
    assert sorted(set(public_names()) - with_example) == []


def test_every_error_has_an_entry():
    """A user finds each error that mousetrap raises."""
    documented = {name.rpartition(".")[2] for name, _, _ in entries("entry")}
    raised = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.MousetrapError)
    }

    assert sorted(raised - documented) == []


def test_every_entry_is_there_once_and_has_a_docstring():
    """No entry is left of a name that is gone."""
    names = [name for name, _, _ in entries("entry")]

    assert sorted(names) == sorted(set(names))
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.fixture(scope="module")
def reference_entries():
    """The Sphinx extension that writes the entries."""
    path = PAGES / "reference_entries.py"
    spec = importlib.util.spec_from_file_location("reference_entries", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_an_entry(reference_entries):
    """Add it to deploy/docs/reference/cli.md; the text is the command's help."""
    documented = [name for name, _, _ in entries("command")]

    assert sorted(documented) == sorted(["mousetrap", *reference_entries.commands()])


def test_entry_of_a_command_has_all_its_options(reference_entries):
    """Nothing of the help is lost on the way to the page."""
    for words, command in reference_entries.commands().items():
        text = reference_entries._command(words.split())
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                assert all(option in text for option in parameter.opts if option[0] == "-"), words


def test_every_notebook_is_in_the_navigation():
    """Add it to a list of deploy/docs/index.md."""
    navigation = (PAGES / "index.md").read_text(encoding="utf-8").splitlines()
    missing = [
        path.name
        for path in (ROOT / "notebooks").glob("*.ipynb")
        if f"notebooks/{path.stem}" not in navigation
    ]

    assert missing == []


def test_every_page_is_in_the_navigation():
    """A page that no list names cannot be found; a list names only what is there."""
    listed = set()
    for page in pages():
        lists = re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        for line in "\n".join(lists).splitlines():
            if line and not line.startswith(":"):
                listed.add((page.parent / line).relative_to(PAGES).as_posix())
    own = {path.relative_to(PAGES).with_suffix("").as_posix() for path in pages()}

    assert sorted(own - listed) == ["index"]


def test_every_variable_is_in_the_table():
    """Each environment variable of `Settings` has its row."""
    table = (PAGES / "reference" / "settings.md").read_text(encoding="utf-8")
    variables = {"RABBITMQ_URL", PASSWORD_FILE, *(name for name, _ in _VARIABLES.values())}

    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == variables


REFUSED = {  # what not_supported.md says; the call that is refused, and what the error says to do
    "**Streams.**": (
        lambda: Queue("a", arguments={"x-queue-type": "stream"}), "use 'classic' or 'quorum'"
    ),
    "**Exchanges** of the type `headers`": (
        lambda: Exchange("a", "headers"), "use one of direct, topic, fanout"
    ),
    "**Delays** over seven days": (lambda: send("a", 1, delay=86_400 * 8), "seven days"),
    "delays to an exchange": (lambda: send(Exchange("a")["b"], 1, delay=1), "only queues"),
    "**Priorities on quorum queues**": (
        lambda: Queue("a", arguments={"x-queue-type": "quorum", "x-max-priority": 5}), "'classic'"
    ),
    "A body has at most 16 MB": (lambda: Message(body=b"x" * 17_000_000), "path or URL"),
    "**Faults over TLS.**": (lambda: faults(Settings(tls=True)).start(), "without TLS"),
}  # fmt: skip


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_not_supported_is_refused(row):
    """The page says so, and the error says what to do."""
    page = (PAGES / "not_supported.md").read_text(encoding="utf-8")
    refused, way_out = REFUSED[row]

    assert row in page
    with pytest.raises((errors.MousetrapError, ValueError), match=way_out):
        refused()


@pytest.mark.parametrize(
    "page",
    [each for each in pages("reference") if examples(each) and each.stem != "pytest"],
    ids=lambda page: page.stem,
)
def test_examples_of_a_page_run(page, monkeypatch, tmp_path):
    """They run in the order of the page, on the embedded broker, and print what the page says."""
    monkeypatch.chdir(tmp_path)
    with ensure("embedded", Settings()) as broker:
        for name, value in broker.settings.to_environment().items():
            monkeypatch.setenv(name, value)
        run_examples(page, {})


def test_example_of_the_fixtures_runs(run):
    """The test on the page is one, and passes with the fixture `run`."""
    names = {}
    run_examples(PAGES / "reference" / "pytest.md", names)

    names["test_measure"](run)

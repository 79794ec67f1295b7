"""Which version of a handler runs, and whether its source file has changed."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

from mousetrap import consume, stage
from mousetrap.notebook.source_digest import SourceDigest, digest_of


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of handlers and import it: ``module(source)``."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / f"handlers_{os.getpid()}_{abs(hash(tmp_path))}.py"

    def write(source):
        file.write_text(source)
        os.utime(file, (0, len(source)))  # another time of modification for another text
        importlib.invalidate_caches()

    def load(source):
        write(source)
        sys.modules.pop(file.stem, None)
        return importlib.import_module(file.stem)

    load.write = write
    load.file = file
    yield load
    sys.modules.pop(file.stem, None)


SOURCE = "RATE = 2\n\ndef scale(n: int) -> int:\n    return RATE * n\n"


def test_digest_is_of_what_a_function_does():
    """Comments and line numbers do not change the digest of a function."""
    space = [{}, {}, {}]
    exec("def f(n):\n    return n + 1", space[0])
    exec("\n\ndef f(n):\n    # more\n    return n + 1", space[1])
    exec("def f(n):\n    return n + 2", space[2])
    first, same, other = (digest_of(each["f"]) for each in space)

    assert first == same != other
    assert digest_of(len) == "no code"


def test_version_is_stale_when_its_source_on_disk_is_another(settings, module):
    """The handle says that the source has changed, and what to do."""
    handle = consume("work", module(SOURCE).scale, settings)
    assert handle.stale == ""

    module.write(SOURCE.replace("RATE * n", "RATE * n + 1"))
    assert "its source in handlers" in handle.stale
    assert "stale: its source in handlers" in repr(handle)
    module.write(SOURCE)
    assert handle.stale == ""


@pytest.mark.parametrize(
    ("source", "stale"),
    [
        ("# moved, with a comment\n\n" + SOURCE, ""),
        (SOURCE.replace("RATE = 2", "RATE = 3"), "another part of its file"),
        (SOURCE.replace("def scale", "def renamed"), "its source in"),
        ("def scale(:", "not valid Python any more"),
    ],
)
def test_version_compares_what_python_makes_of_a_file(module, source, stale):
    """Comments and moved lines do not count; a change elsewhere in the module does."""
    version = SourceDigest(module(SOURCE).scale)
    module.write(source)

    assert bool(version.stale) is bool(stale)
    assert stale in version.stale


def test_version_is_stale_when_its_file_had_changed_before(module):
    """A file that changed between import and consume is noticed."""
    scale = module(SOURCE).scale
    module.write(SOURCE.replace("RATE * n", "n"))

    assert "its source in" in SourceDigest(scale).stale


def test_version_is_stale_when_its_file_is_gone(module):
    """A deleted file makes it stale, too."""
    version = SourceDigest(module(SOURCE).scale)
    module.file.unlink()

    assert "gone" in version.stale


def test_version_sees_through_stages_and_decorators(module):
    """The function inside a stage is compared."""
    scale = module(SOURCE).scale

    assert digest_of(stage(reads="work")(scale)) == digest_of(scale)
    assert SourceDigest(stage(reads="work")(scale)).stale == ""

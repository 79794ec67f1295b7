"""The README's example is code, so it is run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_readme_example_runs_in_at_most_fifteen_lines(settings, monkeypatch, tmp_path, capsys):
    """What a newcomer copies first works, and prints what its comment says."""
    example, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "readme_example.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)

    import readme_example

    assert capsys.readouterr().out == "2 [5, 4]\n"
    assert len([line for line in example.splitlines() if line]) <= 15
    del sys.modules[readme_example.__name__]

"""Kinds of cells that fail, and of cells that do not: what every way to run a notebook must know.

Each value is the source of one cell of a Python notebook. papermill's verdict decides which are
failures; `test_faults_check.py` compares it.
"""

from __future__ import annotations

RAISING = {
    "exception": "1 / 0",
    "assertion": "assert 1 == 2, 'no'",
    "syntax error": "def (:",
    "indentation error": "if True:\nprint(1)",
    "unknown name": "undefined_name",
    "exception without a text": "raise ValueError",
    "exception with a traceback of its own": (
        "class Stop(Exception):\n    def _render_traceback_(self):\n        return []\nraise Stop"
    ),
    "interrupt raised": "raise KeyboardInterrupt",
    "interrupt by a signal": "import os, signal, time\nos.kill(os.getpid(), 2)\ntime.sleep(30)",
    "exit with code 0": "raise SystemExit(0)",
    "exit with code 1": "raise SystemExit(1)",
    "sys.exit": "import sys\nsys.exit()",
    "await": "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    1 / 0\nawait f()",
    "awaited task": ("import asyncio\nasync def f():\n    1 / 0\nawait asyncio.create_task(f())"),
    "event loop in the event loop": "import asyncio\nasyncio.run(asyncio.sleep(0))",
    "warning as an error": "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('w')",
    "question": "input('? ')",
    "bash cell": "%%bash\nexit 3",
    "run of a missing file": "%run missing.py",
    "extension that is missing": "%load_ext missing_extension",
    "timed statement": "%time 1 / 0",
    "timed cell": "%%time\n1 / 0",
    "benchmarked statement": "%timeit -n1 -r1 1 / 0",
    "captured cell": "%%capture\nprint('x')\n1 / 0",
    "short traceback": "%xmode Minimal\n1 / 0",
    "cell within a cell": "get_ipython().run_cell('1 / 0')",
    "display": ("class Bad:\n    def __repr__(self):\n        1 / 0\nBad()"),
    "display of a rich value": (
        "class Bad:\n    def _repr_html_(self):\n        raise ValueError('no html')\nBad()"
    ),
    "hook after the cell": (
        "def fail(*_):\n    get_ipython().events.unregister('post_run_cell', fail)\n    1 / 0\n"
        "get_ipython().events.register('post_run_cell', fail)"
    ),
}
"""Cells that fail with an error output; the kernel goes on."""

SILENT = {
    "group of exceptions": "raise ExceptionGroup('two', [ValueError(1), ValueError(2)])",
    "unknown line magic": "%non_existing_magic",
    "unknown cell magic": "%%non_existing_magic\n1",
    "unknown magic in a loop": "for _ in range(2):\n    %non_existing_magic",
    "magic without its argument": "%writefile",
    "magic with a wrong argument": "%env NOT_SET_ANYWHERE",
    "empty script": "%%script false\n",
    "handler of exceptions": (
        "get_ipython().set_custom_exc((ZeroDivisionError,), lambda *_, **__: None)\n1 / 0"
    ),
    "traceback replaced": "get_ipython().showtraceback = lambda *_, **__: None\n1 / 0",
    "traceback hidden": "get_ipython()._showtraceback = lambda *_, **__: None\n1 / 0",
    "exit with a hidden traceback": (
        "get_ipython().showtraceback = lambda *_, **__: None\nraise SystemExit(1)"
    ),
    "output cleared after the error": (
        "from IPython.display import clear_output\n"
        "def clear(*_):\n    clear_output()\n"
        "get_ipython().events.register('post_run_cell', clear)\n1 / 0"
    ),
}
"""Cells that fail without an error output; the kernel goes on."""

DEADLY = {
    "kernel ended with code 0": "import os\nos._exit(0)",
    "kernel ended with code 1": "import os\nos._exit(1)",
    "kernel killed": "import os\nos.kill(os.getpid(), 9)",
    "kernel crashed": "import os\nos.abort()",
    "exit function": "exit()",
    "quit function": "quit()",
}
"""Cells that end the kernel."""

SOUND = {
    "value": "1 + 1",
    "text": "print('text')",
    "text to standard error": "import sys\nprint('an error', file=sys.stderr)",
    "comment": "# nothing",
    "comment on a magic": "# %non_existing_magic",
    "exception caught": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    print(error)",
    "exception shown as text": (
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()"
    ),
    "exception logged": "import logging\nlogging.error('no luck')",
    "exception suppressed": (
        "from contextlib import suppress\nwith suppress(OSError):\n    open('/no')"
    ),
    "exit caught": "try:\n    raise SystemExit(1)\nexcept SystemExit:\n    pass",
    "exception in a thread": (
        "import threading\nthread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start()\nthread.join()"
    ),
    "exception in a task": (
        "import asyncio\nasync def fail():\n    1 / 0\n"
        "task = asyncio.create_task(fail())\nawait asyncio.sleep(0.01)"
    ),
    "exception in a destructor": (
        "class Bad:\n    def __del__(self):\n        1 / 0\nbad = Bad()\ndel bad"
    ),
    "warning": "import warnings\nwarnings.warn('careful')",
    "awaited sleep": "import asyncio\nawait asyncio.sleep(0)",
    "generator": "sum(n for n in range(5))",
    "shell command that fails": "!false",
    "shell command with output": "!echo text",
    "shell command as a value": "lines = !exit 3\nlines",
    "script that may fail": "%%script --no-raise-error false\nignored",
    "bash output": "%%bash\necho text",
    "Python in another process": "%%python\nprint(1)",
    "process that fails": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '1/0'])",
    "captured output": "%%capture captured\nprint('x')",
    "timed value": "%%time\n1 + 1",
    "benchmark": "%timeit -n1 -r1 1 + 1",
    "folder that is missing": "%cd -q /no/such/folder",
    "help": "print?",
    "list of names": "%who",
    "variable": "%env HOME",
    "file that exits with code 0": (
        "from pathlib import Path\nPath('exits.py').write_text('raise SystemExit(0)')\n"
        "%run exits.py"
    ),
    "output cleared": "from IPython.display import clear_output\nprint(1)\nclear_output()",
    "display that changes": (
        "from IPython.display import display\nshown = display('a', display_id=True)\n"
        "shown.update('b')"
    ),
    "HTML": "from IPython.display import HTML\nHTML('<b>error</b>')",
    "word error in the output": "print('Traceback (most recent call last):\\nValueError: no')",
    "long output": "print('x' * 100_000)",
    "nothing to show": "None",
    "semicolon": "1;",
    "magic of the last line": "x = 1\n%precision 3",
}
"""Cells that do not fail. A shell command's exit code is not a failure, as in Jupyter."""

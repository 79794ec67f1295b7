"""Shared by `demo.py` and `test.py`: make ``.venv`` from the lock, check the broker, run a command.

Run as a program, it only makes ``.venv``. It needs the standard library only. The environment is
made once; a stamp in it records which lock and which pyproject.toml it was made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
LOCK = ROOT / "deploy" / "requirements.lock"
STAMP = VENV / "mousetrap.stamp"

# Runs in .venv. Exit code 0: there is a broker of the wanted kind; 1: there is none, and
# the reasons are on stdout; 2: there is no such kind.
BROKER_CHECK = """
import sys
from mousetrap.broker import KINDS, kind_named, status
from mousetrap.errors import SettingsError

wanted = sys.argv[1]
try:
    if wanted and kind_named(wanted).is_in_process:
        sys.exit(0)
except SettingsError as error:
    print(error)
    sys.exit(2)
outside = [each for each in status() if not KINDS[each.kind].is_in_process]
print("\\n".join(f"  {each.kind}: {each.note}" for each in outside if each.note))
sys.exit(not any(each.is_available and wanted in ("", each.kind) for each in outside))
"""

APT = shutil.which("apt-get")  # on Debian, Ubuntu and systems like them


def say(line: str) -> None:
    """Print a line about what the script does, on stderr."""
    print(f"mousetrap: {line}", file=sys.stderr, flush=True)


def make_environment() -> None:
    """Make ``.venv`` and install the lock's packages, checked by hash, unless that is done."""
    if sys.version_info < (3, 11):  # noqa: UP036 -- this file is what an older Python meets first
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"mousetrap needs Python 3.11 or newer, and this is {version}")
    wanted = _fingerprint()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    started = time.monotonic()
    if not _is_usable():
        say(f"making {VENV.name} (once)")
        if importlib.util.find_spec("ensurepip") is None:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
            _apt_install(
                [f"python{version}-venv"], "this Python has no ensurepip, which makes .venv"
            )
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    packages = sum("==" in line for line in LOCK.read_text().splitlines())
    say(f"installing up to {packages} packages from deploy/{LOCK.name}")
    # Wheels only: a build would run code and fetch tools that no hash in the lock covers.
    _pip(["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(LOCK)], packages)
    _pip(["--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT)], 1)
    STAMP.write_text(wanted)
    say(f"installed in {time.monotonic() - started:.0f} s")


def require_broker(kind: str | None) -> None:
    """Check that there is a broker; install RabbitMQ on Debian as root, else print what to do.

    *kind* is the kind that the user asked for, as in ``--broker KIND``, or None for any.
    """
    answer = subprocess.run(
        [str(PYTHON), "-c", BROKER_CHECK, kind or ""], capture_output=True, text=True, check=False
    )
    if answer.returncode == 2:  # there is no such kind
        say(answer.stdout.strip())
        sys.exit(2)
    named = kind == "external" or os.environ.get("RABBITMQ_URL") or os.environ.get("RABBITMQ_HOST")
    # Of a named broker that does not run, and of wrong settings, mousetrap gives the reason itself.
    if answer.returncode != 1 or answer.stderr or named:
        return
    if kind == "docker":
        sys.exit(f"mousetrap: Docker cannot be used:\n{answer.stdout}")
    if kind is None and (APT is None or os.geteuid() != 0):
        return  # nothing can be installed: the embedded broker needs nothing
    _apt_install(["rabbitmq-server"], f"there is no broker here:\n{answer.stdout.rstrip()}\n")


def compile_package() -> None:
    """Write the bytecode of everything that processes of the tests import.

    The tests start hundreds of processes. In an image with PYTHONDONTWRITEBYTECODE each would
    compile the package anew, which takes a quarter of a second. pytest has bytecode of its own for
    what it rewrites: it may write that, until it has collected the tests (``tests/conftest.py``).
    """
    folders = ["mousetrap", "tests/rig", "tests/support", "notebooks/peers"]
    subprocess.run([str(PYTHON), "-m", "compileall", "-q", *folders], cwd=ROOT, check=False)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def run(command: list[str], **variables: str) -> int:
    """Run *command* in ``.venv`` with these environment variables; return its exit code."""
    environment = os.environ | variables
    environment["PATH"] = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    environment["VIRTUAL_ENV"] = str(VENV)
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while True:
            # The command receives Ctrl-C, too: wait until it has cleaned up.
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()


def _is_usable() -> bool:
    """Return whether there is a .venv of the same Python version, with pip in it."""
    question = "import sys, pip; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [str(PYTHON), "-c", question], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return answer.stdout.split() == [str(part) for part in sys.version_info[:2]]


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for path in (LOCK, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _pip(arguments: list[str], expected: int) -> None:
    """Run ``pip install`` with a line of progress; print its output if it fails."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    output, collected = [], 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if line.startswith("Collecting "):
                collected += 1
                _progress(f"[{collected}/{expected}] {line.split()[1]}")
            elif line.startswith("Installing collected"):
                _progress("unpacking (half a minute or so)")
    _progress("")
    if process.returncode:
        sys.stderr.write("".join(output[-15:]))
        sys.exit("mousetrap: pip could not install the above: check the network, or a proxy")


def _progress(text: str) -> None:
    if sys.stderr.isatty():  # a log does not need a line for each package
        sys.stderr.write(f"\r{text[:70]:<70}\r")
        sys.stderr.flush()


def _apt_install(packages: list[str], reason: str) -> None:
    names = " ".join(packages)
    command = f"apt-get install {names}"
    if APT is None:
        sys.exit(
            f"mousetrap: {reason}\nInstall Docker (and start it) or RabbitMQ: "
            f"brew install rabbitmq, or conda install -c conda-forge rabbitmq-server"
            if "rabbitmq-server" in packages
            else f"mousetrap: {reason}\nUse a Python with ensurepip, for example from python.org"
        )
    if os.geteuid() != 0:
        sys.exit(f"mousetrap: {reason}\nAs root: {command}; then run this again")
    say(f"{reason}\ninstalling {names} by {command} (a minute or two)")
    environment = os.environ | {
        "DEBIAN_FRONTEND": "noninteractive",
        "RUNLEVEL": "1",  # without systemd: do not start the service; mousetrap starts a node
    }
    steps = (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages])
    for step in steps:
        done = subprocess.run(
            [APT, *step], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.stderr.write(done.stdout[-2000:])
            sys.exit(f"mousetrap: apt-get {step[0]} failed; run it yourself: {command}")


if __name__ == "__main__":
    make_environment()

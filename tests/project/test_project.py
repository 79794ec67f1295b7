"""What the repository promises about itself: pins, hashes, ports, names."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = PROJECT["project"]["name"]
LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
README = (ROOT / "README.md").read_text()
BUILD_HOOK = "hatch_urls.py"  # hatchling runs it
SCRIPTS = [each for each in sorted((ROOT / "deploy").glob("*.py")) if each.name != BUILD_HOOK]
COMPOSE_FILES = sorted((ROOT / "deploy").glob("*.yml"))

# conda-forge's names where they differ from PyPI's
CONDA_NAMES = {"matplotlib-base": "matplotlib", "playwright-python": "playwright"}
TOP_LEVEL = {
    "notebooks", "mousetrap", "tests", "deploy",
    "pyproject.toml", "environment.yml", "README.md", "LICENSE",
}  # fmt: skip


def declared() -> dict[str, Requirement]:
    """Every dependency that pyproject.toml declares, in any extra, by its canonical name."""
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(line) for lines in groups for line in lines]
    return {canonicalize_name(each.name): each for each in requirements if each.name != NAME}


def locked() -> dict[str, list[Requirement]]:
    """Every entry of the lock; a name can have several, for different Python versions."""
    entries: dict[str, list[Requirement]] = {}
    for line in re.findall(r"^([A-Za-z0-9].*?) *\\$", LOCK, re.MULTILINE):
        requirement = Requirement(line)
        entries.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return entries


def test_environment_yml_equals_pyproject():
    """A conda user gets the same dependencies, with the same bounds, and RabbitMQ."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    [pip_section] = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    conda = {}
    for requirement in map(Requirement, plain):
        conda[CONDA_NAMES.get(requirement.name, requirement.name)] = requirement.specifier
    python = conda.pop("python")
    extra = {name: conda.pop(name) for name in ("pip", "rabbitmq-server")}

    assert conda == {name: each.specifier for name, each in declared().items()}
    assert str(python) == PROJECT["project"]["requires-python"]
    assert set(extra) == {"pip", "rabbitmq-server"}
    assert pip_section == ["-e ."]


def test_lock_has_a_hash_for_every_entry():
    """pip can check every file it installs."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", LOCK, flags=re.MULTILINE))
    bare = [each for each in entries if "--hash=sha256:" not in each]

    assert not bare


def test_lock_holds_no_address_and_no_path():
    """The lock says what, never from where: that is the business of whoever installs."""
    assert not re.findall(r"://|file:|--(?:extra-)?index|--find-links|@ |\w/\w|\s/|^-e", LOCK)


def test_lock_satisfies_pyproject():
    """Every dependency, and what builds the package, is locked to a version within its bounds."""
    entries = locked()
    wanted = declared()
    for line in PROJECT["build-system"]["requires"]:
        wanted[Requirement(line).name] = Requirement(line)

    for name, requirement in wanted.items():
        assert name in entries, f"{name} is not in deploy/requirements.lock: make it anew"
        for entry in entries[name]:
            [pin] = entry.specifier
            assert pin.operator == "=="
            assert requirement.specifier.contains(pin.version), f"{entry} is not {requirement}"


def test_top_level_holds_only_what_was_agreed():
    """No file or folder creeps in beside the agreed ones; names with a dot are free."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in listing.stdout.splitlines()}

    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


INSTALLS = re.compile(
    r"\b(?:pip|pipx|uv|uvx|conda|mamba|poetry|pdm)\b[^\n`]{0,40}?\b(?:install|add)\b[^\n`]{0,40}?"
    r"(?<![\w/.-])mousetrap(?![\w/.-])"
)
EXTRA = re.compile(r"(?<![\w.-])mousetrap(-mq)?\[([\w,]+)\]")


def test_install_commands_name_the_distribution():
    """`mousetrap` on the package index is another program; ours is `mousetrap-mq`, with extras."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    wrong = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        wrong += [f"{name}: {found[0]}" for found in INSTALLS.finditer(text)]
        wrong += [
            f"{name}: {found[0]}"
            for found in EXTRA.finditer(text)
            if not found[1] or not set(found[2].split(",")) <= set(extras)
        ]

    assert wrong == []
    other = "mousetrap"  # no file has a command that installs it, not even this one
    assert INSTALLS.search(f"pip install '{other}[postgres]'")
    assert INSTALLS.search(f"pip install -U {other}")
    assert not INSTALLS.search("pip install 'mousetrap-mq[postgres]'")


def test_readme_names_both_commands():
    """The two commands that the README promises are there, and so are the scripts."""
    for command in ("python3 deploy/demo.py", "python3 deploy/test.py"):
        assert command in README
        assert (ROOT / command.split()[1]).is_file()


def test_readme_names_only_files_that_exist():
    """No path in the README leads nowhere."""
    named = set(re.findall(r"\b(?:deploy|notebooks|mousetrap|tests)/[\w./-]*\w", README))
    missing = sorted(path for path in named if "_build" not in path and not (ROOT / path).exists())

    assert not missing


def test_readme_names_only_commands_that_exist():
    """Every `mousetrap something` in the README's code blocks is a command of the CLI."""
    blocks = re.findall(r"^```(?:sh|bash|console|shell)?\n(.*?)^```", README, re.S | re.M)
    lines = re.findall(r"^(?:\$ )?mousetrap +([a-z-]+)", "\n".join(blocks), re.MULTILINE)
    program = Path(sys.executable).with_name("mousetrap")
    unknown = {
        word
        for word in set(lines)
        if subprocess.run([program, word, "--help"], capture_output=True, check=False).returncode
    }

    assert not unknown


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_publishes_on_loopback_only(path):
    """Development credentials are public, so nobody outside this machine may reach the ports."""
    services = yaml.safe_load(path.read_text())["services"]
    ports = [str(port) for service in services.values() for port in service.get("ports", [])]

    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_compose_pins_its_images(path):
    """Every image has a tag with a version in it, also where a variable can override it."""
    services = yaml.safe_load(path.read_text())["services"]
    images = [service["image"] for service in services.values() if "image" in service]

    for image in images:
        default = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", image)
        assert re.search(r":\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$", default), image


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_need_the_standard_library_only(path):
    """The scripts run before anything is installed."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])

    assert imported <= set(sys.stdlib_module_names) | {"bootstrap"}


@pytest.mark.parametrize("name", ["demo.py", "test.py"])
def test_scripts_explain_themselves(name):
    """`--help` answers without installing anything."""
    done = subprocess.run(
        [sys.executable, ROOT / "deploy" / name, "--help"], capture_output=True, text=True,
        check=True, timeout=20,
    )  # fmt: skip

    assert "--broker" in done.stdout


@pytest.fixture
def bootstrap(tmp_path, monkeypatch):
    """The module of the scripts, with a .venv of its own to look at."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "deploy" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path)
    monkeypatch.setattr(module, "STAMP", tmp_path / "mousetrap.stamp")
    return module


def test_bootstrap_installs_once(bootstrap, monkeypatch):
    """An environment made from this lock and this pyproject.toml is left alone."""
    monkeypatch.setattr(bootstrap, "_is_usable", lambda: True)
    pip_runs = []
    monkeypatch.setattr(bootstrap, "_pip", lambda *arguments: pip_runs.append(arguments[0]))

    bootstrap.make_environment()
    bootstrap.make_environment()

    assert len(pip_runs) == 2  # the lock, then the project: once each
    assert "--require-hashes" in pip_runs[0]


def test_bootstrap_says_what_to_do_when_it_may_not_install(bootstrap, monkeypatch):
    """Not root: the command to type; no apt-get: the ways for other systems."""
    monkeypatch.setattr(bootstrap, "APT", "/usr/bin/apt-get")
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(SystemExit, match="As root: apt-get install rabbitmq-server"):
        bootstrap._apt_install(["rabbitmq-server"], "there is no broker here")
    monkeypatch.setattr(bootstrap, "APT", None)
    with pytest.raises(SystemExit, match="brew install rabbitmq"):
        bootstrap._apt_install(["rabbitmq-server"], "there is no broker here")


def test_bootstrap_says_before_it_installs(bootstrap, monkeypatch, tmp_path, capsys):
    """As root on Debian it first names the package and the reason, then calls apt-get."""
    record = tmp_path / "calls.json"
    apt = tmp_path / "apt-get"
    apt.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "call = json.dumps([os.environ['RUNLEVEL'], sys.argv[1:]])\n"
        f"print(call, file=open({str(record)!r}, 'a'))\n"
    )
    apt.chmod(0o755)
    monkeypatch.setattr(bootstrap, "APT", str(apt))
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0, raising=False)

    bootstrap._apt_install(["rabbitmq-server"], "there is no broker here")

    update, install = map(json.loads, record.read_text().splitlines())
    assert update[1][0] == "update"
    assert install == [
        "1", ["install", "-y", "-qq", "--no-install-recommends", "rabbitmq-server"]
    ]  # fmt: skip
    assert "there is no broker here" in capsys.readouterr().err


def test_bootstrap_reads_the_kinds_of_broker_from_the_package(bootstrap, monkeypatch, capsys):
    """An unknown kind is an error before the run; the embedded broker needs nothing installed."""
    monkeypatch.setattr(bootstrap, "PYTHON", sys.executable)
    monkeypatch.setattr(bootstrap, "_apt_install", lambda *_: pytest.fail("nothing to install"))

    with pytest.raises(SystemExit) as ended:
        bootstrap.require_broker("podman")
    assert ended.value.code == 2  # as for any wrong option
    assert "external, docker, local, embedded" in capsys.readouterr().err
    bootstrap.require_broker("embedded")

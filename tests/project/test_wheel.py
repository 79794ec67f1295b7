"""The wheel is whole: with it alone, without a checkout, all commands and notebooks work."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# These prepare a checkout: `mousetrap demo` is demo.py for those who have none.
FOR_A_CHECKOUT = ["deploy/*.py", "deploy/*.lock", "deploy/docs/*"]
NAMES_OF_GITHUB = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "Some/fork"}


def build(source: Path, target: str, folder: Path) -> Path:
    """Build a *target* from *source* as pip does, with the links of a fork; return its file."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=source, env=os.environ | NAMES_OF_GITHUB, check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that is built from this checkout."""
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Unpack the wheel; return a function that runs a command of it in a folder of its own."""
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    here = tmp_path_factory.mktemp("here")
    environment = os.environ | {"PYTHONPATH": str(site), "MOUSETRAP_BROKER": "embedded"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles what it installs

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "mousetrap", *arguments], cwd=here, env=environment,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

    run.site, run.here = site, here
    return run


def tracked(*folders: str) -> set[str]:
    """Return the files of the repository in these folders, also those that are not committed."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    return {name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()}


def place_of(name: str) -> str:
    """Return where a file of the repository is in the wheel."""
    return name if name.startswith("mousetrap/") else f"mousetrap/bundled/{name}"


def test_wheel_has_every_notebook_check_and_deploy_file(wheel):
    """No file of notebooks/, deploy/ or mousetrap/ is missing, and the wheel has no other file."""
    files = tracked("notebooks", "deploy", "mousetrap")
    wanted = {
        place_of(name): (ROOT / name).read_bytes()
        for name in files
        if not any(fnmatch(name, each) for each in FOR_A_CHECKOUT)
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    found = {name: data for name, data in found.items() if ".dist-info/" not in name}

    assert sorted(wanted) == sorted(found)
    assert [name for name, data in wanted.items() if found[name] != data] == []


def test_sdist_builds_the_same_wheel(wheel, tmp_path):
    """Who builds from the sdist gets the same bytes, links included."""
    archive = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path, filter="data")
    [source] = [each for each in tmp_path.iterdir() if each.name != "sdist"]

    again = build(source, "wheel", tmp_path / "wheel")

    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_wheel_links_to_the_repository_that_built_it(wheel):
    """The metadata have the addresses of the repository that GitHub names, of a fork, too."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith("/METADATA")]
        lines = archive.read(name).decode().splitlines()

    assert "Project-URL: Repository, https://github.com/Some/fork" in lines
    assert "Project-URL: Documentation, https://some.github.io/fork/" in lines
    [changelog] = [line for line in lines if line.startswith("Project-URL: Changelog")]
    assert (ROOT / changelog.partition("/blob/main/")[2]).is_file()


def test_a_build_that_is_not_of_github_has_no_links():
    """Where nobody names the repository, no address is invented."""
    spec = importlib.util.spec_from_file_location("hatch_urls", ROOT / "deploy" / "hatch_urls.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.project_urls(ROOT, {}) == {}


def test_installed_package_runs_demo_and_notebooks_without_a_checkout(installed):
    """The demo accounts for its jobs; the copied notebooks run; nothing is written to the site."""
    before = sorted(installed.site.rglob("*.ipynb"))

    demo = installed("demo", "--jobs", "5", "--json")
    copied = installed("notebooks")
    check = installed("check", "notebooks/00_start_here.ipynb")

    assert demo.returncode == 0, demo.stderr
    assert json.loads(demo.stdout)["summary"]["lost"] == 0
    assert (installed.here / "_build" / "check_pipeline.ipynb").is_file()
    assert copied.returncode == 0, copied.stderr
    assert "jupyter lab notebooks" in copied.stderr
    assert check.returncode == 0, check.stderr
    assert sorted(installed.site.rglob("*.ipynb")) == before
    for name in tracked("notebooks"):
        assert (installed.here / name).read_bytes() == (ROOT / name).read_bytes()


def test_installed_package_finds_the_files_of_its_brokers(installed):
    """Compose file and configuration come from the wheel, not from a checkout beside it."""
    question = "from mousetrap.broker.paths import deploy_file; print(deploy_file({!r}))"
    for name in ("development.yml", "rabbitmq.conf"):
        answer = subprocess.run(
            [sys.executable, "-c", question.format(name)], cwd=installed.here, check=True,
            env=os.environ | {"PYTHONPATH": str(installed.site)}, capture_output=True, text=True,
        )  # fmt: skip

        assert Path(answer.stdout.strip()).is_relative_to(installed.site)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_wheel_passes_the_checks_of_the_package_index(wheel, tmp_path):
    """In a clean environment: twine and check-wheel-contents find nothing, and every notebook runs.

    Needs the package index.
    """
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    sdist = build(ROOT, "sdist", tmp_path / "sdist")

    def run(program, *arguments):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(
            [str(programs / program), *map(str, arguments)], cwd=tmp_path, check=True,
            env=environment | {"MOUSETRAP_BROKER": "embedded"},
        )  # fmt: skip

    run("python", "-m", "pip", "install", "-q", f"{wheel}[notebook]", "twine",
        "check-wheel-contents")  # fmt: skip
    run("twine", "check", "--strict", wheel, sdist)
    run("check-wheel-contents", wheel)
    run("mousetrap", "notebooks")
    to_read = sorted((tmp_path / "notebooks").glob("[0-9]*.ipynb"))
    assert len(to_read) >= 11
    run("mousetrap", "check", *to_read, tmp_path / "notebooks" / "check_pipeline.ipynb")

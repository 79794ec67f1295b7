"""`mousetrap doctor`: each test breaks one part of the setup and expects a finding with a fix."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mousetrap import doctor
from mousetrap.broker.configuration import free_ports
from mousetrap.cli import app
from mousetrap.doctor import examine
from mousetrap.runs.run_lock import RunLock


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """No stale runs of this machine are seen."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def broker_only(monkeypatch):
    """The checks of interpreters are slow and have tests of their own."""
    monkeypatch.setattr(doctor, "_interpreters", lambda: ())


def found(settings, what, state="bad", **changes):
    """Return the findings on *what* with this state and these settings."""
    environment = settings.replace(**changes).to_environment()
    return [each for each in examine(environment) if each.what == what and each.state == state]


def test_doctor_finds_nothing_in_a_good_setup(settings):
    """Every check runs, and the broker is left unchanged."""
    findings = list(examine(settings.to_environment()))

    assert [each for each in findings if each.state == "bad"] == []
    assert {each.what for each in findings} == {
        "settings", "address", "version", "login", "alarm", "rights", "interpreter", "kernel",
        "papermill", "pytest", "stale runs",
    }  # fmt: skip
    assert settings.password not in repr(findings)


@pytest.mark.usefixtures("broker_only")
def test_doctor_names_the_variable_that_is_wrong():
    """A wrong setting is found before anything connects."""
    bad = [each for each in examine({"RABBITMQ_PORT": "rabbit"}) if each.state == "bad"]

    assert [(each.what, each.text) for each in bad] == [("settings", "RABBITMQ_PORT is 'rabbit'")]
    assert bad[0].fix == "it must be a whole number"


@pytest.mark.usefixtures("broker_only")
def test_doctor_tries_each_address(settings):
    """Nothing listens on the port, or no host has the name."""
    [port] = free_ports(1)
    assert "127.0.0.1 port" in found(settings, "address", host="127.0.0.1", port=port)[0].text
    assert "broker up" in found(settings, "broker", host="127.0.0.1", port=port)[0].fix
    assert "no host is called" in found(settings, "address", host="no.such.host.invalid")[0].text


@pytest.mark.usefixtures("broker_only")
def test_doctor_distinguishes_a_broker_from_another_server(settings):
    """A server listens that does not speak AMQP."""
    with socket.create_server(("127.0.0.1", 0)) as dumb:
        port = dumb.getsockname()[1]
        [bad] = found(settings.replace(tls=False), "broker", host="127.0.0.1", port=port)

    assert "no AMQP answer" in bad.text
    assert "RABBITMQ_PORT" in bad.fix


@pytest.mark.usefixtures("broker_only")
def test_doctor_distinguishes_login_from_vhost(settings):
    """A wrong password and a missing vhost give different findings."""
    assert "refused the login" in found(settings, "login", password="nope")[0].text
    assert "there is no vhost 'gone'" in found(settings, "login", vhost="gone")[0].text


@pytest.mark.local
@pytest.mark.usefixtures("broker_only")
def test_doctor_finds_an_alarm_and_missing_rights(node):
    """A broker with a memory alarm and a user who may declare nothing are findings."""
    settings = node.settings
    node.rabbitmqctl("add_user", "reader", "secret")
    node.rabbitmqctl("set_permissions", "reader", "^$", "^$", ".*")
    [rights] = found(settings, "rights", "note", user="reader", password="secret")
    node.rabbitmqctl("set_vm_memory_high_watermark", "0")
    [alarm] = found(settings, "alarm")

    assert "may not declare queues: workers use those that exist" in rights.text
    assert "mousetrap topology" in rights.fix
    assert "set_permissions" in rights.fix
    assert "low on memory" in alarm.text


def test_doctor_finds_an_interpreter_without_mousetrap(tmp_path, monkeypatch):
    """The notebook kernel runs another Python, in which mousetrap is not installed."""
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # -S: no site-packages
    other.chmod(0o755)
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps({"argv": [str(other), "-m", "x"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_broker", lambda _: ())
    [bad] = [each for each in examine({}) if each.state == "bad"]

    assert bad.what == "kernel"
    assert f"{other} cannot import mousetrap (ModuleNotFoundError" in bad.text
    assert sys.executable in bad.fix


@pytest.mark.usefixtures("broker_only")
def test_doctor_names_killed_runs_and_touches_nothing(settings, monkeypatch):
    """It names a run whose process is gone, and no live run; it deletes nothing."""
    monkeypatch.setattr(doctor, "_broker", lambda _: ())
    alive = RunLock(settings.replace(namespace="alive"), ["alive.work"])
    dead = RunLock(settings.replace(namespace="dead"), ["dead.work"])
    dead.release()  # as when its process ends
    [first] = [each for each in examine({}) if each.what == "stale runs"]
    [second] = [each for each in examine({}) if each.what == "stale runs"]
    alive.delete()

    assert first == second
    assert first.text == "left behind by 1 killed run of this user: dead"
    assert first.fix.startswith("mousetrap sweep")


@pytest.mark.usefixtures("broker_only")
def test_doctor_names_the_next_step_when_nothing_is_wrong(monkeypatch):
    """The last line is a command to go on with; where something is wrong, the fix is the step."""
    good = doctor.Finding("login", "good", "as guest")
    bad = doctor.Finding("login", "bad", "no user", "make one")
    shown = {}
    for finding in (good, bad):
        monkeypatch.setattr(doctor, "examine", lambda finding=finding: [finding])
        shown[finding] = CliRunner().invoke(app, ["doctor"])

    assert "next: mousetrap demo" in shown[good].output
    assert (shown[good].exit_code, shown[bad].exit_code) == (0, 1)
    assert "next:" not in shown[bad].output


def test_doctor_command_exits_1_and_prints_the_fix(settings):
    """It prints a line for each finding, or JSON; the help has an example."""
    program = [str(Path(sys.executable).with_name("mousetrap")), "doctor"]
    environment = os.environ | settings.replace(vhost="gone").to_environment()

    def run(*arguments):
        return subprocess.run(
            [*program, *arguments], env=environment, capture_output=True, text=True, timeout=60
        )

    shown, data, help = run(), run("--json"), run("--help")

    assert shown.returncode == data.returncode == 1
    assert "WRONG  login        there is no vhost 'gone'" in shown.stdout
    assert "→ check RABBITMQ_VHOST" in shown.stdout
    assert "wrong: login" in shown.stderr
    [bad] = [each for each in json.loads(data.stdout) if each["state"] == "bad"]
    assert (bad["what"], bad["fix"][:5]) == ("login", "check")
    assert "Exit code 1" in help.stdout
    assert "Example:" in help.stdout


def test_doctor_finds_the_other_project_of_that_name(tmp_path, monkeypatch):
    """The package index has a `mousetrap` of others; beside ours it is a finding with a fix."""
    other = tmp_path / "mousetrap-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mousetrap\nVersion: 9.9\n")
    monkeypatch.setattr(doctor, "_broker", lambda _: ())
    monkeypatch.setattr(doctor, "_interpreters", lambda: ())
    assert [each for each in examine({}) if each.state == "bad"] == []

    monkeypatch.syspath_prepend(tmp_path)
    [bad] = [each for each in examine({}) if each.state == "bad"]

    assert "9.9 is installed here" in bad.text
    assert "pip uninstall mousetrap mousetrap-mq, then" in bad.fix
    assert bad.fix.endswith("pip install mousetrap-mq")

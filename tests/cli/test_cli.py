"""All commands: help, errors, exit codes, versions; `sweep` and `broker status`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from support.command_line import send
from support.waiting import wait_for
from typer.main import get_command
from typer.testing import CliRunner

from mousetrap import errors
from mousetrap.cli import app
from mousetrap.cli.commands import COMMANDS, FIRST_STEPS
from mousetrap.cli.errors import ExitCode, code_of
from mousetrap.job_queue import declare, depth, open_channel
from mousetrap.model.topology import Queue

MAX_SUMMARY = 55  # characters


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "check",
        "new",
        "notebooks",
        "work",
        "describe",
        "send",
        "queues",
        "peek",
        "drain",
        "dead list",
        "dead replay",
        "dead purge",
        "extract",
        "sweep",
        "broker up",
        "broker down",
        "broker status",
        "version",
    ],
)
def test_help_has_an_example(run, command):
    """The help of every command shows an example."""
    result = run(*command.split(), "--help")

    assert result.exit_code == 0
    assert f"mousetrap {command}" in result.output
    assert "Example" in result.output


def test_first_steps_are_commands_and_the_help_names_them(run):
    """``mousetrap`` without a command says where to begin, and each step is a command."""
    result = run()

    assert next(iter(FIRST_STEPS)) == "doctor"
    assert set(FIRST_STEPS) <= set(COMMANDS)
    for name in FIRST_STEPS:
        assert f"mousetrap {name}" in result.output


def test_help_cuts_no_summary(monkeypatch):
    """Each command's line fits into 80 columns, in the list of all and in that of its group."""
    monkeypatch.setenv("COLUMNS", "80")
    runner = CliRunner()
    root = get_command(app)
    groups = [[], *([name] for name in root.commands if hasattr(root.commands[name], "commands"))]
    lines = {}
    for words in groups:
        text = runner.invoke(app, [*words, "--help"]).output.partition("Commands:\n")[2]
        shown = text.partition("\n\n")[0].splitlines()
        assert len(shown) == len(COMMANDS if not words else root.commands[words[0]].commands)
        for each in shown:
            name, summary = each.split(None, 1)
            lines[*words, name] = summary

    assert {command: line for command, line in lines.items() if len(line) > MAX_SUMMARY} == {}
    assert not [line for line in lines.values() if line.endswith("...")]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["send", "nowhere", "1"], 1, "--declare"),
        (["send", "work", "{bad"], 2, "byte 1"),
        (["send", "work", "--file", "/no/such/file"], 2, "No such file"),
        (["send", "", "1"], 2, "is empty"),
        (["send", "x" * 300, "1"], 2, "longer than"),
        (["send", "\udcff", "1"], 2, "not valid UTF-8"),
        (["send", "work", "\udcff"], 2, "not JSON"),
        (["send", "work", "1", "--file", "jobs.json"], 2, "one of them"),
        (["queues", "nowhere"], 1, "no queue nowhere"),
        (["queues", "a", "amq.gen"], 2, "belongs to the broker"),
        (["drain", "work", "--timeout", "inf"], 2, "not a number of seconds"),
        (["peek", "nowhere"], 1, "declare"),
        (["drain", "nowhere"], 1, "declare"),
        (["dead", "list", "nowhere"], 1, "nowhere.dead"),
        (["dead", "purge", "work"], 1, "declare"),
        (["work", "fetc"], 2, "did you mean fetch"),
        (["work", "no.such:stage"], 2, "cannot import"),
        (["work", ":stage"], 2, "module:attribute"),
        (["work", "fetch", "--reads", "work"], 2, "has its queues"),
        (["work", "mousetrap.model.encoding:encoder"], 2, "did you mean encode"),
        (["work", "mousetrap.model.encoding:nothing"], 2, "has no 'nothing'"),
        (["work", "mousetrap.model.encoding:encode"], 2, "--reads"),
        (["work", "mousetrap.model.encoding:MAX_BODY_BYTES"], 2, "no stage and no function"),
        (["work", "fetch", "--retry-delays", "soon"], 2, "0.2,1,5"),
        (["work", "fetch", "--retry-delays", "-1"], 2, "retry delay"),
        (["check", "no_such.ipynb"], 1, "no_such.ipynb"),
        (["demo", "-p", "job=3"], 2, "did you mean 'jobs'"),
        (["demo", "-p", "jobs=many"], 2, "jobs"),
        (["demo", "-p", "password=hunter2-canary"], 2, "environment"),
        (["demo", "--broker", "cloud"], 2, "external, docker, local"),
    ],
)
def test_bad_input_is_one_error_message(run, arguments, code, says):
    """The exit code is for scripts, the message for people; there is no traceback."""
    result = run(*arguments)

    assert result.exit_code == code, result.output
    assert says in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert "hunter2-canary" not in result.output


@pytest.mark.parametrize(
    ("environment", "code", "says"),
    [
        ({"RABBITMQ_URL": "amqp://DEV_USER:wr0ng-canary@localhost:{port}"}, 4, "PASSWORD"),
        ({"RABBITMQ_URL": "amqp://nobody:wr0ng-canary@localhost:{port}"}, 4, "RABBITMQ_USER"),
        ({"RABBITMQ_URL": "amqp://{user}:{password}@localhost:{port}/nowhere"}, 4, "VHOST"),
        ({"RABBITMQ_URL": "amqp://{user}:wr0ng-canary@localhost:1"}, 3, "RABBITMQ_PORT"),
        ({"RABBITMQ_URL": "amqp://{user}:wr0ng-canary@no-such-host.invalid"}, 3, "RABBITMQ_HOST"),
        ({"RABBITMQ_URL": "http://{user}:wr0ng-canary@localhost"}, 2, "amqp://"),
        ({"MOUSETRAP_HEARTBEAT": "often"}, 2, "MOUSETRAP_HEARTBEAT"),
    ],
)
@pytest.mark.parametrize("command", [["work", "fetch"], ["queues"], ["demo"]])
def test_wrong_access_is_one_error_message(start, settings, command, environment, code, says):
    """A wrong setting is reported within 5 s, without traceback and without the password."""
    filled = {
        name: value.format(port=settings.port, user=settings.user, password=settings.password)
        for name, value in environment.items()
    }
    process = start(*command, MOUSETRAP_BROKER="external", **filled)
    output, errors = process.communicate(timeout=10)

    assert process.returncode == code, errors
    assert says in errors
    assert "Traceback" not in errors
    assert "wr0ng-canary" not in output + errors
    assert settings.password not in output + errors


@pytest.mark.parametrize("command", [["work", "flow:wait"], ["drain", "work", "-n", "5"]])
def test_interrupt_ends_cleanly(start, settings, command):
    """Ctrl-C ends a command with exit code 130 and without traceback."""
    declare(Queue("work"), "out", settings=settings)
    process = start(*command)
    if command[0] == "work":
        assert "working" in process.stderr.readline()
    else:
        send(settings, 0.5)
        wait_for(lambda: depth("work", settings).messages == 0)  # it has taken this one

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=10)

    assert process.returncode == (0 if command[0] == "work" else 130)
    assert "Traceback" not in errors
    if command[0] == "drain":
        assert "0.5" in output  # what it took, it shows


def test_sweep_lists_what_it_deletes(run, start, settings, tmp_path, monkeypatch):
    """It prints a killed run's namespace and number of queues; a second call finds nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    code = (
        "import mousetrap, os, signal; from mousetrap.run_fetch_worker import fetch\n"
        "mousetrap.run(fetch, mousetrap.Settings.from_environment()).start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | settings.to_environment()
    subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=30)

    first, second = run("sweep", "--json"), run("sweep")

    [leftover] = json.loads(first.stdout)
    assert leftover["namespace"].startswith(settings.namespace)
    # no retry queue and no dead queue: nothing has failed
    names = {each.removeprefix(f"{leftover['namespace']}.") for each in leftover["queues"]}
    assert names == {
        "start_fetch",
        "start_fetch.quarantine",
        "data_processing",
        "run-marker",
        "events",
    }
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "no killed run of this user has left queues behind" in second.stderr


def test_version_names_the_broker(run, broker):
    """It prints the versions that a bug report needs."""
    answer = json.loads(run("version", "--json").stdout)

    assert answer["pika"].startswith("1.4")
    assert answer["broker"]
    assert answer["broker"] in str(broker)


def test_broker_status_is_a_table_and_json(run):
    """It prints the status of each kind of broker."""
    kinds = [way["kind"] for way in json.loads(run("broker", "status", "--json").stdout)]

    assert kinds == ["external", "docker", "local", "embedded"]
    assert "running" in run("broker", "status").output


CODES = {
    "ExtractError": 2, "ScaffoldError": 2,
    "SettingsError": 2, "ParameterError": 2, "BrokerUnreachable": 3, "BrokerSetupError": 3,
    "ConnectionLost": 3, "LimitReached": 3, "AccessRefused": 4, "TopologyMismatch": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values()
     if isinstance(kind, type) and issubclass(kind, errors.MousetrapError)],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_every_error_has_an_exit_code(kind):
    """A new error class has exit code 1 until it gets a code of its own."""
    made_of = {0: ValueError("no")} if kind is errors.FailedItems else "what to do next"
    assert code_of(kind(made_of)) == CODES.get(kind.__name__, ExitCode.FAILED)


def test_exit_codes_are_documented(run):
    """`mousetrap --help` ends with the exit codes."""
    output = run("--help").output

    assert all(str(int(code)) in output.partition("Exit codes")[2] for code in ExitCode)


def test_topology_mismatch_names_the_argument(run, settings):
    """A queue with other arguments gives exit code 5 and one message with the argument."""
    name = f"{settings.namespace}.start_fetch"
    with open_channel(settings) as channel:
        channel.queue_delete(name)
        channel.queue_declare(
            name, durable=True, arguments={"x-expires": 60_000, "x-max-length": 9}
        )

    result = run("send", name, "1", "--declare", MOUSETRAP_NAMESPACE="")

    assert result.exit_code == 5, result.output
    assert "x-" in result.stderr
    assert "Traceback" not in result.output


def test_silent_listener_is_one_error_message(run):
    """A server that accepts and stays silent is reported within 5 s, not after a TCP time-out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        begun = time.monotonic()
        result = run("queues", RABBITMQ_URL=f"amqp://me:canary-1@127.0.0.1:{port}")

    assert (result.exit_code, time.monotonic() - begun < 5) == (3, True)
    assert "RABBITMQ_PORT" in result.output
    assert "canary-1" not in result.output


def test_help_imports_no_command():
    """`mousetrap --help` costs little more than `import typer`: neither rich nor our commands."""
    program = """
import sys
from mousetrap.__main__ import main
sys.argv = ["mousetrap", "--help"]
try:
    main()
finally:
    print("modules:", *sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    text, _, modules = done.stdout.partition("modules:")
    ours = {each for each in modules.split() if each.startswith("mousetrap.")}

    assert all(f"  {name} " in text for name in COMMANDS)
    assert ours <= {
        "mousetrap.__main__", "mousetrap.errors", "mousetrap.cli", "mousetrap.cli.commands",
        "mousetrap.cli.errors", "mousetrap.runtime", "mousetrap.runtime.exit_codes",
    }  # fmt: skip
    assert not {"rich", "asyncio", "email", "importlib.metadata"} & set(modules.split())
    assert max(map(len, text.splitlines())) <= 80


def test_every_command_of_the_table_exists(run):
    """A command is imported when it is looked up, so a wrong home shows only then."""
    for name in COMMANDS:
        assert f" {name} [OPTIONS]" in run(name, "--help").output

"""The command line, as a person or a script uses it, with a real broker."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import nbformat
import pytest
from typer.testing import CliRunner

from mousetrap import errors
from mousetrap.amqp.publisher import Publisher
from mousetrap.cli import app
from mousetrap.cli.errors import ExitCode, code_of
from mousetrap.display import progress
from mousetrap.display.progress import ProgressDisplay
from mousetrap.display.safe_text import safe
from mousetrap.job_queue import declare, depth, drain, open_channel
from mousetrap.model.message import Message
from mousetrap.model.topology import Queue
from mousetrap.run_fetch_worker import fetch

SLOW_STAGE = """
import threading
from mousetrap import stage

@stage(reads="work", writes="out")
def wait(seconds: float) -> float:
    "Wait."
    threading.Event().wait(seconds)
    return seconds

def double(n: int) -> int:
    print("doubling")
    return 2 * n
"""


@pytest.fixture
def run(settings):
    """Run a command in this process and return its result."""
    runner = CliRunner()

    def run(*arguments, input=None, **environment):
        return runner.invoke(
            app, [str(each) for each in arguments], input=input,
            env=settings.to_environment() | {"MOUSETRAP_BROKER": "external"} | environment,
        )  # fmt: skip

    return run


@pytest.fixture
def start(settings, tmp_path):
    """Start a command in a process of its own, which ends with the test."""
    (tmp_path / "flow.py").write_text(SLOW_STAGE)
    running = []

    def start(*arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "mousetrap", *arguments], cwd=tmp_path,
            env=os.environ | settings.to_environment() | environment,
            stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait(10)


def send(settings, *data, queue="work"):
    declare(Queue(queue), settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish_until_confirmed([Message(each) for each in data], queue)


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "check",
        "work",
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


def test_send_confirms_each(run, settings):
    """The messages are confirmed, counted and in the queue."""
    result = run("send", "work", '{"seed": 1}', "--count", 5, "--declare", "--json")

    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["sent"], answer["confirmed"]) == (0, 5, 5)
    assert [m.data for m in drain("work", settings=settings)] == [{"seed": 1}] * 5


def test_send_reads_files_and_standard_input(run, settings, tmp_path):
    """A .jsonl file has one body on each line; '-' reads standard input."""
    lines = tmp_path / "jobs.jsonl"
    lines.write_text('{"n": 1}\n\n{"n": 2}\n')
    declare("work", settings=settings)

    assert run("send", "work", "--file", lines).exit_code == 0
    assert run("send", "work", "-", input="[3]").exit_code == 0

    assert [m.data for m in drain("work", settings=settings)] == [{"n": 1}, {"n": 2}, [3]]


def test_send_without_a_body_triggers_a_stage(run, settings):
    """An empty body is the tutorial's trigger."""
    with fetch.start(settings) as worker:
        assert run("send", "start_fetch").exit_code == 0
        worker.wait_until(done=1)


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
        (["work", "mousetrap.model.message:encoder"], 2, "did you mean encode"),
        (["work", "mousetrap.model.message:nothing"], 2, "has no 'nothing'"),
        (["work", "mousetrap.model.message:encode"], 2, "--reads"),
        (["work", "mousetrap.model.message:MAX_BODY_BYTES"], 2, "no stage and no function"),
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


def test_queues_shows_depths(run, settings):
    """It prints a table for people and JSON for scripts."""
    send(settings, 1, 2)

    assert json.loads(run("queues", "work", "--json").stdout) == [
        {"queue": "work", "messages": 2, "consumers": 0}
    ]
    assert "work.dead" in run("queues", "work", "work.dead").output


def test_peek_leaves_and_drain_takes(run, settings):
    """`peek` leaves the messages in the queue, `drain` takes the same messages out."""
    send(settings, {"n": 1}, {"n": 2})

    peeked = [json.loads(line) for line in run("peek", "work", "--json").stdout.splitlines()]
    drained = [json.loads(line) for line in run("drain", "work", "--json").stdout.splitlines()]

    assert [each["data"] for each in peeked] == [each["data"] for each in drained]
    assert depth("work", settings).messages == 0


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil\x07click\x1b]8;;\x07",
    "\x9b31m",
    "a\rb",
    "\x08\x08\x08",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "[bold]markup[/bold]",
    "[link=http://evil]x[/link]",
    "\x00",
    "\x7f",
]


@pytest.mark.parametrize("body", HOSTILE)
def test_hostile_bodies_are_escaped_on_the_terminal(run, settings, body):
    """Control bytes and bidi controls are escaped; Rich markup is printed as text."""
    declare(Queue("work"), settings=settings)
    with Publisher(settings) as publisher:
        publisher.publish(Message(body=body.encode()), "work").wait()

    shown = run("peek", "work").output.replace("\n", "")

    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
    assert not any(char in shown for char in "\u202e\u2066\u2069")
    if "[" in body and "\x1b" not in body:
        assert body[:6] in shown


def test_safe_escapes_and_cuts():
    """All output goes through `safe`."""
    assert safe("a\x1b[0m\u202eb") == "a\\x1b[0m\\u202eb"
    assert safe("x" * 300, 10) == "x" * 9 + "…"


def test_dead_list_replay_and_purge(run, start, settings):
    """A dead letter is listed with its reason, sent back to its queue, or deleted."""
    send(settings, "not a number")
    process = start("work", "flow:wait", "--retry-delays", "")
    [letter] = drain("work.dead", 1, timeout=10, settings=settings)
    with Publisher(settings) as publisher:  # put it back where it was: drained only to wait for it
        publisher.publish(letter, "work.dead").wait()
    process.terminate()
    process.wait(10)

    listed = json.loads(run("dead", "list", "work", "--json").stdout)
    assert listed["reason"].startswith("UndecodableMessage: wrong type")
    assert "wrong type" in " ".join(run("dead", "list", "work", "--traceback").output.split())

    assert json.loads(run("dead", "replay", "work", "--json").stdout) == {"replayed": 1}
    assert depth("work", settings).messages == 1
    assert run("dead", "purge", "work").exit_code == 2  # nobody to ask
    assert run("dead", "purge", "work", "--yes").exit_code == 0


def test_work_runs_a_stage_until_sigterm(start, settings):
    """It prints what it works on, works, and prints a summary after SIGTERM."""
    send(settings, 0.01, 0.01, 0.01)
    process = start("work", "flow:wait", "--concurrency", "2", "--json")

    assert len(drain_when_there("out", 3, settings)) == 3
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=10)

    assert process.returncode == 0, errors
    assert "working: work → wait → out, concurrency 2" in errors
    assert json.loads(output)["done"] == 3
    assert settings.password not in errors


def test_work_prints_what_it_waits_for_after_a_signal(start, settings):
    """It prints how long the message in progress may take, and what a second signal does."""
    send(settings, 30)
    process = start("work", "flow:wait")
    assert "working" in process.stderr.readline()
    wait_until(lambda: depth("work", settings).messages == 0)  # it has taken it

    process.send_signal(signal.SIGTERM)
    assert "stopping: 1 in progress, which may take up to 10 s" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    assert process.returncode == 128 + signal.SIGINT
    wait_until(lambda: depth("work", settings).messages == 1)  # it comes again


def test_work_runs_a_plain_function(start, settings):
    """It runs any function of one argument, with the queues of the command line."""
    send(settings, 21)
    start("work", "flow:double", "--reads", "work", "--writes", "out")

    assert [m.data for m in drain_when_there("out", 1, settings)] == [42]


@pytest.mark.parametrize("command", [["work", "flow:wait"], ["drain", "work", "-n", "5"]])
def test_interrupt_ends_cleanly(start, settings, command):
    """Ctrl-C ends a command with exit code 130 and without traceback."""
    declare(Queue("work"), "out", settings=settings)
    process = start(*command)
    if command[0] == "work":
        assert "working" in process.stderr.readline()
    else:
        send(settings, 0.5)
        wait_until(lambda: depth("work", settings).messages == 0)  # it has taken this one

    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=10)

    assert process.returncode == (0 if command[0] == "work" else 130)
    assert "Traceback" not in errors
    if command[0] == "drain":
        assert "0.5" in output  # what it took, it shows


def test_check_lists_parameters(run):
    """`--parameters` lists the parameters without a run."""
    output = run("check", "notebooks/check_pipeline.ipynb", "--parameters").output

    assert "failure_rate" in output
    assert "float" in output


def test_demo_accounts_for_every_job(run):
    """The demo runs real worker processes and prints the summary as JSON."""
    result = run("demo", "--jobs", 20, "-p", "broken_jobs=1", "--json")

    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["passed"]
    assert answer["summary"]["lost"] == 0
    assert answer["summary"]["dead"] >= 1


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
    assert len(leftover["queues"]) == 8  # work, three retries, dead, suspects, result, events
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "no run has left anything behind" in second.stderr


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
    "ExtractError": 2,
    "SettingsError": 2, "ParameterError": 2, "BrokerUnreachable": 3, "BrokerSetupError": 3,
    "ConnectionLost": 3, "AccessRefused": 4, "TopologyMismatch": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values()
     if isinstance(kind, type) and issubclass(kind, errors.MousetrapError)],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_every_error_has_an_exit_code(kind):
    """A new error class has exit code 1 until it gets a code of its own."""
    assert code_of(kind("what to do next")) == CODES.get(kind.__name__, ExitCode.FAILED)


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


def test_send_names_the_bad_line(run, tmp_path):
    """The error has the line number that an editor shows; nothing is sent."""
    lines = tmp_path / "jobs.jsonl"
    lines.write_text('{"n": 1}\n\n{"n": \n')

    result = run("send", "work", "--file", lines)

    assert result.exit_code == 2
    assert "line 3 of" in result.output


def test_send_of_nothing_is_an_error(run, tmp_path):
    """An empty .jsonl file is an error, not a success."""
    (tmp_path / "jobs.jsonl").write_text("\n")

    assert run("send", "work", "--file", tmp_path / "jobs.jsonl").exit_code == 2


def test_send_raw_sends_any_bytes(run, settings):
    """With --raw it sends the bytes that the shell passed, UTF-8 or not."""
    declare("work", settings=settings)

    assert run("send", "work", "{bad \udcff", "--raw").exit_code == 0

    assert [m.body for m in drain("work", settings=settings)] == [b"{bad \xff"]


def test_drain_fails_when_too_few_came(run, settings):
    """Exit code 1 if two were wanted and one came; the one is printed."""
    send(settings, 1)

    result = run("drain", "work", "-n", 2, "--timeout", 0.3, "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["data"] == 1
    assert "1 of 2" in result.stderr


def test_drain_with_idle_takes_what_is_there(run, settings):
    """With --idle, -n is only a limit."""
    send(settings, 1)

    assert run("drain", "work", "-n", 2, "--idle", 0.1).exit_code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty on Windows")
def test_drain_writes_to_its_file_while_a_terminal_watches(start, settings):
    """With `drain --json > file` the file gets the messages, the terminal only the progress."""
    send(settings, {"n": 1})
    terminal, side = os.openpty()
    process = start("drain", "work", "--json", "-n", "2", stderr=side, TERM="xterm")
    first = process.stdout.readline()
    seen = read_until(terminal, b"draining work")  # the bar, for this takes longer than 2 s
    send(settings, {"n": 2})
    output, _ = process.communicate(timeout=10)
    os.close(side)
    os.close(terminal)

    assert [json.loads(line)["data"] for line in [first, output]] == [{"n": 1}, {"n": 2}]
    assert b'"data"' not in seen


def test_terminate_is_like_interrupt_for_drain(start, settings):
    """`timeout 10 mousetrap drain` sends SIGTERM; the messages already taken are printed."""
    declare(Queue("work"), settings=settings)
    process = start("drain", "work", "-n", "5")
    send(settings, 0.25)
    wait_until(lambda: depth("work", settings).messages == 0)

    process.terminate()
    output, problems = process.communicate(timeout=10)

    assert process.returncode == 128 + signal.SIGTERM
    assert "0.25" in output
    assert "terminated" in problems
    assert "Traceback" not in problems


def test_old_code_pages_do_not_break_the_output(start, settings):
    """Characters that a terminal cannot show are escaped, so no message is lost by them."""
    send(settings, "Øre → ☃")

    output, problems = start("drain", "work", PYTHONIOENCODING="ascii").communicate(timeout=10)

    assert "\\u2603" in output, problems


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty on Windows")
@pytest.mark.parametrize(
    ("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 1), (signal.SIGINT, 130, 1)]
)
def test_purge_asks_a_person(start, settings, answer, code, left):
    """It deletes after yes, not after no or Ctrl-C."""
    send(settings, 1, queue="work.dead")
    terminal, side = os.openpty()
    process = start("dead", "purge", "work", stdin=side, stderr=side)
    seen = read_until(terminal, b"[y/N]")

    if isinstance(answer, bytes):
        os.write(terminal, answer)
    else:
        process.send_signal(answer)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
        if process.poll() is None:  # it came just before the read began: a person presses again
            process.send_signal(answer)

    assert process.wait(10) == code
    assert depth("work.dead", settings).messages == left
    assert b"Delete 1 messages of work.dead?" in seen
    os.close(side)
    os.close(terminal)


def test_replay_of_an_unknown_id_fails(run, settings):
    """An id that no dead letter has gives exit code 1."""
    send(settings, 1, queue="work.dead")

    result = run("dead", "replay", "work", "--id", "nobody")

    assert result.exit_code == 1
    assert "mousetrap dead list work" in result.output
    assert run("dead", "replay", "work", "--id", "").exit_code == 2


def test_work_names_the_line_of_a_module_that_fails(start, tmp_path):
    """The error of a module that cannot be imported has file, line and the next step."""
    (tmp_path / "broken.py").write_text("x = 1\nraise LookupError('no luck')\n")
    _, problems = start("work", "broken:stage").communicate(timeout=10)

    assert "broken.py, line 2: LookupError: no luck" in problems
    assert "Traceback" not in problems


def test_work_prints_once_why_it_does_not_start(start):
    """It prints one message, without a log line of the same text and without a summary."""
    url = "amqp://nobody:wr0ng-canary@localhost"
    _, problems = start("work", "fetch", RABBITMQ_URL=url).communicate(timeout=10)

    assert len(problems.splitlines()) == 1


def test_work_with_json_keeps_prints_off_stdout(start, settings):
    """What a handler prints does not mix with the JSON."""
    send(settings, 21)
    process = start("work", "flow:double", "--reads", "work", "--writes", "out", "--json")
    drain_when_there("out", 1, settings)
    process.terminate()
    output, problems = process.communicate(timeout=10)

    assert json.loads(output)["done"] == 1
    assert "doubling" in problems


def test_work_fails_when_a_handler_runs_too_long(start, settings):
    """A message still in progress after --grace gives exit code 1; the error names its queue."""
    send(settings, 30)
    process = start("work", "flow:wait", "--grace", "0.2")
    assert "working" in process.stderr.readline()
    wait_until(lambda: depth("work", settings).messages == 0)

    process.terminate()
    _, problems = process.communicate(timeout=10)

    assert process.returncode == 1
    assert "will be delivered again" in problems


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook with one parameter and one cell."""

    def make(source):
        cells = [nbformat.v4.new_code_cell(each) for each in ("n: int = 1  # a number", source)]
        cells[0].metadata.tags = ["parameters"]
        path = tmp_path / "notes.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return make


def test_check_that_fails_names_the_cell(run, notebook):
    """It prints the cell and its error, with exit code 1; the JSON has the executed copy's path."""
    path = notebook("assert n == 2")

    result = run("check", path, "-p", "n=3", "--json")

    assert result.exit_code == 1
    assert "cell 2" in result.stderr
    answer = json.loads(result.stdout)
    assert not answer["passed"]
    assert answer["parameters"] == {"n": 3}
    assert os.path.exists(answer["output"])


def test_check_goes_on_after_a_failure(run, notebook, tmp_path):
    """Each of several notebooks runs; the highest exit code is the result."""
    path = notebook("n")

    result = run("check", tmp_path / "missing.ipynb", path)

    assert result.exit_code == 1
    assert f"passed: {path}" in result.stderr


def test_check_interrupted_ends_the_kernel_and_keeps_the_copy(start, notebook, tmp_path):
    """Ctrl-C in a cell gives exit code 130, and the executed copy records the interrupt."""
    path = notebook(f"open({str(tmp_path / 'begun')!r}, 'w').close()\nimport time; time.sleep(60)")
    process = start("check", str(path))
    wait_until((tmp_path / "begun").exists, timeout=60)

    process.send_signal(signal.SIGINT)
    _, problems = process.communicate(timeout=15)

    assert process.returncode == 130
    assert "Traceback" not in problems
    assert "KeyboardInterrupt" in (tmp_path / "_build" / "notes.ipynb").read_text()


def test_check_lists_parameters_as_json(run, notebook):
    """The JSON has name, type, default and help of each parameter."""
    path = notebook("n")

    assert json.loads(run("check", path, "--parameters", "--json").stdout) == {
        str(path): [{"name": "n", "type": "int", "default": 1, "help": "a number"}]
    }


def test_progress_is_plain_lines_without_a_terminal(monkeypatch, capsys):
    """A log gets a line at an interval, not one for each update."""
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    with ProgressDisplay("sending", 1000) as display:
        display.advance(10)
        display.advance(20)

    assert capsys.readouterr().err == "sending: 10 of 1,000\n"


def test_progress_shows_no_bar_for_a_short_wait(monkeypatch):
    """A wait of less than two seconds prints nothing."""
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressDisplay("sending", 2) as display:
        display.advance(1)

    assert stream.getvalue() == ""


def test_help_imports_nothing_slow():
    """`mousetrap --help` imports no papermill, IPython, matplotlib or faker."""
    program = "import sys, mousetrap.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    heavy = {"papermill", "nbformat", "IPython", "matplotlib", "faker", "mousetrap.check"}
    assert not heavy & set(done.stdout.split())


def read_until(terminal, text, timeout=10.0):
    """Read from a terminal until it has printed *text*."""
    seen = b""
    deadline = time.monotonic() + timeout
    os.set_blocking(terminal, False)
    while text not in seen and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            seen += os.read(terminal, 4096)
    os.set_blocking(terminal, True)
    assert text in seen
    return seen


def wait_until(claim, timeout=10.0):
    """Return when *claim* holds."""
    deadline = time.monotonic() + timeout
    while not claim():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.02)


def drain_when_there(queue, n, settings):
    """Wait for *n* messages in a queue that a worker is about to declare."""
    declare(queue, settings=settings)
    return drain(queue, n, timeout=15, settings=settings)

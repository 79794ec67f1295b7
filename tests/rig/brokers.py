"""Brokers that a test may kill: a container of any RabbitMQ version.

`mousetrap.broker.RabbitMQNode`, a private node of the installed RabbitMQ, has the same methods as
`Container`. All brokers listen on 127.0.0.1 and have the label of their test run; `remove_stale`
removes those that a killed test run has left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from mousetrap.broker import RabbitMQNode, docker, ensure
from mousetrap.broker.configuration import free_ports
from mousetrap.broker.probe import wait_until_ready
from mousetrap.errors import MousetrapError
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

LABEL = "mousetrap.rig"  # its value names the test run
PROJECT = "mousetrap-test-"  # prefix of our compose projects; the rest names the test run
VERSION_VARIABLE = "RIG_RABBITMQ"  # environment variable: the RabbitMQ version to test with
NEWEST = "4.3"
# Features that later versions will not have: these brokers refuse them, so that we notice now.
DENIED_FEATURES = {
    "4.0": ["transient_nonexcl_queues", "global_qos"],
    "4.3": ["transient_nonexcl_queues", "global_qos"],
}


def ask_docker(*arguments: str, timeout: float = 60.0) -> str:
    """Run docker and return what it prints; fail with the end of its error output."""
    done = subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr.strip()[-300:]}"
    return done.stdout


@contextlib.contextmanager
def parameters(broker: Container | RabbitMQNode, **values: int) -> Iterator[None]:
    """Give parameters of the running broker other *values* while the block runs."""
    before = {}
    for name in values:
        answer = broker.rabbitmqctl("eval", f"application:get_env(rabbit, {name}).").strip()
        before[name] = answer.removeprefix("{ok,").removesuffix("}")

    def change(to: Mapping[str, object]) -> None:
        orders = [
            # if `quorum_tick_interval` is set to `undefined`, no quorum queue can be declared
            f"application:unset_env(rabbit, {name})"
            if value == "undefined"
            else f"application:set_env(rabbit, {name}, {value})"
            for name, value in to.items()
        ]
        broker.rabbitmqctl("eval", f"{', '.join(orders)}.")

    change(values)
    try:
        yield
    finally:
        change(before)


def has_forgotten(broker: Container | RabbitMQNode, queue: str) -> bool:
    """Return whether the broker has begun the quorum queue *queue* (on the wire) a second time.

    RabbitMQ 4.3 logs it. Before, the first time has left a folder, whose configuration has the name
    of the queue.
    """
    said = broker.log() if isinstance(broker, Container) else ""
    if f"member of queue '{queue}' in vhost '/' was not found" in said:
        return True
    files = 'filename:join(maps:get(data_dir, ra_system:fetch(quorum_queues)), "*/config")'
    found = f"F <- filelib:wildcard({files}), {{ok, [#{{id := {{N, _}}}}]}} <- [file:consult(F)]"
    begun = f'[F || {found}, N == list_to_atom("%2F_{queue}")]'
    return int(broker.rabbitmqctl("eval", f"length({begun}).")) > 1


class Container:
    """RabbitMQ of *version* in a container; it keeps port and messages over `kill` and `start`.

    *disk_size*: MiB of a disk in memory for its data, which a `kill` deletes.
    """

    def __init__(
        self,
        version: str = NEWEST,
        *,
        configuration: str = "",
        host: str = "",
        networks: tuple[str, ...] = (),
        cookie: str = "",
        disk_size: int = 0,
    ) -> None:
        self.name = f"mousetrap-rig-{os.getpid()}-{host or secrets.token_hex(3)}"
        self.settings = Settings(host="127.0.0.1", port=free_ports(1)[0])
        options = ["--name", self.name, "--hostname", host or "rabbit", "--label", run_label(),
                   "--publish", f"127.0.0.1:{self.settings.port}:5672"]  # fmt: skip
        environment = {
            "RABBITMQ_DEFAULT_USER": self.settings.user,
            "RABBITMQ_DEFAULT_PASS": self.settings.password,
        }
        if disk_size:
            options += ["--tmpfs", f"/var/lib/rabbitmq:size={disk_size}m,mode=1777"]
        if cookie:
            environment["RABBITMQ_ERLANG_COOKIE"] = cookie
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        if networks:
            options += ["--network", networks[0]]
        ask_docker("create", *options, f"rabbitmq:{version}-management")
        for network in networks[1:]:
            ask_docker("network", "connect", "--alias", host, network, self.name)
        features = [each for each in DENIED_FEATURES.get(version, []) if each not in configuration]
        denied = [f"deprecated_features.permit.{each} = false" for each in features]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "conf.d" / "30-rig.conf"
            file.parent.mkdir(mode=0o755)
            file.write_text("\n".join([*denied, "disk_free_limit.absolute = 50MB", configuration]))
            file.chmod(0o644)  # the broker in the container runs as another user
            ask_docker("cp", str(file.parent), f"{self.name}:/etc/rabbitmq/")

    def start(self) -> None:
        """Start it, also again, and return when it delivers messages."""
        ask_docker("start", self.name)
        self.wait_until_ready()

    def wait_until_ready(self, timeout: float = 90.0) -> None:
        def ended() -> str | None:
            state = ask_docker("inspect", "--format", "{{.State.Running}}", self.name)
            return None if "true" in state else f"it ended: {self.log()[-1000:]}"

        deadline = time.monotonic() + timeout
        wait_until_ready(self.settings, deadline, self.name, lambda _: None, ended)

    def kill(self) -> None:
        """End it by SIGKILL, as a power cut would."""
        ask_docker("kill", self.name)

    def stop(self) -> None:
        """Stop it in an orderly way."""
        ask_docker("stop", self.name)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Stop all its processes until the block ends; their connections stay open.

        By signals: `docker pause` fails now and then on a busy machine.
        """
        listed = ask_docker("top", self.name, "-eo", "pid").split()[1:]
        pids = [int(pid) for pid in listed]
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def rabbitmqctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` in it and return its output."""
        return self.run("rabbitmqctl", "-q", *arguments, timeout=timeout)

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run *command* in it and return its output."""
        return ask_docker("exec", self.name, *command, timeout=timeout)

    def log(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def close(self) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True)


def start_broker(version: str | None = None) -> Container | RabbitMQNode:
    """Return a broker that the tests may kill, started: a container, or else a private node.

    Skips the test if neither is possible; in CI it fails.
    """
    version = version or requested_version()
    if not docker.problem() and has_image(version):
        remove_stale()
        container = Container(version)
        try:
            container.start()
        except BaseException:
            container.close()
            raise
        return container
    try:
        node = ensure("local", Settings(), log=lambda _: None).node
    except MousetrapError as error:
        missing(f"no Docker with rabbitmq:{version}-management and no private node: {error}")
    assert node is not None
    return node


def requested_version() -> str:
    """Return the RabbitMQ version to test with."""
    return os.environ.get(VERSION_VARIABLE) or NEWEST


def has_image(version: str) -> bool:
    """Return whether the image is on this machine: no test pulls one."""
    image = f"rabbitmq:{version}-management"
    return not subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode


def run_label() -> str:
    return f"{LABEL}={_test_run()}"


def compose_project() -> str:
    """Return a name for a compose project that only this test run has."""
    return PROJECT + _test_run()


def remove_stale() -> list[str]:
    """Remove what test runs have left whose process has ended; return the names."""
    gone = []
    for kind, name, remove in (
        ("ps --all", "{{.Names}}", "rm --force --volumes"),
        ("network ls", "{{.Name}}", "network rm"),
        ("volume ls", "{{.Name}}", "volume rm"),
    ):
        for label, prefix in ((LABEL, ""), ("com.docker.compose.project", PROJECT)):
            listing = ask_docker(*kind.split(), "--filter", f"label={label}", "--format",
                                 f'{name} {{{{.Label "{label}"}}}}')  # fmt: skip
            for line in listing.splitlines():
                thing, _, run = line.partition(" ")
                if run.startswith(prefix) and not _is_alive(run.removeprefix(prefix)):
                    subprocess.run(["docker", *remove.split(), thing], capture_output=True)
                    gone.append(thing)
    return gone


def _test_run() -> str:
    return f"{os.getpid()}-{start_time(os.getpid())}"


def _is_alive(run: str) -> bool:
    pid, _, born = run.partition("-")
    return pid.isdigit() and bool(born) and start_time(int(pid)) == born


def start_time(pid: int) -> str:
    """Return when *pid* started, in ticks since boot: a later process differs in pid or time."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""

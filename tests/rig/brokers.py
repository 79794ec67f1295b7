"""Brokers that a test may break: a container of some version.

A private node of what is installed here is `mousetrap.broker.RabbitMQNode`; it and `Container` know
the same words. Everything listens on 127.0.0.1 and carries the label of the test run that made it:
`sweep` removes what a killed run has left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import tempfile
import time
from pathlib import Path

from mousetrap.broker import RabbitMQNode, docker, ensure
from mousetrap.broker.configuration import free_ports
from mousetrap.broker.probe import wait_until_ready
from mousetrap.errors import MousetrapError
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

LABEL = "mousetrap.rig"  # the value tells the test run
PROJECT = "mousetrap-test-"  # begins the names of our compose projects; the rest tells the test run
VERSION = "RIG_RABBITMQ"  # the variable that names the version to test with
NEWEST = "4.3"
# What later versions will not have: a broker that has the switch denies it, so that we meet it now.
DENIED = {
    "4.0": ["transient_nonexcl_queues", "global_qos"],
    "4.3": ["transient_nonexcl_queues", "global_qos"],
}


def ask_docker(*arguments: str, timeout: float = 60.0) -> str:
    """Run docker and return what it printed; a failure raises with its last line."""
    done = subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr.strip()[-300:]}"
    return done.stdout


class Container:
    """One RabbitMQ of *version* in a container; same port and messages after `kill` and `start`.

    *room*: MiB of a disk in memory, for messages and all; it does not outlast a `kill`.
    """

    def __init__(
        self,
        version: str = NEWEST,
        *,
        configuration: str = "",
        host: str = "",
        networks: tuple[str, ...] = (),
        cookie: str = "",
        room: int = 0,
    ) -> None:
        self.name = f"mousetrap-rig-{os.getpid()}-{host or secrets.token_hex(3)}"
        self.settings = Settings(host="127.0.0.1", port=free_ports(1)[0])
        options = ["--name", self.name, "--hostname", host or "rabbit", "--label", mark(),
                   "--publish", f"127.0.0.1:{self.settings.port}:5672"]  # fmt: skip
        environment = {
            "RABBITMQ_DEFAULT_USER": self.settings.user,
            "RABBITMQ_DEFAULT_PASS": self.settings.password,
        }
        if room:
            options += ["--tmpfs", f"/var/lib/rabbitmq:size={room}m,mode=1777"]
        if cookie:
            environment["RABBITMQ_ERLANG_COOKIE"] = cookie
        for name, value in environment.items():
            options += ["--env", f"{name}={value}"]
        if networks:
            options += ["--network", networks[0]]
        ask_docker("create", *options, f"rabbitmq:{version}-management")
        for network in networks[1:]:
            ask_docker("network", "connect", "--alias", host, network, self.name)
        denied = [f"deprecated_features.permit.{each} = false"
                  for each in DENIED.get(version, []) if each not in configuration]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "conf.d" / "30-rig.conf"
            file.parent.mkdir(mode=0o755)
            file.write_text("\n".join([*denied, "disk_free_limit.absolute = 50MB", configuration]))
            file.chmod(0o644)  # the broker in there is another user
            ask_docker("cp", str(file.parent), f"{self.name}:/etc/rabbitmq/")

    def start(self) -> None:
        """Start it, or start it again, and return when it gives a message back."""
        ask_docker("start", self.name)
        self.wait_until_ready()

    def wait_until_ready(self, timeout: float = 90.0) -> None:
        def ended() -> str | None:
            state = ask_docker("inspect", "--format", "{{.State.Running}}", self.name)
            return None if "true" in state else f"it ended: {self.log()[-1000:]}"

        deadline = time.monotonic() + timeout
        wait_until_ready(self.settings, deadline, self.name, lambda _: None, ended)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        ask_docker("kill", self.name)

    def stop(self) -> None:
        """Have it end in good order."""
        ask_docker("stop", self.name)

    def rabbitmqctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` in it and return what it printed."""
        return self.run("rabbitmqctl", "-q", *arguments, timeout=timeout)

    def run(self, *command: str, timeout: float = 60.0) -> str:
        """Run *command* in it and return what it printed."""
        return ask_docker("exec", self.name, *command, timeout=timeout)

    def log(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def close(self) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True)


def breakable(version: str | None = None) -> Container | RabbitMQNode:
    """Return a broker of our own that runs: a container, or a private node where Docker is not.

    Skips without either; in CI it fails.
    """
    version = version or wanted()
    if not docker.problem() and is_here(version):
        sweep()
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


def wanted() -> str:
    """The version that this test run asks for."""
    return os.environ.get(VERSION) or NEWEST


def is_here(version: str) -> bool:
    """The image is on this machine; nothing is pulled behind a test's back."""
    image = f"rabbitmq:{version}-management"
    return not subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode


def mark() -> str:
    return f"{LABEL}={_this_run()}"


def compose_project() -> str:
    """A name for a compose project: never the developer's, nor one that a killed run left."""
    return PROJECT + _this_run()


def sweep() -> list[str]:
    """Remove what test runs have left that are dead; return the names."""
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


def _this_run() -> str:
    return f"{os.getpid()}-{birth(os.getpid())}"


def _is_alive(run: str) -> bool:
    pid, _, born = run.partition("-")
    return pid.isdigit() and bool(born) and birth(int(pid)) == born


def birth(pid: int) -> str:
    """When process *pid* began, in ticks since the boot: no later one has both the same."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""

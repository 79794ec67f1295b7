"""The kind *docker*: ``deploy/development.yml``, started by ``docker compose``.

The containers belong to the compose project ``mousetrap`` (``MOUSETRAP_COMPOSE_PROJECT`` overrides
it), whichever folder the checkout is in: a machine has one development broker, and its volume
survives when the checkout is moved.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from mousetrap.broker import probe
from mousetrap.broker.broker import Broker, describe
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.paths import deploy_file
from mousetrap.broker.probe import Log
from mousetrap.errors import AccessRefused, BrokerSetupError, WireError
from mousetrap.job_queue import ping
from mousetrap.runtime import clock
from mousetrap.settings import MASK, Settings

PULL_TIMEOUT = 900.0  # seconds: an image of 100 MB over a slow line; not part of the start
DOWN_TIMEOUT = 120.0  # seconds for `docker compose down`; a guess: it takes about ten
DOCKER_TIMEOUT = 20.0  # seconds for a query; a guess: `docker info` answers in less than one


def project() -> str:
    """Return the compose project that all our containers, networks and volumes belong to."""
    return os.environ.get("MOUSETRAP_COMPOSE_PROJECT") or "mousetrap"


def problem() -> str | None:
    """Return in one sentence why Docker cannot be used here; None if it can."""
    if shutil.which("docker") is None:
        return (
            "Docker is not installed (no `docker` on the PATH): install it, or use another kind "
            "of broker"
        )
    if _run("docker", "compose", "version").returncode:
        return (
            "this Docker has no `docker compose`: install the plugin docker-compose-plugin "
            "(Docker Desktop brings it)"
        )
    info = _run("docker", "info", "--format", "{{.ServerVersion}}")
    if info.returncode and "permission denied" in info.stderr:
        return "this user may not use Docker: sudo usermod -aG docker $USER, then log in again"
    if info.returncode:
        return "the Docker daemon is not running: start Docker Desktop, or systemctl start docker"
    return None


class Docker:
    """Starts the compose project, and joins it when it runs; its container stays up."""

    name = "docker"
    is_in_process = False

    def status(self, settings: Settings) -> BrokerStatus:  # noqa: ARG002 -- as every kind
        """Report on the compose project."""
        reason = problem()
        port = None if reason else _container().port
        version = probe.version(Settings(port=port)) if port else None
        return BrokerStatus(
            kind=self.name,
            is_available=reason is None,
            is_running=port is not None,
            address=f"localhost:{port}" if port else "",
            version=version or "",
            note=reason or "",
        )

    def up(self, settings: Settings, timeout: float, log: Log) -> Broker:
        """Return the broker of the compose project, and start it if it does not answer.

        Raises:
            BrokerSetupError: no Docker, no image, port taken, or not ready in time.
        """
        return describe(self.name, start(settings, timeout, log), log)

    join = up

    def down(self, log: Log) -> bool:
        """Remove the project's containers and keep its volume; return False if there were none.

        Raises:
            BrokerSetupError: Docker did not do it; the error has Docker's last line.
        """
        if problem() or not _container().exists:
            return False
        log(f"waiting for the container of {project()!r} to stop")
        done = _compose("down", environment=dict(os.environ), timeout=DOWN_TIMEOUT, log=log)
        if done is None or done.returncode:
            raise BrokerSetupError(f"docker compose down failed: {_last_line(done)}")
        return True


def start(settings: Settings, timeout: float, log: Log) -> Settings:
    """Start the compose project unless it answers already; return the settings that reach it.

    Raises:
        BrokerSetupError: no Docker, no image, port taken, or not ready in time: one sentence each.
    """
    if reason := problem():
        raise BrokerSetupError(reason)
    settings = settings.replace(host="localhost", tls=False)
    container = _container()
    if container.port is not None:
        _require_same(container, settings)
        try:
            ping(settings)
        except WireError:
            pass  # it may be starting, or its settings have changed: compose does what is needed
        else:
            return settings
    elif not probe.is_free(settings.port):
        raise BrokerSetupError(_port_taken(settings.port, "RABBITMQ_PORT"))
    environment = _environment(settings)
    _require_image(environment, log)
    try:
        _compose_up(settings, environment, timeout, log)
    except (AccessRefused, BrokerSetupError) as error:
        if not container.exists:  # leave no container that restarts for ever or that no one can use
            _compose("down", "--timeout", "3", environment=environment, timeout=60, log=log)
        if isinstance(error, AccessRefused):
            raise BrokerSetupError(f"{error}; {_volume_hint()}") from error
        raise
    return settings


def _compose_up(settings: Settings, environment: dict[str, str], timeout: float, log: Log) -> None:
    started = clock.monotonic()
    log(f"waiting for the container of {project()!r} to boot (usually 10 to 20 s)")
    done = _compose(
        "up", "--detach", "--wait", "--wait-timeout", f"{max(1, int(timeout))}",
        environment=environment, timeout=timeout + 10, log=log,
    )  # fmt: skip
    if done is None or done.returncode:
        stderr = done.stderr if done else ""
        waited = clock.monotonic() - started
        raise BrokerSetupError(_start_error(stderr, settings, environment, waited))
    what = "the dockerised RabbitMQ"
    probe.wait_until_ready(settings, started + timeout, what, log, lambda: None)


@dataclass(frozen=True)
class _Container:
    exists: bool
    image: str = ""
    port: int | None = None  # on this machine; None if it does not run


def _container() -> _Container:
    listing = _run(
        "docker", "ps", "--all", "--format", "{{.Image}} {{.Ports}}",
        "--filter", f"label=com.docker.compose.project={project()}",
        "--filter", "label=com.docker.compose.service=rabbit",
    )  # fmt: skip
    if not listing.stdout.strip():
        return _Container(exists=False)
    port = re.search(r":(\d+)->5672/tcp", listing.stdout)
    return _Container(True, listing.stdout.split()[0], int(port[1]) if port else None)


def _require_same(container: _Container, settings: Settings) -> None:
    """Check that the running container has the port and the image that are asked for.

    Raises:
        BrokerSetupError: it has another port or image. Compose would replace it while others use
            it.
    """
    image = os.environ.get("RABBITMQ_IMAGE") or container.image
    if (container.port, container.image) != (settings.port, image):
        raise BrokerSetupError(
            f"the dockerised RabbitMQ runs already, on port {container.port} with the image "
            f"{container.image}: set RABBITMQ_PORT and RABBITMQ_IMAGE so, or stop it first "
            f"(mousetrap broker down)"
        )


def _environment(settings: Settings) -> dict[str, str]:
    # In the environment and not as arguments, which every user of the machine can read.
    environment = os.environ | {
        "RABBITMQ_PORT": str(settings.port),
        "RABBITMQ_USER": settings.user,
        "RABBITMQ_PASSWORD": settings.password,
    }
    # 10,000 above, like RabbitMQ's own 5672 and 15672; below, where no port is that high
    management = settings.port + (10_000 if settings.port <= 55_535 else -10_000)
    environment.setdefault("RABBITMQ_MANAGEMENT_PORT", str(management))
    return environment


def _require_image(environment: dict[str, str], log: Log) -> None:
    listing = _compose("config", "--images", environment=environment, timeout=DOCKER_TIMEOUT)
    if listing is None or listing.returncode:
        raise BrokerSetupError(f"docker compose does not accept the file: {_last_line(listing)}")
    image = listing.stdout.split()[0]
    if _run("docker", "image", "inspect", image).returncode == 0:
        return
    log(f"pulling the image {image} (about 100 MB, only this once)")
    pulled = _compose("pull", environment=environment, timeout=PULL_TIMEOUT, log=log)
    if pulled is None or pulled.returncode:
        raise BrokerSetupError(
            f"the image {image} is not here and could not be pulled ({_last_line(pulled)}): check "
            f"the network, name another by RABBITMQ_IMAGE, or use another broker: --broker local"
        )


def _start_error(
    stderr: str, settings: Settings, environment: dict[str, str], waited: float
) -> str:
    """Return why ``docker compose up`` failed, from what it printed and the container's log."""
    taken = r"already allocated|already in use|ports are not available"
    if re.search(taken, stderr, re.IGNORECASE):
        management = environment.get("RABBITMQ_MANAGEMENT_PORT", "15672")
        if re.search(rf":{management}\b", stderr):
            return _port_taken(int(management), "RABBITMQ_MANAGEMENT_PORT")
        return _port_taken(settings.port, "RABBITMQ_PORT")
    logs = _compose("logs", "--no-log-prefix", environment=environment, timeout=DOCKER_TIMEOUT)
    lines = (logs.stdout if logs else "").splitlines()
    errors = [line for line in lines if re.search(r"\berror\b|BOOT FAILED", line, re.IGNORECASE)]
    last = stderr.strip().splitlines()[-1] if stderr.strip() else "no reason given"
    reason = (errors or [last])[-1].strip()[:300].replace(settings.password or "\0", MASK)
    return (
        f"the dockerised RabbitMQ was not ready after {waited:.0f} s ({reason}): give it longer, "
        f"or look at its log; {_volume_hint()}"
    )


def _port_taken(port: int, variable: str) -> str:
    return (
        f"port {port} is taken by another program: stop that, or choose another port, "
        f"e.g. {variable}={port + 1}"
    )


def _volume_hint() -> str:
    return (
        f"if user, password or image have changed since its volume was made, set them back, or "
        f"delete the volume with its messages: docker compose -p {project()} "
        f"-f {deploy_file('development.yml')} down --volumes"
    )


def _compose(
    *arguments: str, environment: dict[str, str], timeout: float, log: Log = lambda _: None
) -> subprocess.CompletedProcess[str] | None:
    """Run ``docker compose``, logging now and then that it still runs; None after *timeout* s."""
    command = [
        "docker", "compose", "-p", project(), "-f", str(deploy_file("development.yml")), *arguments
    ]  # fmt: skip
    started = clock.monotonic()
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        while True:
            try:
                out, err = process.communicate(timeout=probe.WAITING_LOG_INTERVAL)
            except subprocess.TimeoutExpired:
                waited = clock.monotonic() - started
                if waited > timeout:
                    process.kill()
                    return None
                log(f"still waiting for docker compose {arguments[0]} ({waited:.0f} s)")
            except BaseException:  # Ctrl-C: compose received it too, so do not wait for it
                process.kill()
                raise
            else:
                return subprocess.CompletedProcess(command, process.returncode, out, err)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            errors="replace", timeout=DOCKER_TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "no answer")


def _last_line(done: subprocess.CompletedProcess[str] | None) -> str:
    if done is None:
        return "no answer in time"
    lines = done.stderr.strip().splitlines() or ["no reason given"]
    return lines[-1].strip()[:300]

"""The docker way: ``deploy/development.yml``, brought up by ``docker compose``.

The containers belong to the compose project ``mousetrap`` (``MOUSETRAP_COMPOSE_PROJECT`` overrides
it) wherever the checkout lies, so that there is one development broker on a machine and its volume
survives.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from mousetrap.broker import probe
from mousetrap.broker.broker_status import BrokerStatus
from mousetrap.broker.paths import deploy_file
from mousetrap.broker.probe import Say
from mousetrap.errors import AccessRefused, BrokerSetupError, WireError
from mousetrap.job_queue import ping
from mousetrap.runtime import clock
from mousetrap.settings import MASK, Settings

PULL_TIMEOUT = 900.0  # seconds: an image of 100 MB over a slow line; not counted as booting
QUESTION_TIMEOUT = 20.0  # seconds; a guess: `docker info` answers in less than one


def project() -> str:
    """The compose project that all our containers, networks and volumes belong to."""
    return os.environ.get("MOUSETRAP_COMPOSE_PROJECT") or "mousetrap"


def problem() -> str | None:
    """Say in one sentence why Docker cannot be used here; None if it can."""
    if shutil.which("docker") is None:
        return (
            "Docker is not installed (no `docker` on the PATH): install it, or use another "
            "broker: --broker local"
        )
    if _ask("docker", "compose", "version").returncode:
        return (
            "this Docker has no `docker compose`: install the plugin docker-compose-plugin "
            "(Docker Desktop brings it)"
        )
    info = _ask("docker", "info", "--format", "{{.ServerVersion}}")
    if info.returncode and "permission denied" in info.stderr:
        return "this user may not use Docker: sudo usermod -aG docker $USER, then log in again"
    if info.returncode:
        return "the Docker daemon is not running: start Docker Desktop, or systemctl start docker"
    return None


def up(settings: Settings, timeout: float, say: Say) -> Settings:
    """Bring the compose project up unless it answers already; return how to reach it.

    Raises:
        BrokerSetupError: no Docker, no image, port taken, or not ready in time: one sentence each.
    """
    if reason := problem():
        raise BrokerSetupError(reason)
    settings = settings.replace(host="localhost", tls=False)
    there = _container()
    if there.port is not None and _is_as_wanted(there, settings):
        try:
            ping(settings)
        except WireError:
            pass  # it may still boot, or its settings have changed: compose knows what to do
        else:
            return settings
    elif not probe.is_free(settings.port):
        raise BrokerSetupError(_taken(settings.port, "RABBITMQ_PORT"))
    environment = _environment(settings)
    _require_image(environment, say)
    started = clock.monotonic()
    say(f"waiting for the container of {project()!r} to boot (usually 10 to 20 s)")
    done = _compose(
        "up", "--detach", "--wait", "--wait-timeout", f"{max(1, int(timeout))}",
        environment=environment, timeout=timeout + 10, say=say,
    )  # fmt: skip
    try:
        if done is None or done.returncode:
            said = done.stderr if done else ""
            waited = clock.monotonic() - started
            raise BrokerSetupError(_why_not_up(said, settings, environment, waited))
        what = "the dockerised RabbitMQ"
        probe.wait_until_ready(settings, started + timeout, what, say, lambda: None)
    except (AccessRefused, BrokerSetupError) as error:
        if not there.exists:  # leave nothing that restarts for ever or that nobody can use
            _compose("down", "--timeout", "3", environment=environment, timeout=60, say=say)
        if isinstance(error, AccessRefused):
            raise BrokerSetupError(f"{error}; {_volume_hint()}") from error
        raise
    return settings


def down(say: Say) -> bool:
    """Remove the project's containers and keep its volume; False if there were none.

    Raises:
        BrokerSetupError: Docker did not do it; with its last line.
    """
    if problem() or not _container().exists:
        return False
    say(f"waiting for the container of {project()!r} to stop")
    done = _compose("down", environment=dict(os.environ), timeout=120, say=say)
    if done is None or done.returncode:
        raise BrokerSetupError(f"docker compose down failed: {_last_line(done)}")
    return True


def status() -> BrokerStatus:
    """Report on the compose project."""
    reason = problem()
    port = None if reason else _container().port
    address = Settings(port=port) if port else None
    return BrokerStatus(
        kind="docker",
        is_available=reason is None,
        is_running=port is not None,
        address=f"localhost:{port}" if port else "",
        version=(probe.version(address) or "") if address else "",
        note=reason or "",
    )


@dataclass(frozen=True)
class _Container:
    exists: bool
    image: str = ""
    port: int | None = None  # on this machine; None if it does not run


def _container() -> _Container:
    listing = _ask(
        "docker", "ps", "--all", "--format", "{{.Image}} {{.Ports}}",
        "--filter", f"label=com.docker.compose.project={project()}",
        "--filter", "label=com.docker.compose.service=rabbit",
    )  # fmt: skip
    if not listing.stdout.strip():
        return _Container(exists=False)
    port = re.search(r":(\d+)->5672/tcp", listing.stdout)
    return _Container(True, listing.stdout.split()[0], int(port[1]) if port else None)


def _is_as_wanted(there: _Container, settings: Settings) -> bool:
    """The running container is the one that is asked for.

    Raises:
        BrokerSetupError: it has another port or image. Compose would replace it, under the feet of
            those who use it.
    """
    image = os.environ.get("RABBITMQ_IMAGE") or there.image
    if (there.port, there.image) == (settings.port, image):
        return True
    raise BrokerSetupError(
        f"the dockerised RabbitMQ runs already, on port {there.port} with the image {there.image}: "
        f"set RABBITMQ_PORT and RABBITMQ_IMAGE so, or stop it first (mousetrap broker down)"
    )


def _environment(settings: Settings) -> dict[str, str]:
    # By the environment, not by arguments: those can be read by every user of the machine.
    environment = os.environ | {
        "RABBITMQ_PORT": str(settings.port),
        "RABBITMQ_USER": settings.user,
        "RABBITMQ_PASSWORD": settings.password,
    }
    # RabbitMQ's own habit, 5672 and 15672; where there is no port so high, as far below
    management = settings.port + (10_000 if settings.port <= 55_535 else -10_000)
    environment.setdefault("RABBITMQ_MANAGEMENT_PORT", str(management))
    return environment


def _require_image(environment: dict[str, str], say: Say) -> None:
    listing = _compose("config", "--images", environment=environment, timeout=QUESTION_TIMEOUT)
    if listing is None or listing.returncode:
        raise BrokerSetupError(f"docker compose does not accept the file: {_last_line(listing)}")
    image = listing.stdout.split()[0]
    if _ask("docker", "image", "inspect", image).returncode == 0:
        return
    say(f"pulling the image {image} (about 100 MB, only this once)")
    pulled = _compose("pull", environment=environment, timeout=PULL_TIMEOUT, say=say)
    if pulled is None or pulled.returncode:
        raise BrokerSetupError(
            f"the image {image} is not here and could not be pulled ({_last_line(pulled)}): check "
            f"the network, name another by RABBITMQ_IMAGE, or use another broker: --broker local"
        )


def _why_not_up(said: str, settings: Settings, environment: dict[str, str], waited: float) -> str:
    if re.search(r"already allocated|already in use|ports are not available", said, re.IGNORECASE):
        management = environment.get("RABBITMQ_MANAGEMENT_PORT", "15672")
        if re.search(rf":{management}\b", said):
            return _taken(int(management), "RABBITMQ_MANAGEMENT_PORT")
        return _taken(settings.port, "RABBITMQ_PORT")
    logs = _compose("logs", "--no-log-prefix", environment=environment, timeout=QUESTION_TIMEOUT)
    lines = (logs.stdout if logs else "").splitlines()
    errors = [line for line in lines if re.search(r"\berror\b|BOOT FAILED", line, re.IGNORECASE)]
    reason = (errors or [said.strip().splitlines()[-1] if said.strip() else "no reason given"])[-1]
    reason = reason.strip()[:300].replace(settings.password or "\0", MASK)
    return (
        f"the dockerised RabbitMQ was not ready after {waited:.0f} s ({reason}): give it longer, "
        f"or look at its log; {_volume_hint()}"
    )


def _taken(port: int, variable: str) -> str:
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
    *arguments: str, environment: dict[str, str], timeout: float, say: Say = lambda _: None
) -> subprocess.CompletedProcess[str] | None:
    """Run ``docker compose``, saying now and then that it still runs; None if time was up."""
    command = [
        "docker", "compose", "-p", project(), "-f", str(deploy_file("development.yml")), *arguments
    ]  # fmt: skip
    started = clock.monotonic()
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while True:
            try:
                out, err = process.communicate(timeout=probe.REPORT_EVERY)
            except subprocess.TimeoutExpired:
                waited = clock.monotonic() - started
                if waited > timeout:
                    process.kill()
                    return None
                say(f"still waiting for docker compose {arguments[0]} ({waited:.0f} s)")
            except BaseException:  # Ctrl-C: do not wait for compose, which got it too
                process.kill()
                raise
            else:
                return subprocess.CompletedProcess(command, process.returncode, out, err)


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=QUESTION_TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", "no answer")


def _last_line(done: subprocess.CompletedProcess[str] | None) -> str:
    if done is None:
        return "no answer in time"
    lines = done.stderr.strip().splitlines() or ["no reason given"]
    return lines[-1].strip()[:300]

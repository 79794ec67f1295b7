"""Writes what a private node reads when it starts: its files, its ports, its environment.

Everything is in the node's own folder, which only this user can read.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from mousetrap.broker.executables import find_epmd, find_server, search_path
from mousetrap.broker.paths import deploy_file
from mousetrap.errors import BrokerSetupError
from mousetrap.runtime import randomness
from mousetrap.settings import Settings

NODE_NAME = "mousetrap@localhost"  # may be the same for all: each node has its own epmd
LOOPBACK = "127.0.0.1"
PORTS = range(10_000, 32_768)  # Linux gives outgoing connections those above, others from 49,152
MAX_PORTS_TRIED = 100  # a guess
# Seconds after which RabbitMQ sends a message from a retry queue again that the work queue has not
# accepted: it was full, or not there yet after a crash. RabbitMQ's own default is 180.
RETURN_TIMEOUT = 5
_RANDOM = randomness.system()  # unseeded: two processes must not choose the same ports


def free_ports(count: int) -> list[int]:
    """Return *count* different ports that are free on 127.0.0.1 at this moment.

    They are below the range from which the system takes ports for outgoing connections. From that
    range, a connection could take a broker's port while the broker restarts.

    Raises:
        BrokerSetupError: almost none is free.
    """
    free: list[int] = []
    with ExitStack() as stack:
        for port in _RANDOM.sample(PORTS, MAX_PORTS_TRIED + count):
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind((LOOPBACK, port))
                free.append(port)
            if len(free) == count:
                return free
    raise BrokerSetupError(
        f"of {MAX_PORTS_TRIED} ports from {PORTS[0]} to {PORTS[-1]} hardly one is free: "
        f"what listens there? (ss -ltn)"
    )


def configure(folder: Path, settings: Settings) -> Settings:
    """Write everything a node needs into *folder*; return the settings that reach it.

    The node's AMQP port is ``settings.port``; each call chooses the two ports that Erlang needs.
    """
    dist_port, epmd_port = free_ports(2)
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = {LOOPBACK}:{settings.port}\n" + deploy_file("rabbitmq.conf").read_text()
    )
    # The password goes into a file as byte values: rabbitmq.conf cannot express a '#', and other
    # users can read a command line or an environment.
    credentials = ", ".join(
        f"{{{name}, <<{','.join(map(str, value.encode()))}>>}}"
        for name, value in (
            ("default_user", settings.user),
            ("default_pass", settings.password),
            ("default_vhost", settings.vhost),
        )
    )
    retries = f"{{dead_letter_worker_publisher_confirm_timeout, {RETURN_TIMEOUT * 1000}}}"
    (folder / "advanced.config").write_text(f"[{{rabbit, [{credentials}, {retries}]}}].\n")
    (folder / "advanced.config").chmod(0o600)
    (folder / "enabled_plugins").write_text(
        "[].\n"
    )  # none: the management plugin doubles the start
    cookie = folder / ".erlang.cookie"  # not Erlang's, which is generated from a weak seed
    if not cookie.exists():
        cookie.touch(0o600)
        cookie.write_text(randomness.urandom(20).hex())
        cookie.chmod(0o400)  # Erlang requires it
    environment = {  # complete: the user's RABBITMQ_* and ERL_* are meant for another node
        "PATH": search_path(),
        "HOME": str(folder),  # where Erlang reads its cookie
        "LANG": "C.UTF-8",
        "RABBITMQ_NODENAME": NODE_NAME,
        "RABBITMQ_CONF_ENV_FILE": os.devnull,  # not /etc/rabbitmq/rabbitmq-env.conf
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node: one process, one pid
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",  # rabbitmqctl's too
        "ERL_CRASH_DUMP_SECONDS": "0",  # a dump would contain the password
    }
    spec = {"server": str(find_server()), "epmd": str(find_epmd()), "environment": environment}
    (folder / "spec.json").write_text(json.dumps(spec | {"port": settings.port}))
    return settings.replace(host=LOOPBACK, tls=False)

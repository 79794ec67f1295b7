"""A RabbitMQ cluster of three containers, and a load balancer in front of it.

The nodes reach each other on a network of their own. Clients reach them on Docker's default
network, where the nodes cannot find each other by name. So a node can be cut off from its peers and
still answer its clients, as in a network partition.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from support.waiting import wait_for

from mousetrap.settings import Settings

from .brokers import NEWEST, Container, ask_docker, remove_stale, run_label

NODES = 3
TICK = 8  # net_ticktime, seconds after which a silent peer counts as lost; RabbitMQ's default is 60
# 3.10 has another name for it. Not `cluster_status`, which waits for nodes that are away.
_RUNNING = "try rabbit_nodes:list_running() catch error:undef -> rabbit_nodes:all_running() end."
GREETING_TIMEOUT = 2.0  # seconds for the first bytes of a node


class Cluster:
    """A broker of three containers: each can be killed, started again, and cut off from its peers.

    Threads: one.
    """

    def __init__(self, version: str = NEWEST) -> None:
        remove_stale()
        token, cookie = secrets.token_hex(3), secrets.token_hex(16)
        self._peers = f"mousetrap-rig-{os.getpid()}-{token}"  # the name of their network
        self._hosts = [f"node{n}-{token}" for n in range(1, NODES + 1)]
        self.nodes: list[Container] = []
        try:
            ask_docker("network", "create", "--label", run_label(), "--internal", self._peers)
            for host in self._hosts:
                node = Container(
                    version, configuration=_configuration(version, self._hosts), host=host,
                    networks=("bridge", self._peers), cookie=cookie,
                )  # fmt: skip
                self.nodes.append(node)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start the nodes that do not run; return when all nodes answer and see each other."""
        with ThreadPoolExecutor(NODES) as pool:  # in parallel: the first ones wait for the others
            list(pool.map(Container.start, self.nodes))
        for node in self.nodes:
            wait_for(lambda node=node: len(self.seen_by(node)) == NODES, 180)

    def kill(self, node: Container) -> None:
        """End *node* by SIGKILL, as a power cut would."""
        node.kill()

    def cut_off(self, node: Container) -> None:
        """Disconnect *node* from its peers, not from clients; return when they have noticed."""
        ask_docker("network", "disconnect", self._peers, node.name)
        [other, *_] = self.others(node)
        wait_for(lambda: self._hosts[self.nodes.index(node)] not in self.seen_by(other), 60)

    def join(self, node: Container) -> None:
        """Connect *node* with its peers again; return when all nodes see each other."""
        host = self._hosts[self.nodes.index(node)]
        ask_docker("network", "connect", "--alias", host, self._peers, node.name)
        for each in self.nodes:
            wait_for(lambda each=each: len(self.seen_by(each)) == NODES, 180)

    def others(self, node: Container) -> list[Container]:
        return [each for each in self.nodes if each is not node]

    def leader(self, queue: str, asked: Container) -> Container:
        """Return the leader of *queue* (the wire name of a quorum queue), as *asked* knows it."""
        listing = asked.rabbitmqctl("list_queues", "--no-table-headers", "name", "leader")
        found = dict(line.split("\t") for line in listing.splitlines())
        return self.nodes[self._hosts.index(found[queue].partition("@")[2])]

    def seen_by(self, node: Container) -> set[str]:
        """Return the hosts on which RabbitMQ runs, by *node*; none if it does not run itself."""
        with contextlib.suppress(AssertionError):  # it is stopped, or starts
            listing = node.rabbitmqctl("eval", _RUNNING)
            return {host for host in self._hosts if host in listing}
        return set()

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        with contextlib.suppress(AssertionError):  # it was not created
            ask_docker("network", "rm", self._peers)


class LoadBalancer:
    """One address for a cluster: each connection goes to a node that answers.

    A node answers if it sends its greeting. *avoided*: the names of nodes that get no new
    connections; the connections that they have stay.

    Threads: any.
    """

    def __init__(self, nodes: list[Container]) -> None:
        self._nodes = nodes
        self._turn = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.avoided: set[str] = set()  # names
        self.settings = nodes[0].settings.replace(port=self._listener.getsockname()[1])

    def __enter__(self) -> LoadBalancer:
        threading.Thread(target=self._accept, name="rig-balancer", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            _shut(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(
                    target=self._serve, args=(client,), name="rig-balancer", daemon=True
                ).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            hello = client.recv(64)
            first = next(self._turn)
            for n in range(NODES):
                node = self._nodes[(first + n) % NODES]
                if node.name in self.avoided:
                    continue
                if (broker := _greeted(node.settings, client, hello)) is not None:
                    self._sockets += [client, broker]
                    for ends in ((client, broker), (broker, client)):
                        threading.Thread(
                            target=_relay, args=ends, name="rig-balancer", daemon=True
                        ).start()
                    return
        _shut(client)


def _greeted(settings: Settings, client: socket.socket, hello: bytes) -> socket.socket | None:
    """Connect, send *hello*, and forward the answer to *client*; None if there is none."""
    try:
        broker = socket.create_connection((settings.host, settings.port), GREETING_TIMEOUT)
        broker.settimeout(GREETING_TIMEOUT)
        broker.sendall(hello)
        greeting = broker.recv(65_536)
    except OSError:
        return None
    if not greeting:  # Docker accepts connections before the broker in the container listens
        broker.close()
        return None
    broker.settimeout(None)
    for end in (client, broker):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(greeting)
    return broker


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (sink, source):
        _shut(end)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _configuration(version: str, hosts: list[str]) -> str:
    """Return the configuration that makes the nodes on *hosts* one cluster."""
    lines = [
        "cluster_formation.peer_discovery_backend = classic_config",
        *(f"cluster_formation.classic_config.nodes.{n} = rabbit@{host}"
          for n, host in enumerate(hosts, 1)),
        f"cluster_formation.target_cluster_size_hint = {len(hosts)}",
        f"net_ticktime = {TICK}",
    ]  # fmt: skip
    if version != "4.3":
        # A node without a majority closes its connections until it has one, as RabbitMQ advises.
        # 4.3 has no such setting: it stays open, and does not answer what needs a majority.
        lines.append("cluster_partition_handling = pause_minority")
    if version == "4.0":
        # If this is denied, a node that has paused cannot start again: it asks whether there are
        # such queues before it can know, and takes no answer for yes (seen on 4.0.5).
        lines.append("deprecated_features.permit.transient_nonexcl_queues = true")
    return "\n".join(lines)

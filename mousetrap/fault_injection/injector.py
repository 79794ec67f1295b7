"""The public interface of fault injection: each method injects one fault and returns its record.

`proxy` does what they do to connections; `fault` has the record. Prototyped in
``notebooks/check_recovery.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mousetrap.display.formats import counted
from mousetrap.display.table import Table
from mousetrap.errors import FaultError
from mousetrap.fault_injection.fault import Fault, table
from mousetrap.fault_injection.frames import Command, routing_of
from mousetrap.fault_injection.proxy import Direction, Link, Proxy, Trigger
from mousetrap.runs.plot import FaultRow
from mousetrap.runtime import clock, randomness
from mousetrap.settings import Settings

if TYPE_CHECKING:
    from mousetrap.broker import Broker
    from mousetrap.broker.rabbitmq_node import RabbitMQNode
    from mousetrap.runs.run import Run

MAX_AHEAD = 3  # the seed chooses one of the next so many acks, confirms or messages
PROCESS_POLL_INTERVAL = 0.1  # seconds between two checks of processes, which send no signal
RESTART_TIMEOUT = 90.0  # seconds for a node to start on a busy machine


class Faults:
    """Injects faults between a broker and the clients that use `settings`.

        with mousetrap.faults(seed=7) as faults, mousetrap.run(flow, faults.settings) as run:
            run.send_many(jobs)
            faults.cut()
            summary = run.settle()

    Each method returns a `Fault`; the repr is a table of all faults. Without *broker* (or its
    `Settings`) it uses the broker that `mousetrap.broker.ensure` finds or starts. *seed* determines
    the random choices: which ack, which worker. All faults end with the block or the process, and
    affect only the clients that use `settings`.

    Raises:
        FaultError: the settings use TLS, which the proxy cannot read.

    Threads: from one, which is also the one that waits for the run.
    """

    kinds = ("cut", "lose_ack", "lose_confirm", "duplicate", "kill_worker", "restart_broker")

    def __init__(self, broker: Broker | Settings | None = None, *, seed: int = 0) -> None:
        self._owned_broker, self._broker_settings = _broker_and_settings(broker)
        if self._broker_settings.tls:
            raise FaultError(
                "fault injection reads what clients and broker send, and these settings use TLS: "
                "use a broker that listens without TLS, on this machine"
            )
        self.seed = seed
        self.injected: list[Fault] = []
        self._random = randomness.seeded(seed)
        self._proxy: Proxy | None = None
        self._triggers: list[tuple[Trigger, Fault]] = []
        self._began = clock.time()
        self._stack = ExitStack()

    def start(self) -> Faults:
        """Start the proxy, on loopback only. Safe to call twice."""
        if self._proxy is None:
            if self._owned_broker is not None:
                self._stack.callback(self._owned_broker.close)
            self._proxy = self._stack.enter_context(Proxy(self._broker_settings))
            self._proxy.on_opened = self._update_faults
            self._began = clock.time()
        return self

    def stop(self) -> None:
        """Stop the proxy; faults that were not triggered never will be. Safe to call twice."""
        for trigger, fault in self._triggers:
            self._running_proxy.forget(trigger)
            fault.mark_not_triggered("nothing that it applies to passed any more")
        self._stack.close()

    def __enter__(self) -> Faults:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def settings(self) -> Settings:
        """The settings that reach the broker through the proxy."""
        return self._running_proxy.settings

    @property
    def not_triggered(self) -> list[Fault]:
        """The faults that have not been triggered so far: a test without them proves less."""
        return [each for each in self.injected if each.triggered is None]

    # ---- faults ----------------------------------------------------------------------------------

    def cut(self) -> Fault:
        """Reset all connections (RST), as a network device does that forgets them."""
        links = self._running_proxy.links()
        lost = sum(link.consumers for link in links)
        fault = self._add(
            "cut", f"{counted(len(links), 'connection')}, {counted(lost, 'consumer')}"
        )
        opened = dict(self._running_proxy.opened)  # before: a client may be back in a millisecond
        if self._running_proxy.cut():
            fault.mark_triggered(lost, opened)
        else:
            fault.mark_not_triggered("there was no connection")
        return fault

    def lose_ack(self) -> Fault:
        """Reset the connection of a worker when one of its next acks is about to pass.

        The ack does not arrive, so the broker delivers the message again. The acks of a run, which
        consumes events, do not count.
        """
        return self._cut_at_ack("lose_ack", "acknowledgement", "to broker", _is_worker)

    def lose_confirm(self) -> Fault:
        """Reset a connection when one of the next confirms of a publish is about to pass.

        The broker has the message and its sender does not know: the sender has to publish it again.
        """
        return self._cut_at_ack("lose_confirm", "confirm", "from broker", None)

    def duplicate(self, queue: str | None = None) -> Fault:
        """Publish one of the next messages twice, byte for byte.

        *queue* is its plain name, in any namespace; without it, any queue but a dead-letter queue.
        """

        def matches(_: Link, command: Command) -> bool:
            exchange, key = routing_of(command)
            is_meant = (
                not key.endswith(".dead") if queue is None else f".{key}".endswith(f".{queue}")
            )
            return not exchange and is_meant

        number = self._random.randint(1, MAX_AHEAD)
        fault = self._add("duplicate", f"message {number} from now")

        def on_reached(_: Link) -> None:
            fault.what = "message published twice"
            fault.mark_triggered(0, self._running_proxy.opened)

        trigger = self._running_proxy.replay(number=number, matches=matches, on_reached=on_reached)
        self._triggers.append((trigger, fault))
        return fault

    def kill_worker(self, run: Run | None = None, *, timeout: float = 20.0) -> Fault:
        """Kill one of the worker processes of *run* (SIGKILL); its supervisor starts another.

        Without *run* it is the run that is open and uses `settings`. Waits up to *timeout* seconds
        until a process consumes: one that has not begun cannot lose anything.

        Raises:
            FaultError: there is no such run, or its workers are threads.
        """
        processes = self._run(run).processes
        if processes is None:
            raise FaultError(
                "the workers of this run are threads of this process, which would be killed too: "
                "run it with workers='processes'"
            )
        fault = self._add("kill_worker", "one that consumes")

        def consuming() -> dict[str, tuple[int, int]]:
            found = ((name, pid, self._consumers_of(pid)) for name, pid in processes.pids().items())
            return {name: (pid, consumers) for name, pid, consumers in found if consumers}

        if not _wait_for(lambda: bool(consuming()), timeout, processes.check):
            fault.mark_not_triggered(f"no worker process consumed within {timeout:g} s")
            return fault
        candidates = consuming()
        name = self._random.choice(sorted(candidates))
        pid, lost = candidates[name]
        fault.what = f"{name}, pid {pid}"
        opened = dict(self._running_proxy.opened)
        processes.crash(name)
        fault.mark_triggered(lost, opened)
        return fault

    def restart_broker(self) -> Fault:
        """Kill the broker (SIGKILL) and start it again; return when it delivers messages again.

        Raises:
            FaultError: this process has not started the broker, so others may use it.
            BrokerSetupError: it did not start again.
        """
        node = self._node()
        if node is None:
            raise FaultError(
                f"this process has not started the broker at {self._broker_settings.url}, so "
                f"others may use it: start one with mousetrap.faults(mousetrap.broker.private())"
            )
        lost = sum(link.consumers for link in self._running_proxy.links())
        fault = self._add("restart_broker", f"pid {node.pid}, {counted(lost, 'consumer')}")
        opened = dict(self._running_proxy.opened)
        if node.pid is None:
            fault.mark_not_triggered("the broker did not run")
        else:
            node.kill()
            fault.mark_triggered(lost, opened)
        node.start(RESTART_TIMEOUT, log=lambda _: None)
        return fault

    def inject(self, kind: str) -> Fault:
        """Inject a fault by its name, one of `kinds`.

        Raises:
            FaultError: there is no fault of that name, or it is not possible here.
        """
        if kind not in self.kinds:
            raise FaultError(f"there is no fault {kind!r}: use one of {', '.join(self.kinds)}")
        method: Callable[[], Fault] = getattr(self, kind)
        return method()

    @property
    def can_restart_broker(self) -> bool:
        """Whether this process has started the broker for itself, so that it may be killed."""
        return self._node() is not None

    # ---- their recovery --------------------------------------------------------------------------

    def wait_until_healed(self, timeout: float = 30.0) -> None:
        """Return when each fault was triggered and is healed; checks worker processes meanwhile.

        Raises:
            FaultError: a fault was not triggered, or not healed within *timeout* seconds.
            ProcessEnded: a worker process ended that `kill_worker` has not killed.
        """
        from mousetrap.runs.run import open_runs  # imports what a broker needs

        def check_processes() -> None:
            for each in open_runs():
                if each.processes is not None and self._uses_proxy(each):
                    each.processes.check()

        def is_finished() -> bool:
            return all(each.healed or each.not_triggered for each in self.injected)

        _wait_for(is_finished, timeout, check_processes)
        for each in self.injected:
            each.wait(0)
            if each.healed is None:
                raise FaultError(
                    f"{each} has not healed in {timeout:g} s: of {each.lost} lost {each.unit} not "
                    f"all are back; look at the workers"
                )

    def rows(self) -> list[FaultRow]:
        """Return one row for each fault, for `Run.plot`."""
        return [FaultRow(each.kind, each.triggered, each.seconds) for each in self.injected]

    def table(self) -> Table:
        """Return one row for each fault: what, when, whether it was triggered, time to heal."""
        return table(self.injected, self._began, f" with seed {self.seed}")

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    # ---- inside ----------------------------------------------------------------------------------

    @property
    def _running_proxy(self) -> Proxy:
        if self._proxy is None:
            raise FaultError("faults are not started: use them in a with block, or call start()")
        return self._proxy

    def _add(self, kind: str, what: str) -> Fault:
        fault = Fault(kind, what)
        self.injected.append(fault)
        return fault

    def _update_faults(self) -> None:  # on a thread of the proxy
        for each in list(self.injected):
            each.update(self._running_proxy.opened)

    def _cut_at_ack(
        self,
        kind: str,
        noun: str,
        direction: Direction,
        matches: Callable[[Link, Command], bool] | None,
    ) -> Fault:
        number = self._random.randint(1, MAX_AHEAD)
        fault = self._add(kind, f"{noun} {number} from now")

        def on_reached(link: Link) -> None:
            fault.what = f"{noun} lost"
            if link.consumers:
                fault.mark_triggered(link.consumers, self._running_proxy.opened)
            else:
                fault.mark_triggered(1, self._running_proxy.opened, unit="connections")

        trigger = self._running_proxy.at(
            "Basic.Ack", direction, number=number, matches=matches, on_reached=on_reached
        )
        self._triggers.append((trigger, fault))
        return fault

    def _consumers_of(self, pid: int) -> int:
        links = self._running_proxy.links()
        return sum(link.consumers for link in links if link.name.endswith(f":{pid}"))

    def _node(self) -> RabbitMQNode | None:
        from mousetrap.broker import local

        return local.started_here(self._broker_settings)

    def _uses_proxy(self, run: Run) -> bool:
        return run.settings.port == self.settings.port

    def _run(self, run: Run | None) -> Run:
        from mousetrap.runs.run import open_runs

        runs = [run] if run is not None else [e for e in open_runs() if self._uses_proxy(e)]
        if len(runs) != 1:
            raise FaultError(
                f"{len(runs)} runs use these faults: open one with faults.settings, or say which "
                f"one, as in faults.kill_worker(run)"
            )
        return runs[0]


def faults(broker: Broker | Settings | None = None, *, seed: int = 0) -> Faults:
    """Return `Faults` for *broker*, to be used in a ``with`` block."""
    return Faults(broker, seed=seed)


def _broker_and_settings(broker: Broker | Settings | None) -> tuple[Broker | None, Settings]:
    """Return the broker that `Faults` has to close, if any, and the settings."""
    if broker is None:
        from mousetrap.broker import ensure  # takes a quarter of the time of `import mousetrap`

        found = ensure()
        return found, found.settings
    return None, broker if isinstance(broker, Settings) else broker.settings


def _is_worker(link: Link, _: Command) -> bool:
    purpose = link.name.rpartition(" ")[0]  # "mousetrap worker run-7f3a.start_fetch"
    return link.consumers > 0 and not purpose.endswith(("worker events", ".events"))


def _wait_for(condition: Callable[[], bool], timeout: float, check: Callable[[], object]) -> bool:
    """Wait until *condition* holds, calling *check* meanwhile; return whether it does."""
    deadline = clock.monotonic() + timeout
    while not condition():
        if clock.monotonic() > deadline:
            return False
        check()
        clock.sleep(PROCESS_POLL_INTERVAL)
    return True

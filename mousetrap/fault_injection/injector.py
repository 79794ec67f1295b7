"""Plants faults before a broker, one at a time, and keeps account of what came of each.

What they do to the wire is in `proxy`; what is known of each in `injected`. Prototyped in
``notebooks/check_recovery.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mousetrap.display.table import Table
from mousetrap.errors import FaultError
from mousetrap.fault_injection.fault import Fault, table
from mousetrap.fault_injection.frames import Piece, routing
from mousetrap.fault_injection.proxy import Direction, Link, Proxy, Step
from mousetrap.runs.plot import FaultRow
from mousetrap.runtime import clock, randomness
from mousetrap.settings import Settings

if TYPE_CHECKING:
    from mousetrap.broker import Broker
    from mousetrap.broker.rabbitmq_node import RabbitMQNode
    from mousetrap.runs.run import Run

WITHIN = 3  # acks or confirms, of which the seed chooses one
LOOK = 0.1  # seconds between two looks at processes, which ring no bell
RESTART = 90.0  # seconds that a node may take to boot on a busy machine


class Faults:
    """A wire before a broker on which faults can be planted: clients take its `settings`.

        with mousetrap.faults(seed=7) as faults, mousetrap.run(flow, faults.settings) as run:
            run.send_many(jobs)
            faults.cut()
            record = run.settle()

    Each fault is returned as a `Fault`; the repr is the table of all. Without *broker* (or its
    `Settings`) it is the one that `mousetrap.broker.ensure` comes by. What is left to chance (which
    ack, which worker) is by *seed*. Nothing of it outlives the block or the process, and only those
    who use `settings` are hurt.

    Raises:
        FaultError: the settings ask for TLS, which cannot be read on its way.

    Threads: from one, which is also the one that waits for the run.
    """

    kinds = ("cut", "lose_ack", "lose_confirm", "duplicate", "kill_worker", "restart_broker")

    def __init__(self, broker: Broker | Settings | None = None, *, seed: int = 0) -> None:
        self._broker, self._base = _come_by(broker)
        if self._base.tls:
            raise FaultError(
                "faults need to read what is said, and these settings ask for TLS: use a broker "
                "that listens without it, on this machine"
            )
        self.seed = seed
        self.injected: list[Fault] = []
        self._chance = randomness.seeded(seed)
        self._proxy: Proxy | None = None
        self._steps: list[tuple[Step, Fault]] = []
        self._began = clock.time()
        self._stack = ExitStack()

    def start(self) -> Faults:
        """Begin to listen, on loopback only. Safe to call twice."""
        if self._proxy is None:
            if self._broker is not None:
                self._stack.callback(self._broker.close)
            self._proxy = self._stack.enter_context(Proxy(self._base))
            self._proxy.on_begun = self._look
            self._began = clock.time()
        return self

    def stop(self) -> None:
        """Break the wire; what has not landed by now is void. Safe to call twice."""
        for step, each in self._steps:
            self._wire.forget(step)
            each.give_up("nothing of the kind passed any more")
        self._stack.close()

    def __enter__(self) -> Faults:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def settings(self) -> Settings:
        """How to reach the broker through the faults."""
        return self._wire.settings

    @property
    def void(self) -> list[Fault]:
        """Those that did not land so far: what is shown without them was not shown."""
        return [each for each in self.injected if each.triggered is None]

    # ---- faults ----------------------------------------------------------------------------------

    def cut(self) -> Fault:
        """Break all connections at once, as a network device does that forgets them (RST)."""
        links = self._wire.links()
        lost = sum(link.consumers for link in links)
        injected = self._note("cut", f"{len(links)} connections, {lost} consumers")
        begun = dict(self._wire.begun)  # before: who is quick is back in a millisecond
        if self._wire.cut():
            injected.land(lost, begun)
        else:
            injected.give_up("there was no connection")
        return injected

    def lose_ack(self) -> Fault:
        """Break the connection of a worker when its next ack, or one soon after, comes by.

        The ack does not arrive, so the broker delivers the message again. Of those who consume; the
        acks of a run, which listens to fates, do not count.
        """
        return self._at("lose_ack", "ack of a worker", "to broker", _is_of_worker)

    def lose_confirm(self) -> Fault:
        """Break a connection when the next confirm of a publish, or one soon after, comes by.

        The broker has the message and its sender does not know: it has to send it again.
        """
        return self._at("lose_confirm", "confirm", "from broker", None)

    def duplicate(self, queue: str | None = None) -> Fault:
        """Have one of the next messages that are put into a queue arrive twice, byte for byte.

        *queue* by its plain name, in any namespace; without it any queue but a dead one.
        """

        def is_meant(_: Link, piece: Piece) -> bool:
            exchange, key = routing(piece)
            is_named = (
                not key.endswith(".dead") if queue is None else f".{key}".endswith(f".{queue}")
            )
            return not exchange and is_named

        number = self._chance.randint(1, WITHIN)
        injected = self._note("duplicate", f"message {number} from now")
        step = self._wire.replay(
            number=number, matches=is_meant, told=lambda _: injected.land(0, self._wire.begun)
        )
        self._steps.append((step, injected))
        return injected

    def kill_worker(self, run: Run | None = None, *, timeout: float = 20.0) -> Fault:
        """Kill one of the worker processes of *run* (SIGKILL); the next takes its place.

        Without *run* it is the one that is open and uses `settings`. Waits up to *timeout* seconds
        until one of them consumes: who has not begun cannot lose anything.

        Raises:
            FaultError: there is no such run, or its workers are no processes.
        """
        processes = self._run(run).processes
        if processes is None:
            raise FaultError(
                "the workers of this run are threads of this process, which would die with them: "
                "run it with workers='processes'"
            )
        injected = self._note("kill_worker", "one that consumes")

        def at_work() -> dict[str, tuple[int, int]]:
            found = ((name, pid, self._consumers_of(pid)) for name, pid in processes.pids().items())
            return {name: (pid, consumers) for name, pid, consumers in found if consumers}

        if not _wait_for(lambda: bool(at_work()), timeout, processes.check):
            injected.give_up(f"no worker process consumed within {timeout:g} s")
            return injected
        working = at_work()
        name = self._chance.choice(sorted(working))
        pid, lost = working[name]
        injected.what = f"{name}, pid {pid}"
        begun = dict(self._wire.begun)
        processes.crash(name)
        injected.land(lost, begun)
        return injected

    def restart_broker(self) -> Fault:
        """Kill the broker (SIGKILL) and start it again; returns when it gives a message back.

        Raises:
            FaultError: this broker is not ours alone; others may have their messages in it.
            BrokerSetupError: it did not come up again.
        """
        node = self._node()
        if node is None:
            raise FaultError(
                f"this broker is not ours to restart ({self._base.url}): others may use it. One "
                f"that is: mousetrap.faults(mousetrap.broker.private())"
            )
        lost = sum(link.consumers for link in self._wire.links())
        injected = self._note("restart_broker", f"pid {node.pid}, {lost} consumers")
        begun = dict(self._wire.begun)
        if node.pid is None:
            injected.give_up("it did not run")
        else:
            node.kill()
            injected.land(lost, begun)
        node.start(RESTART, log=lambda _: None)
        return injected

    def inject(self, kind: str) -> Fault:
        """Plant a fault by its name, one of `kinds`.

        Raises:
            FaultError: there is none of that name, or it may not be planted here.
        """
        if kind not in self.kinds:
            raise FaultError(f"there is no fault {kind!r}: use one of {', '.join(self.kinds)}")
        inject: Callable[[], Fault] = getattr(self, kind)
        return inject()

    @property
    def can_restart_broker(self) -> bool:
        """The broker was started by this process for itself, so it may be killed."""
        return self._node() is not None

    # ---- what came of them -----------------------------------------------------------------------

    def wait_until_healed(self, timeout: float = 30.0) -> None:
        """Return when each fault has landed and healed; looks after the worker processes meanwhile.

        Raises:
            FaultError: one is void, or was not healed within *timeout* seconds; says which.
            ProcessEnded: a worker process ended that nobody here has killed.
        """
        from mousetrap.runs.run import open_runs  # it needs what a broker does

        def look_after() -> None:
            for each in open_runs():
                if each.processes is not None and self._is_ours(each):
                    each.processes.check()

        def is_over() -> bool:
            return all(each.healed or each.void for each in self.injected)

        _wait_for(is_over, timeout, look_after)
        for each in self.injected:
            each.wait(0)
            if each.healed is None:
                raise FaultError(
                    f"{each} has not healed in {timeout:g} s: of {each.lost} {each.of} that it "
                    f"took not all are back; look at the workers"
                )

    def rows(self) -> list[FaultRow]:
        """Return one row for each fault, for `Run.plot`."""
        return [FaultRow(each.fault, each.triggered, each.seconds) for each in self.injected]

    def table(self) -> Table:
        """One row for each fault: what, when, whether it landed, seconds until it was healed."""
        return table(self.injected, self._began, f"faults, seed {self.seed}")

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    # ---- inside ----------------------------------------------------------------------------------

    @property
    def _wire(self) -> Proxy:
        if self._proxy is None:
            raise FaultError("no faults before they begin: use them in a with block, or start()")
        return self._proxy

    def _note(self, fault: str, what: str) -> Fault:
        injected = Fault(fault, what)
        self.injected.append(injected)
        return injected

    def _look(self) -> None:  # on a thread of the proxy
        for each in list(self.injected):
            each.look(self._wire.begun)

    def _at(
        self,
        fault: str,
        noun: str,
        direction: Direction,
        matches: Callable[[Link, Piece], bool] | None,
    ) -> Fault:
        number = self._chance.randint(1, WITHIN)
        injected = self._note(fault, f"{noun} {number} from now")

        def told(link: Link) -> None:
            if link.consumers:
                injected.land(link.consumers, self._wire.begun)
            else:
                injected.land(1, self._wire.begun, of="connections")

        step = self._wire.at("Basic.Ack", direction, number=number, matches=matches, told=told)
        self._steps.append((step, injected))
        return injected

    def _consumers_of(self, pid: int) -> int:
        return sum(link.consumers for link in self._wire.links() if link.name.endswith(f":{pid}"))

    def _node(self) -> RabbitMQNode | None:
        from mousetrap.broker import local

        return local.started_here(self._base)

    def _is_ours(self, run: Run) -> bool:
        return run.settings.port == self.settings.port

    def _run(self, run: Run | None) -> Run:
        from mousetrap.runs.run import open_runs

        runs = [run] if run is not None else [each for each in open_runs() if self._is_ours(each)]
        if len(runs) != 1:
            raise FaultError(
                f"{len(runs)} runs go through these faults: open one with faults.settings, or say "
                f"which, as in faults.kill_worker(run)"
            )
        return runs[0]


def faults(broker: Broker | Settings | None = None, *, seed: int = 0) -> Faults:
    """Return `Faults` before *broker*, to be used in a ``with`` block."""
    return Faults(broker, seed=seed)


def _come_by(broker: Broker | Settings | None) -> tuple[Broker | None, Settings]:
    """Return the broker that is ours to close, if any, and its settings."""
    if broker is None:
        from mousetrap.broker import ensure  # a quarter of the time that `import mousetrap` takes

        found = ensure()
        return found, found.settings
    return None, broker if isinstance(broker, Settings) else broker.settings


def _is_of_worker(link: Link, _: Piece) -> bool:
    purpose = link.name.rpartition(" ")[0]  # "mousetrap worker run-7f3a.start_fetch"
    return link.consumers > 0 and not purpose.endswith(("worker events", ".events"))


def _wait_for(reached: Callable[[], bool], timeout: float, look: Callable[[], object]) -> bool:
    deadline = clock.monotonic() + timeout
    while not reached():
        if clock.monotonic() > deadline:
            return False
        look()
        clock.sleep(LOOK)
    return True

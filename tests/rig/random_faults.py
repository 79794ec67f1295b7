"""Random faults of connections, workers and broker, for the soak test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections import Counter
from random import Random

from mousetrap.fault_injection.proxy import Proxy
from mousetrap.model.topology import Queue

from .brokers import Container
from .trial import Trial
from .worker_pool import PoolProcess, WorkerPool

DELAYS = (2.0, 0.05, 0.05, 0.05, 0.05)  # seconds: many retries wait together, and none is the last
WORK = Queue("work", DELAYS)
TIMEOUT = 5.0  # seconds, the time limit of the handlers
OPTIONS = ("--concurrency", "4", "--grace", "2", "--timeout", str(TIMEOUT),
           "--retry-delays", ",".join(map(str, DELAYS)))  # fmt: skip
# of so many jobs one does at its first attempt what `work_stage.FIRST` names
RATES = {"hang": 1999, "wide": 499, "hostile": 307, "long": 293, "once": 5}


def job_id(number: int) -> str:
    """Return the id of job *number*: most succeed at once."""
    kind = next((kind for kind, rate in RATES.items() if number % rate == rate - 1), "plain")
    return f"{kind}-{number}"


class RandomFaults:
    """Injects random faults; those of one group follow each other, those of two groups overlap."""

    def __init__(
        self,
        proxy: Proxy,
        trial: Trial,
        rabbit: Container,
        worker_pool: WorkerPool,
        seeded_random: Random,
    ) -> None:
        self._proxy, self._trial = proxy, trial
        self._rabbit, self._worker_pool = rabbit, worker_pool
        kinds = {
            "connections": "cut lose delay slice half_open repeat",
            "workers": "kill stop sleep",
            "broker": "crash alarm fill_results fill_work limit_connections pause",
        }
        self._kinds = {
            group: [getattr(self, name) for name in names.split()] for group, names in kinds.items()
        }
        # one for each thread
        self._randoms = {group: Random(seeded_random.random()) for group in kinds}
        self._workers = [self._start() for _ in range(2)]
        self._policy("full", "out")
        self._policy("full-work", "work")
        self.triggered: Counter[str] = Counter()
        self.stopped = threading.Event()

    def __enter__(self) -> RandomFaults:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()  # also after an exception: else the threads in `inject` never end

    def inject(self, group: str, pause: float) -> None:
        """Inject faults of *group*, up to *pause* seconds apart, until the block ends."""
        seeded_random = self._randoms[group]
        while not self.stopped.wait(seeded_random.uniform(0.0, pause)):
            fault = seeded_random.choice(self._kinds[group])
            if fault(seeded_random) is not False:
                self.triggered[fault.__name__] += 1

    def clear(self) -> None:
        """Remove what would act on after the faults."""
        for name in ("full", "full-work"):
            self._rabbit.rabbitmqctl("clear_policy", name)

    def _wait(self, seeded_random: Random, longest: float) -> None:
        self.stopped.wait(seeded_random.uniform(0.2, longest))

    # connections

    def cut(self, _: Random) -> bool:
        return self._proxy.cut() > 0

    def lose(self, seeded_random: Random) -> bool:
        """Cut a connection with an ack or a confirm."""
        direction = seeded_random.choice(["to broker", "from broker"])
        step = self._proxy.at("Basic.Ack", direction, number=seeded_random.randint(1, 9))
        return self._happens(step)

    def repeat(self, seeded_random: Random) -> bool:
        """Duplicate one message."""
        return self._happens(self._proxy.replay(number=seeded_random.randint(1, 9)))

    def _happens(self, step) -> bool:
        if not step.triggered.wait(2):
            self._proxy.forget(step)
        return step.triggered.is_set()

    def delay(self, seeded_random: Random) -> None:
        self._proxy.delay(seeded_random.uniform(0.01, 0.2))
        self._wait(seeded_random, 2)
        self._proxy.delay(0)

    def slice(self, seeded_random: Random) -> None:
        self._proxy.slice(seeded_random.choice([1, 7, 100]))
        self._wait(seeded_random, 2)
        self._proxy.slice(0)

    def half_open(self, seeded_random: Random) -> None:
        """Discard what is sent for some time, then cut the connections."""
        self._proxy.hold(*seeded_random.choice([["to broker"], ["from broker"], []]))
        self._wait(seeded_random, 2)
        self._proxy.cut()
        self._proxy.release()

    # workers

    def _start(self) -> PoolProcess:
        # the broker may be away at the start
        settings = self._proxy.settings.replace(connect_timeout=120.0)
        return self._worker_pool.start(settings, *OPTIONS)

    def kill(self, seeded_random: Random) -> None:
        self._end(seeded_random, signal.SIGKILL)

    def stop(self, seeded_random: Random) -> None:
        self._end(seeded_random, signal.SIGTERM)

    def _end(self, seeded_random: Random, number: int) -> None:
        n = seeded_random.randrange(len(self._workers))
        self._workers[n].kill(number)
        code = self._workers[n].wait(30)
        # 1: as many handlers hang as run at a time; 143: it had not begun to work; -15, and nothing
        # written: nor had it begun to handle signals
        log = self._workers[n].log.read_text()[-2000:]
        is_expected = code in (0, 1, 143) or (code == -signal.SIGTERM and not log)
        assert number == signal.SIGKILL or is_expected, f"exit code {code}: {log}"
        self._workers[n] = self._start()

    def sleep(self, seeded_random: Random) -> None:
        """Stop a worker as a laptop that is closed, and let it go on."""
        pid = seeded_random.choice(self._workers).pid
        with contextlib.suppress(ProcessLookupError):  # it has ended: too many handlers hang
            os.kill(pid, signal.SIGSTOP)
            self._wait(seeded_random, 20)
            os.kill(pid, signal.SIGCONT)

    # the broker

    def crash(self, _: Random) -> None:
        self._rabbit.kill()
        self._rabbit.start()

    def alarm(self, seeded_random: Random) -> None:
        self._rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0")
        self._wait(seeded_random, 3)
        self._rabbit.rabbitmqctl("set_vm_memory_high_watermark", "0.6")

    def fill_results(self, seeded_random: Random) -> None:
        """Limit the queue of the results to one message, so that it refuses."""
        self._policy("full", "out", **{"max-length": 1})
        self._wait(seeded_random, 3)
        self._policy("full", "out")

    def fill_work(self, seeded_random: Random) -> None:
        """The same with the work queue, which then refuses jobs and the retries that return."""
        self._policy("full-work", "work", **{"max-length": 1})
        self._wait(seeded_random, 3)
        self._policy("full-work", "work")

    def limit_connections(self, seeded_random: Random) -> None:
        """Let nobody connect for some time, and cut the connections there are."""
        self._rabbit.rabbitmqctl("set_vhost_limits", "-p", "/", '{"max-connections": 0}')
        self._proxy.cut()
        self._wait(seeded_random, 3)
        self._rabbit.rabbitmqctl("clear_vhost_limits", "-p", "/")

    def pause(self, seeded_random: Random) -> bool:
        """A broker that says nothing; its connections stay open."""
        if not isinstance(self._rabbit, Container):
            return False
        with self._rabbit.silent():
            self._wait(seeded_random, 5)
        return True

    def _policy(self, name: str, queue: str, **limits: int) -> None:
        # always with overflow: if both are set at once, a queue first drops what exceeds the limit
        policy = json.dumps({"overflow": "reject-publish", **limits})
        pattern = f"^{self._trial.wire_name(queue)}$"
        self._rabbit.rabbitmqctl("set_policy", name, pattern, policy, "--apply-to", "queues")

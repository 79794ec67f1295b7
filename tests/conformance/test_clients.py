"""Unmodified AMQP clients, on the embedded broker and on RabbitMQ: the same tests for both.

Each client publishes with confirms, consumes, gets an unroutable message returned, has a message
dead-lettered, and goes on after its connection was cut. Some clients lack a part of that: Celery
does not report returned messages; pika, amqpstorm and amqplib do not reconnect by themselves, so
the test opens a new connection, as their users do; Celery, dramatiq and FastStream decide
themselves when they consume and how they ask for confirms.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import queue as queues
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pika
import pika.adapters.asyncio_connection
import pika.exceptions
import pytest
from client import WAIT_TIMEOUT, get, publish, ready_count, wait_until

from mousetrap.fault_injection.proxy import Proxy
from mousetrap.pytest_plugin import missing
from mousetrap.settings import Settings

HERE = Path(__file__).parent
PROGRAM_TIMEOUT = 60.0  # seconds for a program in another language, or a worker's start


def needed(module):
    """Import and return the module of a client; skip without it, and fail in CI."""
    try:
        return importlib.import_module(module)
    except ImportError:
        missing(f"no {module}: pip install 'mousetrap-mq[dev]'")


@pytest.fixture
def proxy(target):
    """A proxy in front of the broker, which can cut connections."""
    of = target.parameters
    settings = Settings(
        user=of.credentials.username, password=of.credentials.password, host=of.host, port=of.port
    )
    with Proxy(settings) as proxy:
        yield proxy


@pytest.fixture
def url(proxy):
    """The URL of the proxy, to which the clients connect."""
    return proxy.settings.to_environment()["RABBITMQ_URL"]


@pytest.fixture
def pair(channel, name):
    """A queue and the queue for its dead letters."""
    dead = channel.queue_declare(name("dead"), durable=True).method.queue
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    queue = channel.queue_declare(name(), durable=True, arguments=arguments).method.queue
    return queue, dead


def reason(channel, dead):
    """Return the reason of the next dead letter."""
    return get(channel, dead)[1].headers["x-death"][0]["reason"]


def test_pika_blocking(url, proxy, pair, channel):
    """pika's BlockingConnection works."""
    queue, dead = pair
    connection = pika.BlockingConnection(pika.URLParameters(url))
    mine = connection.channel()
    mine.confirm_delivery()
    mine.basic_publish("", queue, b"hello", mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        mine.basic_publish("", f"{queue}.nowhere", b"lost", mandatory=True)
    for method, _, body in mine.consume(queue, inactivity_timeout=WAIT_TIMEOUT):
        assert body == b"hello"
        mine.basic_reject(method.delivery_tag, requeue=False)
        break
    mine.cancel()
    assert reason(channel, dead) == "rejected"

    proxy.cut()
    with pytest.raises(pika.exceptions.AMQPError):
        mine.queue_declare(queue, passive=True)
    with pika.BlockingConnection(pika.URLParameters(url)) as again:
        assert again.channel().queue_declare(queue, passive=True).method.message_count == 0


@pytest.mark.parametrize(
    "kind", [pika.SelectConnection, pika.adapters.asyncio_connection.AsyncioConnection]
)
def test_pika_with_callbacks(kind, url, proxy, pair, channel):
    """pika's SelectConnection and AsyncioConnection work."""
    queue, dead = pair
    seen = queues.Queue()

    def on_open(mine):
        mine.add_on_return_callback(lambda *said: seen.put(("returned", said[1].reply_code)))
        mine.confirm_delivery(lambda frame: seen.put(("confirmed", frame.method.NAME)))
        mine.basic_publish("", queue, b"hello")
        mine.basic_publish("", f"{queue}.nowhere", b"lost", mandatory=True)
        mine.basic_consume(queue, on_message)

    def on_message(mine, method, _, body):
        seen.put(("consumed", body))
        mine.basic_reject(method.delivery_tag, requeue=False)

    def run():
        if kind is not pika.SelectConnection:
            asyncio.set_event_loop(asyncio.new_event_loop())
        connection = kind(
            pika.URLParameters(url),
            on_open_callback=lambda opened: opened.channel(on_open_callback=on_open),
            on_close_callback=on_close,
        )
        connection.ioloop.start() if kind is pika.SelectConnection else (
            connection.ioloop.run_forever()
        )

    def on_close(connection, _):
        seen.put(("closed", None))
        connection.ioloop.stop()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    expected = {("returned", 312), ("confirmed", "Basic.Ack"), ("consumed", b"hello")}
    while expected:
        expected.discard(seen.get(timeout=WAIT_TIMEOUT))
    assert reason(channel, dead) == "rejected"

    proxy.cut()
    while seen.get(timeout=WAIT_TIMEOUT) != ("closed", None):
        pass
    thread.join(WAIT_TIMEOUT)
    assert not thread.is_alive()


def test_aio_pika(url, proxy, pair, channel):
    """aio-pika's robust connection works; it reconnects and consumes again by itself."""
    aio_pika = needed("aio_pika")
    queue, dead = pair

    async def run():
        connection = await aio_pika.connect_robust(url, reconnect_interval=0.1)
        mine = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await mine.default_exchange.publish(aio_pika.Message(b"hello"), queue)
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await mine.default_exchange.publish(aio_pika.Message(b"lost"), f"{queue}.nowhere")
        arrived = asyncio.Queue()
        consumed = await mine.get_queue(queue)
        await consumed.consume(arrived.put)
        message = await asyncio.wait_for(arrived.get(), WAIT_TIMEOUT)
        assert message.body == b"hello"
        await message.reject(requeue=False)
        assert await asyncio.to_thread(reason, channel, dead) == "rejected"

        await asyncio.to_thread(proxy.cut)
        await asyncio.to_thread(publish, channel, queue, b"again")
        while (message := await asyncio.wait_for(arrived.get(), WAIT_TIMEOUT)).body != b"again":
            pass
        await message.ack()
        await connection.close()

    asyncio.run(asyncio.wait_for(run(), 3 * WAIT_TIMEOUT))


def test_kombu(url, proxy, pair, channel):
    """kombu works over py-amqp."""
    kombu = needed("kombu")
    queue, dead = pair
    options = {"transport_options": {"confirm_publish": True}, "heartbeat": 10}
    got = []
    with kombu.Connection(url, **options) as connection:
        named = kombu.Queue(queue, no_declare=True)
        returned = []
        producer = connection.Producer(
            on_return=lambda error, *_: returned.append(error.reply_code)
        )
        producer.publish({"hello": 1}, routing_key=queue)
        producer.publish({"lost": 1}, routing_key=f"{queue}.nowhere", mandatory=True)
        assert returned == [312]

        def on_message(body, message):
            got.append(body)
            message.reject(requeue=False)

        with connection.Consumer([named], callbacks=[on_message]):
            connection.drain_events(timeout=WAIT_TIMEOUT)
        assert got == [{"hello": 1}]
        assert reason(channel, dead) == "rejected"

        proxy.cut()
        connection.Producer().publish({"again": 1}, routing_key=queue, retry=True)
        wait_until(channel, lambda: ready_count(channel, queue) == 1)


CELERY = """
import os
import celery, celery.exceptions, kombu
app = celery.Celery("app", broker=os.environ["URL"], backend="rpc://")
name = os.environ["QUEUE"]
to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": os.environ["DEAD"]}
app.conf.update(
    task_queues=[kombu.Queue(name, queue_arguments=to_dead)], task_default_queue=name,
    broker_transport_options={"confirm_publish": True},
    worker_enable_remote_control=False, broker_connection_retry_on_startup=True,
    task_acks_late=True, event_queue_prefix=name, broker_connection_max_retries=100,
)

@app.task
def double(number):
    return 2 * number

@app.task
def reject():
    raise celery.exceptions.Reject("no", requeue=False)
"""


def test_a_celery_worker(url, proxy, name, channel, tmp_path, monkeypatch):
    """A Celery worker returns results and rejects tasks, also after its connection was cut."""
    needed("celery")
    queue, dead = name("celery"), name("dead")
    channel.queue_declare(dead, durable=True)
    (tmp_path / "app.py").write_text(CELERY)
    environment = os.environ | {"URL": url, "QUEUE": queue, "DEAD": dead}
    command = [sys.executable, "-m", "celery", "-A", "app", "worker", "--pool", "solo",
               "--without-gossip", "--without-mingle", "--loglevel", "INFO"]  # fmt: skip
    for key in ("URL", "QUEUE", "DEAD"):
        monkeypatch.setenv(key, environment[key])
    monkeypatch.syspath_prepend(tmp_path)
    with open(tmp_path / "log", "wb") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        import app  # the same module as the worker's

        assert app.double.delay(4).get(timeout=PROGRAM_TIMEOUT) == 8
        app.reject.delay()
        wait_until(channel, lambda: ready_count(channel, dead) == 1)
        assert reason(channel, dead) == "rejected"
        proxy.cut()
        with app.app.connection_for_write() as fresh:  # the producer's connection was cut, too
            result = app.double.apply_async((5,), connection=fresh)
        deadline = time.monotonic() + PROGRAM_TIMEOUT
        while b"succeeded" not in (tmp_path / "log").read_bytes().rpartition(result.id.encode())[2]:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            channel.connection.process_data_events(0.05)
        app.app.close()
    finally:
        sys.modules.pop("app", None)
        worker.terminate()
        worker.wait(PROGRAM_TIMEOUT)


def test_dramatiq(url, proxy, name, channel):
    """dramatiq's worker works, with its own queue for dead letters, and reconnects."""
    dramatiq = needed("dramatiq")
    from dramatiq.brokers.rabbitmq import RabbitmqBroker
    from dramatiq.middleware import Retries

    queue = name("dramatiq")
    name("dramatiq.DQ"), name("dramatiq.XQ")
    broker = RabbitmqBroker(url=url, confirm_delivery=True, middleware=[Retries(max_retries=0)])
    done = queues.Queue()

    def work(number):
        if number < 0:
            raise ValueError(number)
        done.put(number)

    actor = dramatiq.actor(work, broker=broker, queue_name=queue, actor_name=queue)
    worker = dramatiq.Worker(broker, worker_timeout=100)
    worker.start()
    try:
        actor.send(1)
        assert done.get(timeout=WAIT_TIMEOUT) == 1
        broker.enqueue(actor.message(-1))
        wait_until(channel, lambda: ready_count(channel, f"{queue}.XQ") == 1)
        proxy.cut()
        deadline = time.monotonic() + PROGRAM_TIMEOUT
        while True:
            assert time.monotonic() < deadline, "the client did not reconnect"
            with contextlib.suppress(Exception):
                actor.send(2)
                assert done.get(timeout=WAIT_TIMEOUT) == 2
                break
    finally:
        worker.stop()
        broker.close()


def test_faststream(url, proxy, pair, channel):
    """FastStream's RabbitBroker works over aio-pika."""
    needed("faststream.rabbit")
    from faststream import AckPolicy
    from faststream.rabbit import RabbitBroker, RabbitQueue

    queue, dead = pair

    async def run():
        broker = RabbitBroker(url, reconnect_interval=0.1)
        arrived = asyncio.Queue()

        @broker.subscriber(RabbitQueue(queue, declare=False), ack_policy=AckPolicy.REJECT_ON_ERROR)
        async def handle(body: str):
            await arrived.put(body)
            if body == "bad":
                raise ValueError(body)

        async with broker:
            await broker.start()
            await broker.publish("bad", queue)
            assert await asyncio.wait_for(arrived.get(), WAIT_TIMEOUT) == "bad"
            assert await asyncio.to_thread(reason, channel, dead) == "rejected"
            await asyncio.to_thread(proxy.cut)
            await asyncio.to_thread(publish, channel, queue, b"again", content_type="text/plain")
            while await asyncio.wait_for(arrived.get(), WAIT_TIMEOUT) != "again":
                pass

    asyncio.run(asyncio.wait_for(run(), 4 * WAIT_TIMEOUT))


def test_amqpstorm(url, proxy, pair, channel):
    """amqpstorm works, with its own codec."""
    amqpstorm = needed("amqpstorm")
    queue, dead = pair
    connection = amqpstorm.UriConnection(url)
    mine = connection.channel(rpc_timeout=5)
    mine.confirm_deliveries()
    assert mine.basic.publish(b"hello", queue) is True
    with pytest.raises(amqpstorm.AMQPMessageError):
        mine.basic.publish(b"lost", f"{queue}.nowhere", mandatory=True)
    message = mine.basic.get(queue)
    assert message.body == "hello"
    message.reject(requeue=False)
    assert reason(channel, dead) == "rejected"

    proxy.cut()
    with pytest.raises(amqpstorm.AMQPError):
        mine.basic.get(queue)
    with amqpstorm.UriConnection(url) as again:
        assert again.channel().queue.declare(queue, passive=True)["message_count"] == 0


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """A folder in which a fixed version of amqplib is installed."""
    if not (shutil.which("node") and shutil.which("npm")):
        missing("no node and npm on the PATH")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
    done = subprocess.run([*command, "amqplib@0.10.9"], capture_output=True, text=True, timeout=90)
    if done.returncode:
        missing(f"npm could not install amqplib: {done.stderr[-300:]}")
    return folder


def test_amqplib_of_node(url, proxy, name, modules):
    """Node's amqplib works; ``clients.js`` is its program."""
    prefix = name("node").removesuffix(".node")
    name("queue"), name("dead")
    shutil.copy(HERE / "clients.js", modules)
    with subprocess.Popen(
        ["node", "clients.js", url, prefix], cwd=modules, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as program:  # fmt: skip
        watchdog = threading.Timer(PROGRAM_TIMEOUT, program.kill)
        watchdog.start()
        seen = []
        for line in program.stdout:
            seen.append(line.strip())
            if seen[-1] == "waiting for the cut":
                proxy.cut()
        watchdog.cancel()
        error = program.stderr.read()

    steps = ["confirm", "return", "consume", "dead-letter", "error 404"]
    assert seen == [*steps, "waiting for the cut", "reconnect"], error

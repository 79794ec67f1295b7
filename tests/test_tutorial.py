"""The contract with the tutorial: its code runs unchanged with this package and a real broker."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import uuid

import pika
import pytest

from mousetrap import job_queue

# The tutorial's worker module, word for word.
RUN_FETCH_WORKER = '''
import json

from mousetrap.fetch_data import fetch_data
from mousetrap.job_queue import open_channel

LISTEN_QUEUE = "start_fetch"
PUSH_QUEUE = "data_processing"


def callback(ch, method, properties, body):
    """
    Fetches data and hands it off to the next queue.
    """

    print("Fetch data job started...")

    # Fall the fetch data component to create and fetch data
    data = fetch_data()

    # Send data to the next queue
    ch.basic_publish(exchange="", routing_key=PUSH_QUEUE, body=json.dumps(data))

    # Acknowledge the incoming message to remove it from the queue
    ch.basic_ack(delivery_tag=method.delivery_tag)

    print("Done. Data sent to to queue for data processing.")


def run_fetch_worker():
    """
    Sets up and runs the fetch worker 1.
    Creates a blocking connection so remains running.
    """

    # Get a new channel from the base
    channel = open_channel()

    # Register the callback
    channel.basic_consume(queue=LISTEN_QUEUE, on_message_callback=callback)

    # This is a blocking connection
    channel.start_consuming()
'''

# A second worker in the tutorial's way: it uses the summary as the plain data it is.
RUN_PROCESSING_WORKER = """
import json
import sqlite3

from mousetrap.job_queue import open_channel
from mousetrap.process_data import process_data


def callback(ch, method, properties, body):
    r = process_data(json.loads(body))
    lat, lon = r["centroid"]
    database = sqlite3.connect("documents.db")
    database.execute("CREATE TABLE IF NOT EXISTS documents (document TEXT)")
    document = json.dumps({"lat": lat, "lon": lon, **r})
    database.execute("INSERT INTO documents VALUES (?)", [document])
    database.commit()
    ch.basic_publish(exchange="", routing_key="results", body=json.dumps(r))
    ch.basic_ack(delivery_tag=method.delivery_tag)


channel = open_channel()
channel.queue_declare("results", durable=True)
channel.basic_consume(queue="data_processing", on_message_callback=callback)
channel.start_consuming()
"""

# The tutorial's job_queue module, word for word, used beside this package.
JOB_QUEUE = '''
import os
import pika

QUEUES = ["start_fetch", "data_processing"]

username = os.environ.get("RABBITMQ_USER", "DEV_USER")
password = os.environ.get("RABBITMQ_PASSWORD", "CHANGE_ME")
host = os.environ.get("RABBITMQ_HOST", "localhost")


def open_channel():
    """
    Opens a connection, a channel, creates queues and then returns this to the caller.
    """

    # Create the connection
    credentials = pika.PlainCredentials(username, password)
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(host=host, credentials=credentials)
    )
    channel = connection.channel()

    # Create all the queues
    for queue in QUEUES:
        channel.queue_declare(queue=queue, durable=True)

    return channel
'''


@pytest.fixture
def bare(broker):
    """Settings without a namespace, which the tutorial's queue names do not have."""
    # A vhost of our own would need the management API, so the queues are deleted before and after.
    queues = ("start_fetch", "data_processing", "results")
    job_queue.delete(*queues, settings=broker.settings)
    yield broker.settings
    job_queue.delete(*queues, settings=broker.settings)


def test_tutorial_worker_runs_unchanged(bare, tmp_path):
    """Its listing, saved as a module and run as it says, handles a job with an empty body."""
    (tmp_path / "worker.py").write_text(RUN_FETCH_WORKER)
    worker = subprocess.Popen(
        [sys.executable, "-u", "-c", "from worker import run_fetch_worker; run_fetch_worker()"],
        cwd=tmp_path,
        env=os.environ | bare.to_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with job_queue.open_channel(bare) as channel:
            channel.basic_publish(exchange="", routing_key="start_fetch", body="")
        [message] = job_queue.drain("data_processing", 1, timeout=20, settings=bare)
    finally:
        worker.kill()
        output, _ = worker.communicate(timeout=10)

    assert len(json.loads(message.body)) == 10
    assert all(len(place) == 5 for place in json.loads(message.body))
    assert "Fetch data job started..." in output


def test_processing_worker_in_the_tutorials_way_uses_plain_data(bare, tmp_path):
    """`json.dumps`, ``r["centroid"]`` and a table of JSON documents take the summary as it is."""
    (tmp_path / "worker.py").write_text(RUN_PROCESSING_WORKER)
    worker = subprocess.Popen(
        [sys.executable, "worker.py"], cwd=tmp_path, env=os.environ | bare.to_environment()
    )
    try:
        with job_queue.open_channel(bare) as channel:
            places = [["60.5", "25.0", "A", "FI", "Europe/Helsinki"]]
            channel.queue_declare("results", durable=True)
            channel.basic_publish("", "data_processing", json.dumps(places))
        [message] = job_queue.drain("results", 1, timeout=20, settings=bare)
    finally:
        worker.kill()
        worker.wait(10)

    summary = json.loads(message.body)
    assert summary["most_northerly"] == [60.5, 25.0, "A", "FI", "Europe/Helsinki"]
    with sqlite3.connect(tmp_path / "documents.db") as database:
        [[document]] = database.execute("SELECT document FROM documents").fetchall()
    assert json.loads(document) == {"lat": summary["centroid"][0], "lon": summary["centroid"][1],
                                    **summary}  # fmt: skip


def test_tutorial_consumer_reads_what_our_stages_write(bare):
    """Our fetch stage handles the tutorial's empty job; plain pika and json read its output."""
    from mousetrap.run_fetch_worker import LISTEN_QUEUE, PUSH_QUEUE, fetch

    with fetch.start(bare) as worker, job_queue.open_channel(bare) as channel:
        channel.basic_publish(exchange="", routing_key=LISTEN_QUEUE, body="")
        worker.wait_until(done=1)
        _, _, body = channel.basic_get(PUSH_QUEUE, auto_ack=True)

    lat, lon, name, country, timezone = json.loads(body)[0]
    assert -90 <= float(lat) <= 90
    assert -180 <= float(lon) <= 180
    assert all(isinstance(text, str) for text in (name, country, timezone))


def test_tutorial_job_queue_gets_no_406_beside_ours(bare, tmp_path):
    """Its own `open_channel` can declare the queues before and after ours."""
    if bare.port != 5672 or bare.vhost != "/":
        pytest.skip("the tutorial's listing has no port: it needs a broker on 5672")
    program = JOB_QUEUE + (
        "\nfrom mousetrap.job_queue import open_channel as ours, QUEUES as our_queues"
        "\nassert QUEUES == our_queues"
        "\nopen_channel(); ours().close(); open_channel()\n"
    )
    environment = os.environ | bare.to_environment() | {
        "RABBITMQ_HOST": bare.host, "RABBITMQ_USER": bare.user,
        "RABBITMQ_PASSWORD": bare.password,
    }  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 0, done.stderr


def test_plain_pika_declares_our_queues_without_arguments(settings):
    """Outside a namespace the work queues have no arguments at all."""
    bare = settings.replace(namespace="")
    name = f"plain-{uuid.uuid4().hex[:8]}"
    job_queue.declare(job_queue.Queue(name), settings=bare)
    try:
        with job_queue.open_channel(settings) as channel:
            channel.queue_declare(name, durable=True)  # 406 if ours had any
            with pytest.raises(pika.exceptions.ChannelClosedByBroker):
                channel.queue_declare(name, durable=True, arguments={"x-max-length": 1})
    finally:
        job_queue.delete(job_queue.Queue(name), settings=bare)

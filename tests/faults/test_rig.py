"""The rig finds what it is made for: the checker each mutation, the controls each loss."""

from __future__ import annotations

import random
import threading

import pika
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from rig import brokers, fault_table
from rig.checker import History, check
from rig.trial import Trial
from support.waiting import wait_for

from mousetrap.amqp.publisher import Publisher
from mousetrap.broker import probe
from mousetrap.job_queue import declare, delete, depth, open_channel
from mousetrap.model.message import Message
from mousetrap.worker.worker import Worker

NO_MISTAKE = "tutorial"

# ---- the checker -------------------------------------------------------------------------------


@st.composite
def clean_histories(draw):
    """Any history without a defect."""
    history = History()
    for n in range(draw(st.integers(3, 20))):
        id = f"m{n}"
        history.attempted.add(id)
        answer = draw(st.sampled_from(["confirmed", "confirmed", "refused", "unknown"]))
        getattr(history, answer).add(id)
        end = draw(st.sampled_from(["effect", "effect", "dead"]))
        if answer == "refused" or (answer == "unknown" and draw(st.booleans())):
            continue
        if end == "effect":
            history.effects[id] = draw(st.integers(1, 3))
        else:
            history.dead[id] = "ValueError: no luck"
    history.attempted.add("sure")
    history.confirmed.add("sure")
    history.effects["sure"] = 1
    return history


def lose(history, seeded_random):
    id = seeded_random.choice(sorted(history.confirmed))
    history.effects.pop(id, None)
    history.dead.pop(id, None)


def invent_an_effect(history, _):
    history.effects["nobody sent this"] += 1


def invent_a_dead_letter(history, _):
    history.dead["nobody sent this"] = "ValueError: no luck"


def forget_an_attempt(history, seeded_random):
    history.attempted.remove(seeded_random.choice(sorted(history.effects)))


def remove_the_reason(history, seeded_random):
    history.dead[seeded_random.choice(sorted(history.attempted))] = ""


def leave(history, seeded_random):
    history.left[seeded_random.choice(sorted(history.attempted))] += 1


def remove_the_answer(history, seeded_random):
    id = seeded_random.choice(sorted(history.attempted))
    for answers in (history.confirmed, history.refused, history.unknown):
        answers.discard(id)


def rename(history, seeded_random):
    history.names[seeded_random.choice(sorted(history.attempted))] = {"one id", "another"}


MUTATIONS = [lose, invent_an_effect, invent_a_dead_letter, forget_an_attempt, remove_the_reason,
             leave, remove_the_answer, rename]  # fmt: skip


@examples(max_examples=1000)
@given(clean_histories(), st.sampled_from(MUTATIONS), st.integers(0, 2**32))
def test_checker_finds_every_mutation_and_nothing_else(history, mutate, seed):
    """Each generated history is clean as it is, and not clean after one mutation."""
    assert check(history).is_clean

    mutate(history, random.Random(seed))

    assert not check(history).is_clean


# ---- the table ---------------------------------------------------------------------------------


def test_table_keeps_a_row_for_each_series_of_rabbitmq(tmp_path):
    """Another series adds a row; a patch release of the same series replaces its row."""
    file = tmp_path / "FAULTS.md"
    for version, lost in [("4.3.6", 1), ("3.10.8", 0), ("4.3.7", 0)]:
        fault_row = fault_table.TableRow(
            "F01", "broker killed", version, seed=7, trials=1, lost=lost
        )
        fault_table.write([fault_row.cells()], file)

    rows = [line.split(" | ") for line in file.read_text().splitlines() if line.startswith("| F01")]
    assert [(row[2].strip(), row[6].strip()) for row in rows] == [("3.10.8", "0"), ("4.3.7", "0")]


# ---- negative controls: each must lose messages, or the rig does not find losses ---------------


@pytest.fixture
def trial(settings):
    return Trial(settings)


def is_taken(trial, queue="work"):
    found = depth(queue, trial.settings)
    return found.messages == 0 and found.consumers == 1


def consuming(process):
    assert process.stdout.readline() == "consuming\n"


def test_n0_the_loop_works_as_long_as_nothing_fails(trial):
    """Without a fault the loop of the tutorial does every job."""
    trial.send(["a", "b", "c"])
    with trial.tutorial_loop(NO_MISTAKE):
        wait_for(lambda: depth("out", trial.settings).messages == 3)

    assert check(trial.drain_queues()).is_clean


def test_n1_the_loop_loses_when_the_downstream_queue_is_deleted(trial, proxy):
    """It publishes without `mandatory` to a queue that does not exist, and acks."""
    delete("out", settings=trial.settings)
    trial.send(["a", "b", "c"])
    acked = proxy.at("Basic.Ack", "to broker", "after", number=3)
    with trial.tutorial_loop(NO_MISTAKE, proxy.settings):
        acked.wait(20)
        wait_for(lambda: depth("work", trial.settings).consumers == 0)
    declare("out", settings=trial.settings)

    assert check(trial.drain_queues()).lost == {"a", "b", "c"}


def test_n2_the_loop_loses_when_the_broker_refuses(trial, proxy):
    """It uses no confirms, so it does not notice a refusal."""
    name = trial.wire_name("out")
    delete("out", settings=trial.settings)
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish", "x-expires": 60_000}
    with open_channel(trial.settings) as channel:
        channel.queue_declare(name, durable=True, arguments=arguments)
    trial.send([str(n) for n in range(50)])
    acked = proxy.at("Basic.Ack", "to broker", "after", number=50)
    with trial.tutorial_loop(NO_MISTAKE, proxy.settings):
        acked.wait(20)
        wait_for(lambda: depth("work", trial.settings).consumers == 0)

    assert (
        len(check(trial.drain_queues()).lost) > 40
    )  # the broker checks the limit only from time to time


@pytest.mark.local
def test_n3_the_loop_loses_when_the_broker_restarts(node):
    """Messages that are published as in the tutorial are not persistent."""
    trial = Trial(node.settings)
    trial.send(["a", "b", "c"], transient=True)
    node.kill()
    node.start()

    assert check(trial.drain_queues()).lost == {"a", "b", "c"}


def test_n4_the_loop_dies_of_a_message_that_is_no_json(trial):
    """One bad body ends it, and the other messages stay in the queue."""
    trial.send_raw(b"{bad", "bad")
    trial.send(["a", "b"])
    with trial.tutorial_loop(NO_MISTAKE) as process:
        assert process.wait(20) != 0

    assert {"a", "b"} <= check(trial.drain_queues()).left


def test_n5_the_loop_ends_in_silence_when_its_queue_is_deleted(trial):
    """It exits with code 0, and later jobs are not handled."""
    with trial.tutorial_loop(NO_MISTAKE) as process:
        consuming(process)
        wait_for(lambda: depth("work", trial.settings).consumers == 1)
        delete("work", settings=trial.settings)
        assert process.wait(20) == 0
    declare("work", settings=trial.settings)
    trial.send(["a"])

    assert check(trial.drain_queues()).left == {"a"}


def test_n6_the_loop_loses_its_connection_while_it_works(trial):
    """A handler longer than two heartbeats ends it, and the message is not acked."""
    trial.send(["a"])
    with trial.tutorial_loop(NO_MISTAKE, HEARTBEAT="1", WORK_SECONDS="6") as process:
        assert process.wait(30) != 0
        wait_for(lambda: depth("work", trial.settings).messages == 1)

    assert check(trial.drain_queues()).left == {"a"}


def test_n7_ack_before_publish_loses(trial, proxy):
    """Killed after the ack and before the publish, it has no result."""
    trial.send(["a"])
    acked = proxy.at("Queue.DeclareOk", "from broker", "after")
    with trial.tutorial_loop("ack first", proxy.settings, WORK_SECONDS="30") as process:
        acked.wait(20)
        process.kill()
        process.wait(10)
        wait_for(lambda: depth("work", trial.settings).consumers == 0)

    assert check(trial.drain_queues()).lost == {"a"}


def test_n8_auto_ack_loses(trial):
    """Killed with ten messages prefetched: the broker no longer has them."""
    trial.send([str(n) for n in range(10)])
    with trial.tutorial_loop("auto ack", WORK_SECONDS="30") as process:
        consuming(process)
        wait_for(lambda: is_taken(trial))
        process.kill()
        process.wait(10)
        wait_for(lambda: depth("work", trial.settings).consumers == 0)

    assert len(check(trial.drain_queues()).lost) == 10


def test_n9_old_delivery_tags_lose(trial, proxy):
    """After a reconnect the old tag acks another message, which is never done."""
    trial.send(["a", "b", "c"])
    with trial.tutorial_loop("old tags", proxy.settings) as process:
        assert process.stdout.readline() == "first done\n"
        killed = proxy.at("Exchange.DeclareOk", "from broker", "after", action=process.kill)
        proxy.cut()
        killed.wait(20)
        process.wait(10)
        wait_for(lambda: depth("work", trial.settings).consumers == 0)

    assert check(trial.drain_queues()).lost == {"c"}


def test_n10_a_classic_retry_queue_loses_when_the_broker_is_killed(rabbit, rabbit_settings):
    """RabbitMQ keeps in memory what it moves out of a classic queue: plain retries lose it."""
    trial = Trial(rabbit_settings)
    if (probe.version(rabbit_settings) or "").startswith("RabbitMQ 3."):
        # until 4.0 classic queues of version 2, which do so, are an option
        policy = ("set_policy", "version-2", f"^{trial.wire_name('')}", '{"queue-version": 2}')
        rabbit.rabbitmqctl(*policy, "--apply-to", "queues")
    arguments = {
        "x-message-ttl": 6000,  # ms; all are confirmed before the first returns
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": trial.wire_name("work"),
    }
    with open_channel(trial.settings) as channel:
        channel.queue_declare(trial.wire_name("retry"), durable=True, arguments=arguments)
    messages = [Message(f"{n}", id=f"{n}") for n in range(3000)]
    trial.history.attempted |= {each.id for each in messages}
    with Publisher(trial.settings) as publisher:
        publisher.publish_until_confirmed(messages, "retry")
    trial.history.confirmed |= trial.history.attempted
    wait_for(lambda: depth("work", trial.settings).messages >= 1500)
    rabbit.kill()
    rabbit.start()
    wait_for(lambda: not depth("retry", trial.settings).messages)

    assert len(check(trial.drain_queues()).lost) > 500


def test_n11_a_new_quorum_queue_loses_when_the_broker_is_killed(rabbit, rabbit_settings):
    """RabbitMQ confirms before it has written the queue's name, and then begins the queue again."""
    persistent = pika.BasicProperties(delivery_mode=2)
    for attempt in range(5):
        name = f"{rabbit_settings.namespace}.new-{attempt}"
        with open_channel(rabbit_settings) as channel:
            channel.confirm_delivery()  # each publish waits for its confirm
            channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
            for _ in range(10):
                channel.basic_publish("", name, b"1", persistent, mandatory=True)
            rabbit.kill()
        rabbit.start()
        if brokers.has_forgotten(rabbit, name):
            break

    assert depth(f"new-{attempt}", rabbit_settings).messages == 0


@pytest.mark.fault("F12")
def test_ours_does_not_lose_where_n9_does(trial, proxy):
    """With the same fault our worker never sends an ack of the old channel."""
    gate, begun = threading.Event(), threading.Event()

    def handle(id: str) -> str:
        begun.set()
        gate.wait(20)
        return id

    trial.send(["a", "b", "c"])
    with Worker(trial.queue, handle, proxy.settings, writes="out", prefetch=2) as worker:
        assert begun.wait(10)
        proxy.cut()
        wait_for(lambda: worker.statistics().reconnects >= 2)
        gate.set()
        trial.settle()
        trial.wait_until_idle(worker)

    verdict = check(trial.drain_queues())
    assert verdict.is_clean, verdict


def test_parameters_leave_the_broker_as_it_was(rabbit, rabbit_settings):
    """A parameter that was not set is not set afterwards: quorum queues can be declared."""
    with brokers.parameters(rabbit, quorum_tick_interval=500):
        declare("before", settings=rabbit_settings.replace(queue_type="quorum"))

    declare("after", settings=rabbit_settings.replace(queue_type="quorum"), timeout=10)

"""Faults of the login: wrong from the start, or changed while a worker runs."""

from __future__ import annotations

import base64
import time
import uuid
from urllib.parse import quote

import pytest
from rig import work_stage
from rig.trial import Trial, trial_counts
from support.waiting import wait_for

from mousetrap.cli.errors import ExitCode
from mousetrap.fault_injection.proxy import Proxy
from mousetrap.job_queue import depth
from mousetrap.model.topology import Queue

WORK = Queue("work", work_stage.DELAYS)
PASSWORD = "canary/+ä:7%&"  # another text in a URL, and in base64
OTHER = "changed-canary/+ö:8%&"


@pytest.fixture
def login(rabbit, rabbit_settings):
    """Settings of a user whose password the test may change."""
    user = f"rig-{uuid.uuid4().hex[:10]}"
    rabbit.rabbitmqctl("add_user", user, PASSWORD)
    rabbit.rabbitmqctl("set_permissions", user, ".*", ".*", ".*")
    yield rabbit_settings.replace(user=user, password=PASSWORD)
    rabbit.rabbitmqctl("delete_user", user)


def spellings(password, user):
    """Return the forms of a password: plain, in a URL, in base64, as AMQP sends it."""
    texts = {password, quote(password), quote(password, safe="")}
    for before in ("", " ", "  "):  # base64 of a text differs with where in a group of 3 it begins
        coded = base64.b64encode((before + password).encode()).decode()
        texts.add(coded[4 if before else 0 : -4])
    return texts | {f"\0{user}\0{password}"}


def check_log(process, settings, *passwords):
    """Check that the log names the problem, without a traceback and without a password."""
    log = process.log.read_text()
    assert "refused" in log or "there is no vhost" in log
    assert "Traceback" not in log
    for password in passwords:
        assert not [each for each in spellings(password, settings.user) if each in log]


@pytest.mark.fault("F23")
@trial_counts(3, 21)
def test_wrong_login(login, worker_pool, fault_row, times):
    """With a wrong password, user or vhost a worker exits after one try, within five seconds."""
    wrong = [{"password": OTHER}, {"user": "nobody"}, {"vhost": "nowhere"}]
    for n in range(times):
        with Proxy(login.replace(**wrong[n % len(wrong)])) as proxy:
            began = time.monotonic()
            process = worker_pool.start(proxy.settings)
            assert process.wait() == ExitCode.REFUSED
            assert time.monotonic() - began < 5
            assert proxy.connections == 1
            check_log(process, proxy.settings, PASSWORD, OTHER)
            fault_row.trials += 1


@pytest.mark.fault("F23")
@trial_counts(2, 20)
def test_password_changed(rabbit_settings, login, rabbit, worker_pool, fault_row, times):
    """When its password is changed and its connections are closed, a worker exits.

    No message is lost.
    """
    with Trial(rabbit_settings, WORK) as trial:
        for n in range(times):
            trial.send(f"{n}-{i}" for i in range(20))
            workers = 1 + n % 2
            options = ["--processes", str(workers)] if workers > 1 else []
            with Proxy(login) as proxy:
                process = worker_pool.start(proxy.settings, *options, RIG_SECONDS="0.2")
                wait_for(
                    lambda workers=workers: depth("work", rabbit_settings).consumers == workers, 60
                )
                before = proxy.connections
                rabbit.rabbitmqctl("change_password", login.user, OTHER)
                try:
                    rabbit.rabbitmqctl("close_all_user_connections", login.user, "changed")
                    assert process.wait() == ExitCode.REFUSED
                finally:
                    rabbit.rabbitmqctl("change_password", login.user, PASSWORD)
                # two connections each, and each asks once at most
                assert 1 <= proxy.connections - before <= 2 * workers
                check_log(process, login, PASSWORD, OTHER)
            trial.finish()
        fault_row.add(trial.drain_queues(), times)

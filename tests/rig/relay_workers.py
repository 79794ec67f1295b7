"""Two workers in a process of their own: ``work`` is relayed to ``archive``, as ``RIG_RELAY`` says.

With ``pika`` the handler publishes on a channel of its own, as other programs do; with ``send`` it
calls `mousetrap.send`. Both handlers take a few milliseconds.
"""

import os
import random
import sys
import time

import mousetrap
from mousetrap import Worker
from mousetrap.job_queue import open_channel
from mousetrap.settings import Settings

settings = Settings.from_environment()
channel = open_channel(settings)


def relay(n: int) -> None:
    time.sleep(random.random() / 50)  # the work
    if os.environ["RIG_RELAY"] == "pika":
        channel.basic_publish("", f"{settings.namespace}.archive", str(n).encode())
    else:
        mousetrap.send("archive", n)


def archive(_: int) -> None:
    time.sleep(random.random() / 50)  # the work


if __name__ == "__main__":
    with Worker("work", relay), Worker("archive", archive):
        print("up", flush=True)
        sys.stdin.read()

"""rabbitkit: `publish_many`, and a subscriber that sends its result on by `publish`.

The bulk publish needs a pooled channel for each message in flight, so the pool is as large as its
window. `mandatory` is off by default and is asked for; a result that a decorator sends on never
is (seen on the wire, whatever the configuration says), so the handler publishes.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from rabbitkit import AsyncBroker, ConsumerConfig, MessageEnvelope, PoolConfig, RabbitConfig
from rabbitkit.core.bulk import BulkPublishOptions
from rabbitkit.core.config import ConnectionConfig, PublisherConfig, WorkerConfig
from rabbitkit.serialization import JSONSerializer

from peers.peer import Loop, password_and_name
from peers.peer import Peer as Base

CHANNELS = 50  # publishes in flight, a pooled channel each; a guess


class Peer(Base):
    """An async broker on one loop."""

    title = "rabbitkit"
    share = 0.15

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        warnings.filterwarnings("ignore", message=".*discard")  # a dead queue would be left behind
        self._loop = Loop()

    def publish(self, queue: str, body: bytes, messages: int, window: int | None) -> float:
        async def all_of_them() -> float:
            broker = self._broker(None if window is None else 1)
            await broker.start()
            envelopes = [
                MessageEnvelope(routing_key=queue, body=body, mandatory=True)
                for _ in range(messages)
            ]
            limit = {} if window is None else {"max_in_flight": min(window, CHANNELS)}
            options = BulkPublishOptions(**limit, overall_timeout=120, max_items=messages)
            started = time.perf_counter()
            result = await broker.publish_many(envelopes, options)
            took = time.perf_counter() - started
            result.raise_for_status()
            await broker.stop()
            return took

        return self._loop.run(all_of_them())

    @contextmanager
    def hop(
        self, source: str, target: str, prefetch: int | None, handlers: int
    ) -> Iterator[object]:
        async def begin() -> AsyncBroker:
            broker = self._broker(prefetch)

            @broker.subscriber(queue=source, reject_without_dlx="discard")
            async def handle(body: str) -> None:
                envelope = MessageEnvelope(target, json.dumps(body).encode(), mandatory=True)
                (await broker.publish(envelope)).raise_for_status()

            await broker.start(
                **(
                    {}
                    if prefetch is None
                    else {"worker_config": WorkerConfig(worker_count=CHANNELS)}
                )
            )
            return broker

        broker = self._loop.run(begin())
        yield broker
        self._loop.run(broker.stop())

    def _broker(self, prefetch: int | None) -> AsyncBroker:
        config = RabbitConfig(
            connection=ConnectionConfig(**password_and_name(self.settings)),
            publisher=PublisherConfig(mandatory=True),
            **(
                {}
                if prefetch is None
                else {
                    "consumer": ConsumerConfig(prefetch_count=prefetch),
                    "pool": PoolConfig(channel_pool_size=CHANNELS),
                }
            ),
        )
        return AsyncBroker(config, serializer=JSONSerializer())

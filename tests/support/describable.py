"""A flow with all that a description shows: exchanges, routes, types of both libraries, options."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
import pydantic

from mousetrap import Batch, Exchange, Message, Queue, Send, stage

orders = Exchange("orders", "topic")
alarms = Exchange("alarms", "fanout")
company = Exchange("company", "direct")


class Paid(msgspec.Struct, tag=True):
    cents: int


class Refunded(msgspec.Struct, tag=True):
    why: str


@dataclass
class Visit:
    """Its tuple and its union are written otherwise in draft 7 of JSON Schema, and in AsyncAPI."""

    url: str
    size: tuple[int, float]
    payment: Paid | Refunded
    at: datetime.datetime | None = None


class Score(pydantic.BaseModel):
    url: str
    score: float = pydantic.Field(alias="theScore", ge=0)
    kind: Literal["score"] = "score"

    @pydantic.computed_field
    @property
    def is_high(self) -> bool:
        return self.score > 1


@stage(reads="raw", writes=["archive", "visits"])
def parse(line: str) -> Iterator[Visit]: ...


@stage("visits", "scored", routes=["errors", alarms], retry_delays=(1, 60), concurrency=4)
def score(visit: Visit) -> Iterator[Score | Send[Visit]]: ...


@stage(reads="scored", writes=[orders[lambda score: score.kind], orders["order.paid"]])
def publish(scored: Score) -> Score: ...


@stage(reads=Queue("audit", bindings=[orders["order.*"]]), timeout=30)
def audit(scored: Score) -> None: ...


@stage(reads=Queue("pager", bindings=[alarms]), writes="raw")
def page(visit: Visit) -> str | None: ...


@stage(reads="errors", retry_delays=())
def repair(visit: Message) -> None: ...


@stage(reads=Queue("news", bindings=[company["a"], company["b"]]), writes="read")
def listen(news): ...


@stage(reads=Queue("films", declare=False), writes="frames")
def split(film: str) -> Iterator[int]: ...


@stage(reads=Queue("frames", arguments={"x-max-priority": 5}), writes="albums", joins="split")
def album(frames: list[int]) -> str: ...


@stage(reads="albums", batch=Batch(100, within=2.0))
def insert(albums: list[str]) -> None: ...


flow = [parse, score, publish, audit, page, repair, listen, split, album, insert]

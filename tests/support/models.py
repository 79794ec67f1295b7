"""A flow whose messages are models of pydantic, structs of msgspec and dataclasses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from mousetrap import stage


class Buyer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    full_name: str = Field(alias="fullName")
    password: str = "none"

    @field_validator("password")
    @classmethod
    def password_is_long(cls, password: str) -> str:
        if len(password) < 4:
            raise ValueError(f"{password} is too short")
        return password


class Paid(BaseModel):
    kind: Literal["paid"] = "paid"
    buyer: Buyer


class Open(BaseModel):
    kind: Literal["open"] = "open"
    buyer: Buyer


class Names(RootModel[list[str]]):
    pass


@dataclass
class Parcel:
    state: Paid | Open
    raw: bytes


class Label(msgspec.Struct, rename="camel"):
    full_name: str
    paid: Paid | None = None


@stage(reads="orders", writes="parcels", retry_delays=(0.05,))
def pack(
    states: list[Annotated[Paid | Open, Field(discriminator="kind")]],
) -> Iterator[Parcel]:
    for each in states:
        yield Parcel(each, b"\xff")


@stage(reads="parcels", writes="labels", retry_delays=(0.05,))
async def label(parcel: Parcel | Names) -> Label:
    if isinstance(parcel, Names):
        return Label(" and ".join(parcel.root))
    assert parcel.raw == b"\xff"
    state = parcel.state
    return Label(state.buyer.full_name, state if isinstance(state, Paid) else None)

"""Types for the tests of the codec, one for each way in which JSON and Python differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple, NotRequired, TypedDict
from uuid import UUID

import pydantic
import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field

Function = Callable[..., Any]
MOMENT = datetime(2026, 3, 29, 2, 30, 0, 123456)
ID = UUID("018f4c1e-7a3b-7c3d-8e4f-0123456789ab")


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Size(StrEnum):
    BIG = "big"


class Level(IntEnum):
    LOW = 1


class User(BaseModel):
    user_id: int = Field(alias="userId")
    score: float | None = None
    friends: list[User] = []


class Renamed(BaseModel):
    value: int = Field(alias="reads", serialization_alias="writes")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    value: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own order
    @property
    def twice(self) -> int:
        return self.value * 2


class Hiding(BaseModel):
    seen: int
    hidden: int = Field(exclude=True)


class Login(BaseModel):
    password: SecretStr


class Blob(BaseModel):
    content: bytes


class Encoded(Blob):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


@dataclass
class Point:
    x: int
    label: bytes = b""
    at: datetime | None = None
    weight: float = 0.0


@pydantic.dataclasses.dataclass
class Place:
    name: str = Field(alias="Name")


class Row(NamedTuple):
    number: int
    day: date


class Options(TypedDict):
    when: datetime
    raw: NotRequired[bytes]


class Partial(typing_extensions.TypedDict, total=False):
    when: datetime


class Opaque:
    pass


def taking(annotation: object) -> Function:
    def func(x): ...  # type: ignore[no-untyped-def]  # its annotation is the test's

    func.__annotations__ = {"x": annotation}
    return func


def anything(*args, **kwargs): ...  # type: ignore[no-untyped-def]  # what it annotates, which is nothing

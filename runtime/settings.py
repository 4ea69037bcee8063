"""Settings: the environment, `.env`, or arguments; checked once, then handed to whoever needs them."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .errors import ConfigurationError
from .gates import parse_gates

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])i?b?)?\s*\Z", re.IGNORECASE)
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")


def _seconds(value: Any) -> Any:
    """Let '30', 30 and timedelta(seconds=30) all mean thirty seconds."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("must be a number of seconds") from None
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be more than 0 seconds")
    return value


def _bytes(value: Any) -> Any:
    """A number of MiB, or a size with its unit; as for containers, a unit is a power of 1024."""
    if isinstance(value, int | float):
        return int(value * 1024**2)
    found = _SIZE.match(str(value))
    if not found:
        raise ValueError("must be a size, as 512MB or 1.5GB")
    return int(float(found[1]) * 1024 ** " kmgt".index((found[2] or "m").lower()))


Size = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
Duration = Annotated[timedelta, BeforeValidator(_seconds)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


with warnings.catch_warnings():  # pydantic warns that the field `schema` shadows a method that it deprecated itself
    warnings.filterwarnings("ignore", message='Field name "schema"')

    class Settings(BaseSettings):
        """Every setting: an argument (the field's name), else the environment (`QUEUE_` + upper case), else `.env`.

        Durations take seconds or a timedelta. `repr` hides the secrets.

        Raises:
            ConfigurationError: a value is malformed, or there is no such setting; the text names it and the reason.
        """

        model_config = SettingsConfigDict(
            env_prefix="QUEUE_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
        )

        database_url: SecretStr | None = Field(
            default=None, validation_alias=AliasChoices("QUEUE_DATABASE_URL", "DATABASE_URL")
        )
        listen_database_url: SecretStr | None = None
        statement_cache: int = Field(default=1024, ge=0)
        schema: str = "queued_tasks"  # type: ignore[assignment]  # shadows a method that pydantic deprecated
        data_dir: Path | None = None
        app: str | None = None
        app_version: str | None = None

        min_workers: int = Field(default=1, ge=1, le=1024)
        max_workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=1024)
        max_tasks_per_worker: int | None = Field(default=None, ge=1)
        max_memory_per_worker: Size | None = None
        concurrency: int = Field(default=100, ge=1, le=10_000)
        worker_idle_timeout: PositiveDuration = timedelta(seconds=60)
        task_timeout: PositiveDuration = timedelta(seconds=300)
        max_retries: int = Field(default=3, ge=0, le=32_767)
        shutdown_grace: Duration = timedelta(seconds=30)
        lease_ttl: PositiveDuration = timedelta(seconds=15)
        retention_days: float = Field(default=30, gt=0)

        use_postgresql_notify: bool = True
        notify_channel: str = "queue_new_task"
        polling_interval: PositiveDuration = timedelta(seconds=2)
        fallback_polling_interval: PositiveDuration = timedelta(seconds=30)
        channels: str = ""

        health_file: Path | None = None
        health_port: int | None = Field(default=None, ge=0, le=65_535)
        health_host: str = "127.0.0.1"
        log_format: Literal["text", "json"] = "text"

        secret_key: SecretStr | None = None
        allow_unsigned: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
        allowed_modules: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
        only_decorated: bool = False

        @field_validator("schema", "notify_channel")
        @classmethod
        def _identifier(cls, value: str) -> str:
            if not _IDENTIFIER.match(value):
                raise ValueError("must be a plain lower-case SQL identifier of at most 63 characters")
            return value

        @field_validator("schema")
        @classmethod
        def _not_reserved(cls, value: str) -> str:
            if value.startswith("pg_"):
                raise ValueError("must not begin with pg_, PostgreSQL keeps such names for itself")
            return value

        @field_validator("channels")
        @classmethod
        def _limits(cls, value: str) -> str:
            try:
                parse_gates(value)
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
            return value

        def __init__(self, **given: Any) -> None:
            own = type(self)
            if unknown := given.keys() - _arguments(own):
                raise ConfigurationError(_explain_unknown(own, sorted(unknown)))
            try:
                super().__init__(**given)
            except ValidationError as error:
                raise ConfigurationError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    variable = name.upper() if name.upper().endswith("DATABASE_URL") else f"QUEUE_{name.upper()}"
    shown = "" if {"secret", "url"} & set(name.lower().split("_")) else f" (got {first['input']!r})"
    return f"{variable} is malformed: {first['msg'].removeprefix('Value error, ')}{shown}"


def _arguments(of: type[Settings]) -> set[str]:
    """What it takes by name: its fields, their other names, and what pydantic asks for itself."""
    aliases = [field.validation_alias for field in of.model_fields.values()]
    others = [choice for alias in aliases if isinstance(alias, AliasChoices) for choice in alias.choices]
    own = (name for name in signature(BaseSettings.__init__).parameters if name.startswith("_"))
    return {*of.model_fields, *(name for name in [*aliases, *others] if isinstance(name, str)), *own}


def _explain_unknown(of: type[Settings], names: Iterable[str]) -> str:
    fields = [*of.model_fields]
    nearest = {name: get_close_matches(name.lower().removeprefix("queue_"), fields, 1) for name in names}
    told = [f"{name} (do you mean {', '.join(near)}?)" if near else name for name, near in nearest.items()]
    return f"There is no setting {', '.join(told)}: name a field of {of.__name__}."

"""Settings that are more than a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SecretStr

from queued_tasks import ConfigurationError, Settings


@pytest.mark.parametrize(
    ("given", "mib"),
    [(512, 512), ("512", 512), ("512MB", 512), ("512 MiB", 512), ("512m", 512), ("1.5GB", 1536), ("524288K", 512)],
)
def test_a_size_is_a_number_of_mib_or_has_a_unit(given: object, mib: int) -> None:
    assert Settings(max_memory_per_worker=given).max_memory_per_worker == mib * 1024**2


@pytest.mark.parametrize("given", ["much", "-5MB", "5 apples", "", 0])
def test_what_is_no_size_is_refused_by_name(given: object) -> None:
    with pytest.raises(ConfigurationError, match="QUEUE_MAX_MEMORY_PER_WORKER"):
        Settings(max_memory_per_worker=given)


def test_arguments_that_are_no_settings_are_refused_with_the_nearest_names() -> None:
    with pytest.raises(ConfigurationError, match=r"QUEUE_SCHEMA \(do you mean schema\?\)") as refusal:
        Settings(database_ulr="postgresql://prod/db", max_worker=4, fish="cod", QUEUE_SCHEMA="jobs")
    said = str(refusal.value)
    assert "database_ulr (do you mean database_url?), fish, max_worker (do you mean max_workers?)" in said
    assert "prod" not in said


class Mine(Settings):
    """What an application keeps beside the settings of its queue."""

    smtp_host: str = "localhost"
    mail_from: str = Field(default="nobody", validation_alias="MAIL_FROM")


def test_settings_of_an_application_may_have_fields_of_its_own(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "smtp_host": "mail.example",
        "MAIL_FROM": "shop",
        "max_workers": 3,
        "_env_file": tmp_path / "none",
    }
    mine = Mine(**given)
    assert (mine.smtp_host, mine.mail_from, mine.max_workers) == ("mail.example", "shop", 3)


def test_what_is_none_of_its_fields_is_refused_by_the_name_of_its_class() -> None:
    with pytest.raises(ConfigurationError, match=r"smtp_hots \(do you mean smtp_host\?\): name a field of Mine"):
        Mine(smtp_hots="mail.example")  # type: ignore[call-arg]  # that is what it is about
    with pytest.raises(ConfigurationError, match="no setting smtp_host"):
        Settings(smtp_host="mail.example")


@pytest.mark.parametrize("name", ["database_url", "DATABASE_URL", "QUEUE_DATABASE_URL"])
def test_an_argument_may_have_each_name_of_its_setting(name: str, tmp_path: Path) -> None:
    settings = Settings(**{name: "postgresql://prod/db", "_env_file": tmp_path / "none"})
    assert settings.database_url == SecretStr("postgresql://prod/db")


def test_variables_that_are_no_settings_are_none_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("QUEUE_FISH=cod\nfish=cod\nQUEUE_SCHEMA=jobs\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUEUE_MAX_WORKER", "4")
    assert Settings(max_workers=3).schema == "jobs"


def test_a_schema_that_postgresql_keeps_for_itself_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="QUEUE_SCHEMA is malformed: must not begin with pg_"):
        Settings(schema="pg_x")
    assert Settings(schema="pgx", notify_channel="pg_x").notify_channel == "pg_x"

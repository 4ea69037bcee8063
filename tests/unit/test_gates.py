"""How the limits of channels are written and read."""

from __future__ import annotations

import pytest

from queued_tasks import ConfigurationError, Settings
from queued_tasks.runtime.gates import Gate, Rate, parse_gates, parse_limits


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("10", Gate("mail", cap=10)),
        ("0", Gate("mail", cap=0)),
        ("4/server", Gate("mail", cap=4, per_server=True)),
        ("10@100/min", Gate("mail", cap=10, rate=Rate(100, 60.0))),
        ("@5/s", Gate("mail", rate=Rate(5, 1.0))),
        ("20/key:2", Gate("mail", cap=20, key_cap=2)),
        ("/key:2", Gate("mail", key_cap=2)),
        ("20/server/key:2@7/h", Gate("mail", cap=20, per_server=True, key_cap=2, rate=Rate(7, 3600.0))),
    ],
)
def test_limits_are_read_and_written_alike(text: str, gate: Gate) -> None:
    assert parse_limits("mail", text) == gate
    assert gate.limits == text


def test_none_means_no_limits() -> None:
    assert parse_limits("mail", "none") == Gate("mail")


@pytest.mark.parametrize(
    "text", ["", "ten", "-1", "10/host", "/server", "10@100", "10@100/moon", "10/key:0", "@0/s", "10 "]
)
def test_what_cannot_be_read_is_refused_with_the_channel(text: str) -> None:
    with pytest.raises(ConfigurationError, match="mail"):
        parse_limits("mail", text)


def test_several_channels_are_separated_by_commas() -> None:
    assert parse_gates("sync:2, mail:10@100/min,reports:4/server,") == (
        Gate("sync", cap=2),
        Gate("mail", cap=10, rate=Rate(100, 60.0)),
        Gate("reports", cap=4, per_server=True),
    )


@pytest.mark.parametrize("text", ["mail", "mail:", ":3", "mail:1,mail:2"])
def test_a_malformed_list_of_channels_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_gates(text)


def test_a_malformed_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"QUEUE_CHANNELS is malformed.*can't be read"):
        Settings(channels="mail:lots")

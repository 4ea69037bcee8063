"""What servers tell each other with their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from queued_tasks.runtime.intake import ALL, Intake
from queued_tasks.runtime.store.servers import Beat
from queued_tasks.runtime.task import Json
from tests.store import Store


@pytest.mark.parametrize(
    ("details", "pace", "intake"),
    [
        ({}, 1.0, ALL),
        ({"pace": 0.25, "channels": [], "excluded_channels": []}, 0.25, ALL),
        ({"channels": ["gpu", "a, b"], "excluded_channels": []}, 1.0, Intake(only=("gpu", "a, b"))),
        ({"channels": [], "excluded_channels": ["gpu"]}, 1.0, Intake(never=("gpu",))),
    ],
)
async def test_a_server_sees_how_fast_its_peers_are_and_which_channels_they_take(
    store: Store, details: Mapping[str, Json], pace: float, intake: Intake
) -> None:
    server = await store.server()
    beat = Beat(lock_key=None, state="running", workers=1, slots=1, busy=0, details=details)
    await store.servers.beat(server, beat)
    peer = await store.peer(server)
    assert (peer.pace, peer.intake) == (pace, intake)

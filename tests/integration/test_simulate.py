"""The simulation of many servers runs, and its figures are those of servers that work."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVERS = 3


@pytest.fixture
async def figures() -> dict[str, Any]:
    """Those of three servers, two seconds idle and two at work."""
    running = await asyncio.create_subprocess_exec(
        *(ROOT / "scripts" / "simulate", "--servers", str(SERVERS), "--seconds", "2", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await running.communicate()
    assert running.returncode == 0, errors.decode()[-2000:]
    (only,) = json.loads(said)["figures"]
    return only  # type: ignore[no-any-return]  # JSON


async def test_three_simulated_servers_share_the_work_and_notice_a_death(figures: dict[str, Any]) -> None:
    assert figures["servers"] == SERVERS
    assert figures["connections"] == 4 * SERVERS
    assert figures["ran"] == 4 * SERVERS
    assert figures["took_none"] == figures["given_up"] == 0
    assert figures["noticed"] is not None
    assert figures["idle"]["transactions"] > 0

"""The benchmark runs, and its results say what it measured."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def results(tmp_path: Path) -> dict[str, Any]:
    """Those of a quick drain, this queue alone."""
    out = tmp_path / "results.json"
    command = (ROOT / "scripts" / "bench", "--quick", "--only", "drain", "--peers", "", "--out", out)
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, errors = await running.communicate()
    assert running.returncode == 0, (said.decode() + errors.decode())[-2000:]
    return json.loads(out.read_text())  # type: ignore[no-any-return]  # JSON


async def test_a_quick_drain_runs_every_task_once_and_says_how_fast(results: dict[str, Any]) -> None:
    assert results["failures"] == []
    (drain,) = results["figures"]["drain"]["queued"]
    assert drain["n"] == results["sizes"]["drain"]
    assert drain["rate"] > 0

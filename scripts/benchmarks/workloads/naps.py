"""Tasks of ten milliseconds against bare asyncio loops that await the same sleeps."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from ..arena import Arena, Case, Figures
from ..environments import OURS, ROOT, Failed, variables
from ..recorder import Records
from .backlog import WORKERS, drain

IN_FLIGHT = 50


def naps(arena: Arena) -> list[Case]:
    """Two workers with 50 in flight each, and two bare processes with as many."""
    n = arena.sizes.naps
    return [
        Case("queued", lambda: drain(arena.ours, arena.ours.filled(n, "nap"), concurrency=IN_FLIGHT)),
        Case("bare", lambda: _bare(arena, n)),
    ]


def _bare(arena: Arena, n: int) -> Figures:
    with tempfile.TemporaryDirectory(dir=arena.scratch) as folder:
        environment = variables(OURS) | {"BENCH_RECORDS": folder, "BENCH_SLOTS": str(n)}
        share = n // WORKERS
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "scripts.benchmarks.bare", str(low), str(low + share), str(IN_FLIGHT)],
                env=environment,
                cwd=ROOT,
            )
            for low in range(0, share * WORKERS, share)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            raise Failed("The bare loops failed.")
        records = Records(Path(folder))
        return {"rate": records.started() / (records.last() - records.first())}

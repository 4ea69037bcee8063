"""The peers, their packages, and an environment for each, made when it is first asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / ".local"
OURS = "queued"


class Failed(Exception):
    """A figure that can't be had; the text says why."""


@dataclass(frozen=True)
class Peer:
    """`backlog` is how much of the drains' tasks it gets: what it does in some ten seconds, for it to be fair."""

    title: str
    environment: str
    packages: tuple[str, ...]
    backlog: float = 1.0
    sync: bool = False
    lively: bool = False  # it is among those whose delays are compared
    minor: int = 11  # the Python that it needs, 3.11 or newer


_PGQUEUER = ("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop", "psycopg[binary]")

PEERS = {
    OURS: Peer("Queued Tasks", "", (), sync=True),
    "pgqueuer": Peer("PgQueuer", "pgqueuer", _PGQUEUER, sync=True, lively=True),
    "pgqueuer_fast": Peer("PgQueuer, uncapped", "pgqueuer", _PGQUEUER),
    "graphile": Peer("Graphile Worker (Node)", "graphile", ("graphile-worker@0.17.3",), lively=True),
    "oban": Peer("Oban for Python", "oban", ("oban==0.7.0", "uvloop"), backlog=0.2, lively=True, minor=12),
    "awa": Peer("awa", "awa", ("awa-pg==0.6.9", "uvloop"), backlog=0.2),
    "absurd": Peer(
        "Absurd", "absurd", ("absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]", "uvloop"), backlog=0.1
    ),
    "chancy": Peer("Chancy", "chancy", ("chancy==0.26.0", "psycopg[binary]", "uvloop"), backlog=0.2),
    "saq": Peer("SAQ", "saq", ("saq[postgres]==0.26.4", "psycopg[binary]", "uvloop"), backlog=0.05),
    "procrastinate": Peer(
        "Procrastinate", "procrastinate", ("procrastinate==3.10.0", "psycopg[binary,pool]", "uvloop"), 0.05, True
    ),
}


def folder(peer: str) -> Path:
    """Where the environment of a peer is."""
    return LOCAL / "bench" / PEERS[peer].environment


def command(peer: str) -> list[str]:
    """How the commands of an adapter are run."""
    if peer == OURS:
        return [sys.executable, "-m", "scripts.benchmarks.inside", peer]
    if peer == "graphile":
        return ["node", str(Path(__file__).parent / "peers" / "graphile.mjs"), peer]
    return [str(folder(peer) / "bin" / "python"), "-m", "scripts.benchmarks.inside", peer]


def install(peer: str) -> None:
    """Make the environment of a peer from its registry, unless it is there.

    Raises:
        Failed: it can't be installed.
    """
    if peer != OURS:
        make(folder(peer), PEERS[peer].packages, PEERS[peer].minor, npm=peer == "graphile")


def make(place: Path, packages: tuple[str, ...], minor: int = 11, *, npm: bool = False) -> None:
    """Make an environment with these packages, unless it is there.

    Raises:
        Failed: it can't be made.
    """
    stamp = place / "installed"
    if stamp.exists() and stamp.read_text() == repr(packages):
        return
    print(f"Installing {', '.join(packages)} ...", file=sys.stderr)
    place.mkdir(parents=True, exist_ok=True)
    (LOCAL / ".gitignore").write_text("*\n")
    if npm:
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(place), *packages)
    else:
        _run(_python(minor), "-m", "venv", "--without-pip", "--clear", str(place))
        python = str(place / "bin" / "python")
        _run(sys.executable, "-m", "pip", "--python", python, "install", "-q", *packages)
    stamp.write_text(repr(packages))


def variables(peer: str) -> dict[str, str]:
    """The environment variables for a process of a peer: ours, less what would lead it into this project's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUEUE_", "PYTHON", "DATABASE_"))}
    return kept | {"BENCH_NODE_MODULES": str(folder(peer) / "node_modules")}


def _python(minor: int) -> str:
    """Our own Python, so that all have the same one, unless a peer needs a newer one."""
    newer = [os.environ.get("BENCH_PYTHON", ""), *(f"python3.{each}" for each in range(minor, 15))]
    for name in [sys.executable, *filter(shutil.which, newer)]:
        code = f"import sys; sys.exit(sys.version_info < (3, {minor}))"
        if subprocess.run([name, "-c", code], capture_output=True, check=False).returncode == 0:
            return name
    raise Failed(f"needs Python 3.{minor} or newer: set BENCH_PYTHON to one")


def _run(*arguments: str) -> None:
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"can't be installed: {arguments[-1]}: {done.stderr[-500:]}")

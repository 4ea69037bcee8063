"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import page
from .arena import QUICK, Arena, Sizes
from .environments import LOCAL, OURS, PEERS
from .machine import machine
from .postgres import SETTINGS, Postgres, running_postgres
from .suite import WORKLOADS, Results, run
from .targets import lines, table

USUAL = "pgqueuer,pgqueuer_fast,graphile,oban,awa,absurd"
HUGE = 5_000_000


def main() -> None:
    """Measure, print the table of targets, write the results as JSON and, if asked, the page."""
    asked = _parser().parse_args()
    if asked.report:
        _finish(json.loads(asked.report.read_text()), asked)
        return
    names = asked.only.split(",") if asked.only else list(WORKLOADS)
    peers = [name for name in asked.peers.split(",") if name and name != OURS]
    if unknown := [*(set(names) - set(WORKLOADS)), *(set(peers) - set(PEERS))]:
        sys.exit(f"scripts/bench: {', '.join(unknown)}: not among {', '.join(WORKLOADS)} and {', '.join(PEERS)}.")
    sizes = QUICK if asked.quick else Sizes()
    sizes = dataclasses.replace(sizes, deep=HUGE) if asked.huge else sizes
    sizes = dataclasses.replace(sizes, rounds=asked.rounds) if asked.rounds else sizes
    with running_postgres() as postgres, tempfile.TemporaryDirectory(prefix="queued-tasks-bench-") as scratch:
        _finish(_measured(Arena(postgres, Path(scratch), sizes, peers), names, asked), asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=main.__doc__)
    parser.add_argument("--peers", default=USUAL, help=f"which of {', '.join(PEERS)}; '' for none (default: {USUAL})")
    parser.add_argument("--only", help=f"workloads, of {', '.join(WORKLOADS)}")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and one round: shows that all works, no figures"
    )
    parser.add_argument("--huge", action="store_true", help="5,000,000 queued in the workload deep, instead of 500,000")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (default: 3, with --quick 1)")
    parser.add_argument("--out", type=Path, default=LOCAL / "bench" / "results.json", help="where the results go")
    parser.add_argument("--add", action="store_true", help="keep the workloads of an earlier run that --out holds")
    parser.add_argument("--publish", action="store_true", help="write docs/performance.md with its charts")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="measure nothing: take the results of an earlier run"
    )
    return parser


def _measured(arena: Arena, names: list[str], asked: argparse.Namespace) -> dict[str, Any]:
    results = Results()
    known: dict[str, Any] = json.loads(asked.out.read_text()) if asked.add and asked.out.exists() else {}
    results.figures.update(known.get("figures", {}))
    results.failures.extend(known.get("failures", []))
    for name in names:
        results.figures.pop(name, None)
    written: dict[str, Any] = {}

    def keep() -> None:
        written.update(_as_json(arena, results, known, asked))
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(written, indent=1))

    run(arena, names, results, keep)
    return written


def _as_json(arena: Arena, results: Results, known: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    present = arena.present().items()
    described = {name: _described(contestant.described) for name, contestant in present}
    commands = [*([known["command"]] if known else []), "scripts/bench " + " ".join(sys.argv[1:])]
    return {
        "command": "\n".join(commands),
        "quick": asked.quick,
        "sizes": dataclasses.asdict(arena.sizes),
        "machine": machine() | {"postgresql": _version(arena.postgres), "settings": SETTINGS},
        "versions": known.get("versions", {}) | described,
        "figures": results.figures,
        "failures": results.failures,
        "targets": [line.as_json() for line in lines(results)],
    }


def _described(described: dict[str, Any]) -> dict[str, str]:
    return {key: described[key] for key in ("distribution", "version", "python", "configuration", "bulk")}


def _version(postgres: Postgres) -> str:
    return str(postgres.ask("show server_version"))


def _finish(written: dict[str, Any], asked: argparse.Namespace) -> None:
    results = Results(written["figures"], written["failures"])
    print(table(lines(results)))
    if results.failures:
        print("\nNot measured:", *results.failures, sep="\n  ")
    if asked.publish:
        page.publish(written, results)
    if not asked.report:
        print(f"\nAll figures: {asked.out}")


if __name__ == "__main__":
    main()

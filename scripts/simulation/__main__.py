"""The command line of `scripts/simulate`."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from dataclasses import asdict
from inspect import cleandoc

import uvloop
from loguru import logger

from ..benchmarks.machine import machine
from ..benchmarks.postgres import Postgres, running_postgres
from .cluster import TooMany
from .compare import compare
from .scale import measure
from .tables import Comparison, Scale

SPARE = 60  # connections for whoever is no server
CONNECTIONS = 4  # of a server


def main() -> None:
    """Run many servers against one PostgreSQL of their own; say what they cost it, and how they share the work.

    Everything is real but the workers: to run a task is to sleep. All servers are in one process, so the
    table says how much of a core that takes: towards 100 % they wait for each other, not for PostgreSQL.
    """
    asked = _parser().parse_args()
    logger.remove()
    gc.disable()  # a look through the memory of so many servers would stop them all at once
    most = max(asked.servers)
    try:
        with running_postgres(max_connections=str(CONNECTIONS * most + SPARE)) as postgres:
            figures = uvloop.run(_compared(postgres, asked) if asked.compare else _measured(postgres, asked))
    except TooMany as error:
        sys.exit(f"scripts/simulate: {error}")
    if asked.json:
        print(json.dumps({"machine": machine(), "figures": figures}, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description=cleandoc(main.__doc__ or ""),
        epilog=f"{Scale.LEGEND}\n\nWith --compare:\n\n{Comparison.LEGEND}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--servers",
        type=_sizes,
        default="2,10,50,100,200",
        help="how many, one number after the other (%(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="how long they are measured idle, and again at work (%(default)g)"
    )
    parser.add_argument("--compare", action="store_true", help="compare the sharing of new tasks with its absence")
    parser.add_argument("--rounds", type=int, default=5, help="how often, with --compare (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    return parser


def _sizes(said: str) -> list[int]:
    sizes = [int(word) for word in said.split(",")]
    if min(sizes) < 2:
        raise argparse.ArgumentTypeError("at least 2 servers: one of them is killed, another one has to notice")
    return sizes


async def _measured(postgres: Postgres, asked: argparse.Namespace) -> list[object]:
    table = Scale(quiet=asked.json)
    return [asdict(table.line(figures)) async for figures in measure(postgres, asked.servers, asked.seconds)]


async def _compared(postgres: Postgres, asked: argparse.Namespace) -> list[object]:
    table = Comparison(quiet=asked.json)
    return [asdict(table.line(result)) async for result in compare(postgres, asked.rounds)]


if __name__ == "__main__":
    main()

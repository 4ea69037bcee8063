"""What is to be reached, and what was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .environments import OURS, PEERS
from .suite import Results

KIB = 1024


@dataclass(frozen=True)
class Line:
    """One line of the table; `ok` is None when it was not measured."""

    workload: str
    what: str
    target: str
    reached: str
    ok: bool | None

    def as_json(self) -> dict[str, Any]:
        """For the results."""
        return asdict(self)


def lines(results: Results) -> list[Line]:
    """The targets of all workloads that were measured."""
    found = [*_rates(results), *_delays(results), *_flatness(results), *_costs(results)]
    return [line for line in found if line.workload in results.figures]


def _rates(results: Results) -> Iterator[Line]:
    what = "drain of 100k async no-ops, 2 workers"
    for peer, factor in (("pgqueuer", 4.0), ("pgqueuer_fast", 2.0), ("graphile", 1.5)):
        yield _times(results, "drain", what, OURS, peer, factor)
    yield _times(results, "sync", "drain of sync no-ops", OURS, _best(results, "sync"), 2.0)
    yield _times(results, "bulk", "bulk enqueue", OURS, _best(results, "bulk"), 2.5)
    yield _times(results, "enqueue", "enqueue one by one, 16 clients", OURS, _best(results, "enqueue"), 4.0)
    yield _times(results, "fastapi", "FastAPI route, 100 requests in flight", "queued", "plain", 2.0)
    yield _times(results, "naps", "10 ms tasks, 2 x 50 in flight", "queued", "bare", 0.9)


def _delays(results: Results) -> Iterator[Line]:
    peer = _best(results, "start", "p50", lowest=True)
    ours, other = results.median("start", OURS, "p50"), results.median("start", peer, "p50")
    yield _line(
        "start", "enqueue to start when idle, p50", f"at most 0.6 x the best peer's ({_title(peer)})", ours, other,
        lambda a, b: (f"{a / b:.2f} x ({a:.1f} ms, {b:.1f} ms)", a <= 0.6 * b),
    )  # fmt: skip
    yield _below(results, "start", "enqueue to start when idle, p99", "p99", 10, "ms")
    peer = _best(results, "paced", "p99", lowest=True)
    ours, other = results.median("paced", OURS, "p99"), results.median("paced", peer, "p99")
    yield _line(
        "paced", "enqueue to start at 1,000 tasks/s, p99", f"below the best peer's ({_title(peer)})", ours, other,
        lambda a, b: (f"{a:.1f} ms, {b:.1f} ms", a < b),
    )  # fmt: skip


def _flatness(results: Results) -> Iterator[Line]:
    queued = results.median("deep", "deep", "queued")
    what = f"drain with {queued:,.0f} queued" if queued else "drain of a deep backlog"
    yield _times(results, "deep", f"{what} against 20,000", "deep", "shallow", 0.9)
    for workload, case, where in (("pinned", OURS, ""), ("turns", "turns", ", where keys take turns")):
        tenths = results.tenths(workload, case)
        first, last = (tenths[0], tenths[-1]) if tenths else (None, None)
        yield _line(
            workload, f"last tenth of 300k against the first, vacuum held back{where}", "at least 0.90", last, first,
            lambda a, b: (f"{a / b:.2f} ({a:,.0f}/s, {b:,.0f}/s)", a / b >= 0.9),
        )  # fmt: skip
    for crowd in ("delayed", "paused", "finished"):
        yield _times(results, "beside", f"drain beside a million {crowd} tasks", crowd, "alone", 0.9)


def _costs(results: Results) -> Iterator[Line]:
    enqueue, run = results.median("drain", OURS, "wal_enqueue"), results.median("drain", OURS, "wal_run")
    yield _line(
        "drain", "WAL per task, enqueue to done", "below 1.2 KiB", enqueue, run,
        lambda a, b: (f"{(a + b) / KIB:.2f} KiB", (a + b) / KIB < 1.2),
    )  # fmt: skip
    yield _line(
        "bloat", "dead tuples after a 300k drain", "at most a tenth of PgQueuer's",
        results.median("bloat", OURS, "dead"), results.median("bloat", "pgqueuer", "dead"),
        lambda a, b: (f"{a:,.0f} against {b:,.0f}", a <= b / 10),
    )  # fmt: skip
    yield _below(results, "idle", "idle server: CPU", "cpu_percent", 1, "% of a core", "queued")
    yield _below(results, "idle", "idle server: transactions", "transactions", 2, "a second", "queued")
    yield _below(results, "idle", "idle server: connections", "connections", 4.5, "", "queued")
    yield _below(results, "idle", "idle server: memory of the supervisor", "supervisor_mb", 60, "MB", "queued")
    yield _below(results, "idle", "idle server: memory of a worker", "worker_mb", 45, "MB", "queued")


def _times(results: Results, workload: str, what: str, case: str, other: str, factor: float) -> Line:
    """A rate is to be so many times another one."""
    return _line(
        workload, what, f"at least {factor:g} x {_title(other)}",
        results.median(workload, case), results.median(workload, other),
        lambda a, b: (f"{a / b:.2f} x ({a:,.0f}/s, {b:,.0f}/s)", a / b >= factor),
    )  # fmt: skip


def _below(results: Results, workload: str, what: str, key: str, limit: float, unit: str, case: str = OURS) -> Line:
    value = results.median(workload, case, key)
    target = f"below {limit:g} {unit}" if limit % 1 == 0 else f"at most {limit - 0.5:g} {unit}"
    return _line(
        workload, what, target.strip(), value, value, lambda a, _: (f"{a:.2g} {unit}".strip(), a < limit)
    )  # fmt: skip


def _line(
    workload: str, what: str, target: str, a: float | None, b: float | None,
    judge: Callable[[float, float], tuple[str, bool]],
) -> Line:  # fmt: skip
    if a is None or not b:
        return Line(workload, what, target, "not measured", None)
    return Line(workload, what, target, *judge(a, b))


def _best(results: Results, workload: str, key: str = "rate", *, lowest: bool = False) -> str:
    """The best peer of a workload, our own name when there was none."""
    found = {name: value for name in results.cases(workload) if name != OURS
             and (value := results.median(workload, name, key)) is not None}  # fmt: skip
    return (min if lowest else max)(found, key=lambda name: found[name], default="a peer")


def _title(name: str) -> str:
    names = {"plain": "one plain INSERT", "bare": "bare asyncio loops", "shallow": "that", "alone": "without them"}
    return PEERS[name].title if name in PEERS else names.get(name, name)


def table(found: list[Line]) -> str:
    """As Markdown."""
    marks = {True: "yes", False: "**no**", None: "-"}
    rows = [f"| {line.what} | {line.target} | {line.reached} | {marks[line.ok]} |" for line in found]
    return "\n".join(["| | target | reached | |", "|---|---|---|---|", *rows])

"""What may be wrong, from what was looked at: each finding with its cure. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from ...runtime.cron import Cron
from ...runtime.errors import ConfigurationError
from ...runtime.gates import Gate, parse_gates
from ...runtime.store.link import Row
from ...runtime.store.schedules import ScheduleRow
from ...runtime.task import Json
from ..words import ago, plural, span
from .membership import GONE, called, details_of, state_of

OLDEST = 150_000  # PostgreSQL 15, as server_version_num
CLOCK = 10.0  # seconds that clocks may differ
LATE = timedelta(minutes=1)  # after which a schedule that was not fired is overlooked
CROWDED = 0.9  # of the connections that PostgreSQL allows

_NAMED = 5  # rights, keys and the like that are named


class Level(StrEnum):
    """How bad it is: nothing runs; something does not; something will."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and what to do; `check` is what it was found by."""

    check: str
    level: Level
    finding: str
    cure: str


def of_database(row: Row, clock: float) -> Iterator[Finding]:
    """`clock`: this host's, in seconds since the epoch, when the database told its own."""
    if row["number"] < OLDEST:
        yield Finding(
            "version",
            Level.CRITICAL,
            f"PostgreSQL is {row['version']}, which is too old.",
            "Upgrade it to 15 or newer.",
        )
    if row["standby"]:
        cure = "Let QUEUE_DATABASE_URL name the primary."
        yield Finding("version", Level.CRITICAL, "This PostgreSQL is a standby, which takes no writes.", cure)
    if not row["fsync"] or row["synchronous_commit"] == "off":
        name = "fsync" if not row["fsync"] else "synchronous_commit"
        yield Finding(
            "durability",
            Level.ERROR,
            f"{name} is off: a crash of PostgreSQL can lose tasks that were acknowledged.",
            f"Set {name} = on in its configuration, or for this database and user.",
        )
    if not row["autovacuum"]:
        cure = "Set autovacuum = on in PostgreSQL's configuration."
        yield Finding("vacuum", Level.ERROR, "autovacuum is off: the tables only grow.", cure)
    if row["connections"] > CROWDED * row["room"]:
        yield Finding(
            "connections",
            Level.WARNING,
            f"{row['connections']} of {row['room']} connections of PostgreSQL are taken.",
            "Raise max_connections, or let the application use fewer; a server of Queued Tasks holds 4.",
        )
    yield from _clock("This host", clock - row["clock"])


def of_rights(lacking: Sequence[str], user: str) -> Iterator[Finding]:
    """The rights of a server that the user lacks."""
    if lacking:
        yield Finding(
            "rights",
            Level.ERROR,
            f"The database user {user} lacks rights that a server needs: {_some(lacking)}.",
            f"As the owner of the schema run the SQL of `queued-tasks migrate --roles`, then grant queued_tasks_server "
            f"to {user}. One that only adds tasks needs no more than queued_tasks_enqueuer.",
        )


def of_vacuum(holders: Sequence[Row], tables: Sequence[Row]) -> Iterator[Finding]:
    """What holds back vacuum, and what that has led to."""
    for row in holders:
        yield _holder(row)
    for row in tables:
        last = f"last vacuumed {ago(row['vacuumed_at'])}" if row["vacuumed_at"] else "never vacuumed"
        yield Finding(
            "dead_rows",
            Level.WARNING,
            f"The table {row['name']} holds {row['dead']:,} dead rows and {row['live']:,} live ones, {last}.",
            "End what holds back vacuum, if that is found here, too; then autovacuum clears it, "
            f"or `vacuum {row['name']}` by hand does at once.",
        )


def of_servers(rows: Sequence[Row], lease_ttl: timedelta) -> Iterator[Finding]:
    """Servers that are lost, can't import their application, share a name, or have a wrong clock."""
    states = {row["id"]: state_of(row, lease_ttl) for row in rows}
    up = [row for row in rows if states[row["id"]] not in GONE]
    if not any(states[row["id"]] == "running" for row in up):
        yield _none_claims([(row["name"], states[row["id"]]) for row in up])
    names = Counter(row["name"] for row in up)
    for row in rows:
        if states[row["id"]] == "lost" and row["name"] not in names:
            yield _lost(row)
    for row in up:
        if error := details_of(row).get("error"):
            yield Finding(
                "workers",
                Level.ERROR,
                f"{row['name']} has trouble with its workers: {error.strip().splitlines()[-1]}",
                "`queued-tasks servers` shows all of it. Correct the cause: the server goes on by itself.",
            )
        if clock := details_of(row).get("clock"):
            yield from _clock(f"The host of {row['name']}", clock - row["beat_at"].timestamp())
    for name, count in names.items():
        if count > 1:
            yield Finding(
                "names",
                Level.WARNING,
                f"{count} servers are called {name}: commands about {name} mean all of them.",
                "Start each with a name of its own: `queued-tasks start --name NAME`.",
            )


def of_settings(rows: Sequence[Row], here: Mapping[str, Json], gates: Mapping[str, Gate]) -> Iterator[Finding]:
    """Settings that differ: between servers (the rows of those that are up), from those `here`, from the database."""
    names = called(rows)
    told = {names[row["id"]]: json.loads(row["settings"]) for row in rows}
    told["this environment"] = {name: value for name, value in here.items() if name != "QUEUE_CHANNELS"}
    for name in here:
        values: defaultdict[str, list[str]] = defaultdict(list)
        for who, settings in told.items():
            if name in settings:
                values[_shown(name, settings[name])].append(who)
        if len(values) > 1:
            differ = "; ".join(f"{value} in {', '.join(sorted(whos))}" for value, whos in sorted(values.items()))
            cure = f"Set {name} to the same everywhere, and start again what had another one."
            yield Finding("settings", Level.WARNING, f"{name} is not the same everywhere: {differ}.", cure)
    for text in sorted({settings["QUEUE_CHANNELS"] for settings in told.values() if settings.get("QUEUE_CHANNELS")}):
        yield from _channels(text, gates)


def of_tasks(rows: Sequence[Row]) -> Iterator[Finding]:
    """Tasks that stand where nothing moves them: see check_tasks.sql."""
    for row in rows:
        finding, cure = _STRAYS[row["kind"]]
        one = row["count"] == 1
        text = finding.format(s="s" if one else "", are="is" if one else "are", them="it" if one else "them")
        ids = ", ".join(map(str, row["ids"]))
        yield Finding("tasks", Level.ERROR, f"{plural(row['count'], 'task')} {text}: {ids}.", cure)


def of_functions(rows: Sequence[Row]) -> Iterator[Finding]:
    """Functions that no server runs, though there are tasks of them: see check_functions.sql."""
    for row in rows:
        wait = "waits" if row["count"] == 1 else "wait"
        yield Finding(
            "functions",
            Level.ERROR,
            f"{plural(row['count'], 'task')} of {row['function']} {wait}, which no server can run: {row['reason']}",
            "Start a server of a version that can. After correcting an import or a setting, start the servers again. "
            f"If nobody needs them: `queued-tasks clear --name {row['function'].rpartition(':')[2]}`.",
        )


def of_schedules(rows: Sequence[ScheduleRow], running: Collection[str]) -> Iterator[Finding]:
    """Schedules whose time is over without anybody having seen to it; one that is `running` may wait for its end."""
    for row in rows:
        due = None if row.paused or row.name in running else Cron(row.cron, row.timezone).next_after(row.after)
        if due is not None and row.now - due > LATE:
            yield Finding(
                "schedules",
                Level.ERROR,
                f"Nobody runs the schedule {row.name}: it was due {ago(due)}.",
                "Start a server whose application declares it, without --no-scheduler. If no application does any "
                f"more: `queued-tasks scheduler pause {row.name}`.",
            )


def of_waiting(seconds: float, free: int) -> Finding:
    """Tasks wait although there is room for them."""
    return Finding(
        "waiting",
        Level.WARNING,
        f"A task has been waiting for {span(seconds)} although {plural(free, 'slot')} are free.",
        "`queued-tasks tasks list --state enqueued` shows such tasks, `queued-tasks why ID` the cause.",
    )


_STRAYS = {
    "homeless": (
        "stand{s} in a line that does not exist",
        "Somebody has deleted rows of the table lane: cancel these tasks, and add them anew.",
    ),
    "parentless": (
        "still wait{s} although all parents have ended",
        "A running server lets them go within 30 s; start one, or see its log for why it can't.",
    ),
    "overdue": (
        "{are} due, but nobody has lined {them} up",
        "A running server does within seconds; start one, or see its log for why it can't.",
    ),
    "abandoned": (
        "{are} held by a server that is gone",
        "A running server takes them back within 30 s; start one, or see its log for why it can't.",
    ),
}


def _clock(whose: str, ahead: float) -> Iterator[Finding]:
    if abs(ahead) > CLOCK:
        yield Finding(
            "clock",
            Level.WARNING,
            f"{whose} has a clock that is {span(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} PostgreSQL's.",
            "Synchronize it (NTP): a `run_at` or `expires_at` that is computed there is wrong by as much.",
        )


def _holder(row: Row) -> Finding:
    if row["kind"] == "slot":
        what = f"The replication slot {row['id']} is not in use and holds back vacuum."
        cure = f"Bring its consumer back, or drop it: select pg_drop_replication_slot('{row['id']}')."
    elif row["kind"] == "prepared":
        what = f"The prepared transaction {row['id']} of {row['user']} has been open for {span(row['age'])}."
        cure = f"End it: commit prepared '{row['id']}', or rollback prepared '{row['id']}'."
    else:
        who = " of ".join(filter(None, (row["application"], row["user"])))
        what = f"A transaction of {who} has been open for {span(row['age'])} ({row['doing']}), pid {row['id']}."
        cure = f"Let it end; or end it: select pg_terminate_backend({row['id']})."
    return Finding(
        "transactions",
        Level.WARNING,
        f"{what} Until it ends vacuum can clear nothing, and the tables grow.",
        cure,
    )


def _none_claims(states: Sequence[tuple[str, str]]) -> Finding:
    if not states:
        cure = "Start one: `queued-tasks start --app main:app`."
        return Finding("servers", Level.CRITICAL, "No server is running.", cure)
    there = ", ".join(f"{name} is {state}" for name, state in sorted(states))
    drained = next((name for name, state in sorted(states) if state in ("draining", "drained")), None)
    cure = f"`queued-tasks servers resume {drained}`, or start another." if drained else "See `queued-tasks servers`."
    return Finding("servers", Level.CRITICAL, f"No server takes tasks: {there}.", cure)


def _lost(row: Row) -> Finding:
    since = f"for {span(row['silent_for'])}" if row["present"] else f"since {ago(row['ended_at'])}"
    return Finding(
        "servers",
        Level.WARNING,
        f"The server {row['name']} on {row['host']} is lost {since}.",
        "See whether its process and its host still run, and its log; what it ran has been given to others."
        if not row["present"]
        else "See whether its process and its host still run; another server takes back what it ran.",
    )


def _channels(text: str, gates: Mapping[str, Gate]) -> Iterator[Finding]:
    try:
        wanted = parse_gates(text)
    except ConfigurationError:
        return  # of a version that understood more
    for gate in wanted:
        stored = gates.get(gate.channel, Gate(gate.channel)).limits
        if gate.limits != stored:
            yield Finding(
                "settings",
                Level.WARNING,
                f"QUEUE_CHANNELS limits {gate.channel} to {gate.limits}, the database to {stored or 'nothing'}, "
                "which counts.",
                f"Correct the variable, or `queued-tasks channels set {gate.channel} {gate.limits}`.",
            )


def _shown(name: str, value: Json) -> str:
    if name == "QUEUE_SECRET_KEY":
        return f"a key with the fingerprint {' and '.join(value)}" if value else "no key"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if value not in ("", []) else "nothing"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")

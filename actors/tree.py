"""The actors of one incarnation, wired together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from loguru import logger

from ..runtime import wire
from ..runtime.actor import ActorRef, Exited, Restarts, Tree
from ..runtime.alike import alike
from ..runtime.announce import Announcer, wake_topic
from ..runtime.direct import Connections, DirectBackend
from ..runtime.ear import SharedEar
from ..runtime.errors import DatabaseUnavailable
from ..runtime.gates import parse_gates
from ..runtime.intake import ALL, Intake
from ..runtime.scaling import Limits, Wear
from ..runtime.settings import Settings
from ..runtime.signing import Seals, signer_of
from ..runtime.store.gates import GateStore
from ..runtime.store.link import Link
from ..runtime.store.schedules import ScheduleStore
from ..runtime.store.servers import Intent, ServerStore
from ..runtime.store.tasks import TaskStore
from ..runtime.store.upkeep import Upkeep
from ..runtime.task import ServerId
from . import sync_worker_main, worker_main
from .announcements import Announcements
from .claimer import Claimer
from .desk import Desk
from .identity import Identity
from .janitor import Janitor
from .keeper import BEAT_EVERY, Keeper
from .listener import Listener
from .messages import (
    ClaimerMessage,
    Colleagues,
    DeskMessage,
    Drain,
    JanitorMessage,
    KeeperMessage,
    ListenerMessage,
    RecorderMessage,
    RescuerMessage,
    SchedulerMessage,
    SettlerMessage,
    SupervisorMessage,
    Tick,
    WorkerMessage,
)
from .recorder import Recorder
from .rescuer import Rescuer
from .scheduler import Scheduler
from .settler import Settler
from .supervisor import Supervisor
from .vitals import Vitals
from .watch import LOOK_EVERY
from .worker import DRAIN_GRACE, Worker

# An actor that holds attempts is not restarted alone: what it knew of them is gone, and only the end of the whole
# incarnation gives them back.
FATAL = Restarts(most=0)
LOOK_FOR_DUE = 10.0  # seconds between two looks at tasks for later, where notifications tell of new ones
RECORDED_YET = 0.1  # seconds between two looks whether all that ended is recorded
FIRST_PAUSE = 0.02  # seconds after which a claim that found nothing is repeated when nobody notifies


@dataclass(frozen=True, slots=True)
class Application:
    """What the workers run: see wire.WorkerArgument. `scheduler`: this server fires its schedules.

    `intake`: the channels that it takes tasks of.
    """

    app: str | None
    app_dir: str | None
    lifespan: bool
    scheduler: bool = True
    intake: Intake = ALL


@dataclass(slots=True)
class Links:
    """The connections of a server; the fourth is the listener's."""

    claim: Link
    settle: Link
    beat: Link

    @classmethod
    def of(cls, dsn: str, settings: Settings, name: str) -> Links:
        def link(duty: str) -> Link:
            return Link(dsn, settings.schema, name=f"server {name}: {duty}", statement_cache=settings.statement_cache)

        return cls(link("claim"), link("settle"), link("beat"))

    async def close(self) -> None:
        for link in (self.claim, self.settle, self.beat):
            await link.close()


@dataclass(slots=True)
class Incarnation:
    """What all actors of one start of a server share."""

    dsn: str
    settings: Settings
    identity: Identity
    vitals: Vitals
    application: Application
    links: Links
    previous: ServerId | None  # incarnation of this process

    @property
    def topic(self) -> str | None:
        """Where is said that there is something to claim; None with notifications off."""
        return wake_topic(self.settings) if self.settings.use_postgresql_notify else None


class Actors:
    """Starts the actors of an incarnation. They stop in reverse: first what makes work, last what records it.

    An actor is made when its mailbox is first read, so it may name one that is started after it.
    """

    settler: ActorRef[SettlerMessage]
    recorder: ActorRef[RecorderMessage]
    desk: ActorRef[DeskMessage]
    claimer: ActorRef[ClaimerMessage]
    keeper: ActorRef[KeeperMessage]
    janitor: ActorRef[JanitorMessage]
    rescuer: ActorRef[RescuerMessage]
    scheduler: ActorRef[SchedulerMessage] | None
    listener: ActorRef[ListenerMessage]
    supervisor: ActorRef[SupervisorMessage]

    def __init__(self, tree: Tree, our: Incarnation, leave: Callable[[], None], gone: Callable[[], None]) -> None:
        self._tree = tree
        self._our = our
        self._announcer = Announcer(our.links.claim, our.topic) if our.topic else None
        self._ear = SharedEar(our.identity.topic)
        self._seals = Seals.of(our.settings)
        self._start_what_records()
        self._start_what_claims()
        self._start_what_keeps(leave)
        self.scheduler = self._start_scheduler() if our.application.scheduler else None
        self._start_what_works(gone)
        self._wind_the_clock()

    def _start_what_records(self) -> None:
        our, tasks = self._our, TaskStore(self._our.links.settle, signer_of(self._our.settings))
        self.settler = self._tree.start(
            "settler",
            lambda: Settler(
                tasks,
                ServerStore(our.links.settle),
                our.identity.id,
                self._announcements(),
                self.supervisor,
                our.vitals,
            ),
            restarts=FATAL,
        )
        self.recorder = self._tree.start("recorder", lambda: Recorder(tasks, our.identity.id, our.vitals))
        self.desk = self._tree.start("desk", lambda: Desk(DirectBackend(self._connections(), our.settings)))

    def _start_what_claims(self) -> None:
        our, settings = self._our, self._our.settings
        poll = settings.polling_interval.total_seconds()
        self.claimer = self._tree.start(
            "claimer",
            lambda: Claimer(
                TaskStore(our.links.claim),
                our.identity.id,
                self.settler,
                self.supervisor,
                our.vitals,
                our.application.intake,
                first_pause=poll if our.topic else FIRST_PAUSE,
                polling_interval=poll,
                full_pass_interval=settings.fallback_polling_interval.total_seconds(),
            ),
            restarts=FATAL,
        )

    def _start_what_keeps(self, leave: Callable[[], None]) -> None:
        our, settings = self._our, self._our.settings
        servers, ttl = ServerStore(our.links.beat), settings.lease_ttl.total_seconds()
        self.janitor = self._tree.start(
            "janitor",
            lambda: Janitor(
                ServerStore(our.links.settle),
                Upkeep(our.links.settle),
                self._announcements(),
                retention=settings.retention_days * 86_400,
                look_every=LOOK_FOR_DUE if our.topic else settings.polling_interval.total_seconds(),
            ),
        )
        self.rescuer = self._tree.start(
            "rescuer",
            lambda: Rescuer(our.identity.id, servers, self._announcements(), self.janitor, lease_ttl=ttl),
        )
        self.keeper = self._tree.start(
            "keeper",
            lambda: Keeper(
                servers,
                our.identity,
                our.vitals,
                self.claimer,
                self.janitor,
                self.rescuer,
                self.supervisor,
                leave,
                intake=our.application.intake,
                lease_ttl=ttl,
                health_file=settings.health_file,
                topic=our.topic,
            ),
            restarts=FATAL,
        )
        self.listener = self._tree.start(
            "listener",
            lambda: Listener(
                _listen_dsn(our),
                settings.schema,
                our.identity,
                self.claimer,
                self.janitor,
                self.keeper,
                self.settler,
                self._ear,
                topic=our.topic,
                mark=None if self._announcer is None else self._announcer.mark,
            ),
        )

    def _start_scheduler(self) -> ActorRef[SchedulerMessage]:
        our, schedules = self._our, dict[str, wire.Schedule]()
        return self._tree.start(
            "scheduler",
            lambda: Scheduler(
                schedules,
                ScheduleStore(our.links.settle),
                self._announcements().lined,
                signer_of(our.settings),
                retention=our.settings.retention_days * 86_400,
            ),
        )

    def _start_what_works(self, gone: Callable[[], None]) -> None:
        settings = self._our.settings
        self.supervisor = self._tree.start(
            "supervisor",
            lambda: Supervisor(
                self._start_worker,
                lambda ref: self._tree.group.create_task(self._tree.stop(ref)),
                self.claimer,
                self.keeper,
                self._our.vitals,
                limits=_limits(settings),
                cpus=os.cpu_count() or 1,
                wear=Wear(settings.max_tasks_per_worker, settings.max_memory_per_worker),
                grace=settings.shutdown_grace.total_seconds(),
                gone=gone,
            ),
            restarts=FATAL,
        )

    def _start_worker(self, number: int, sync: bool, standby: bool) -> ActorRef[WorkerMessage]:
        our = self._our
        argument = _worker_argument(sync, our.application, our.settings)
        colleagues = Colleagues(self.supervisor, self.claimer, self.settler, self.recorder, self.desk, self.scheduler)
        entry = sync_worker_main.main if sync else worker_main.main
        ref: ActorRef[WorkerMessage] = self._tree.start(
            f"worker {number}",
            lambda: Worker(number, entry, argument, colleagues, our.vitals, standby=standby, seals=self._seals),
            restarts=FATAL,
        )
        self._tree.every(ref, 0.1, Tick())
        return ref

    def _wind_the_clock(self) -> None:
        self._tree.every(self.keeper, BEAT_EVERY, Tick())
        self._tree.every(self.claimer, 0.2 if self._our.topic else FIRST_PAUSE, Tick())
        self._tree.every(self.settler, 0.5, Tick())
        self._tree.every(self.janitor, 1.0, Tick())
        self._tree.every(self.rescuer, LOOK_EVERY, Tick())
        self._tree.every(self.listener, 1.0, Tick())
        if self.scheduler is not None:
            self._tree.every(self.scheduler, 0.5, Tick())
        self._tree.every(self.supervisor, 0.5, Tick())

    def _announcements(self) -> Announcements:
        return Announcements(self.claimer, self.janitor, self._announcer)

    def _connections(self) -> Connections:
        """What workers ask goes over the connections that are there; not over that of the beat, which must not wait."""
        links = self._our.links
        return Connections(links.settle, links.settle, links.claim, self._ear)


StartActors = Callable[[Tree, Incarnation, Callable[[], None], Callable[[], None]], Actors]


async def run_incarnation(our: Incarnation, draining: asyncio.Event, start: StartActors = Actors) -> None:
    """Join, work until `draining` is set, finish what runs within the grace, leave. Sets it when somebody wants that.

    `start` makes the actors: scripts/simulate has other workers.

    Raises:
        ActorKeptFailing: an actor failed; with LeaseLost as its `error` when peers gave this server up.
        DatabaseUnavailable: it could not even join.
    """
    identity, servers = our.identity, ServerStore(our.links.beat)
    try:
        wanted = await servers.register(
            identity.id,
            name=identity.name,
            host=identity.host,
            pid=identity.pid,
            version=identity.version,
            lock_key=None,
            previous=our.previous,
            settings=alike(our.settings),
        )
        identity.joined = True
        our.vitals.resting = wanted.intent is Intent.DRAIN
        if wanted.intent is Intent.STOP:
            draining.set()
        await GateStore(our.links.beat).seed(parse_gates(our.settings.channels))
        logger.info("server {} joined ({})", identity.name, identity.id)
        gone = asyncio.Event()
        async with Tree(_on_exit) as tree:
            actors = start(tree, our, draining.set, gone.set)
            await draining.wait()
            grace = our.settings.shutdown_grace.total_seconds()
            logger.info("draining: what runs may finish within {:g} s", grace)
            actors.supervisor.tell(Drain(grace))
            with suppress(TimeoutError):
                async with asyncio.timeout(grace + DRAIN_GRACE + 5):
                    await gone.wait()
                    # PostgreSQL is away: it has as long to come back
                    while our.vitals.claimed > our.vitals.closed:  # noqa: ASYNC110  # counts, of several actors
                        await asyncio.sleep(RECORDED_YET)
        with suppress(DatabaseUnavailable):
            await servers.leave(identity.id, "stopped")
    finally:
        await our.links.close()


def _on_exit(exited: Exited) -> None:
    logger.opt(exception=exited.error).error("{} failed", exited.name)


def _worker_argument(sync: bool, application: Application, settings: Settings) -> wire.WorkerArgument:
    return wire.WorkerArgument(
        kind="sync" if sync else "async",
        slots=1 if sync else settings.concurrency,
        app=application.app,
        app_dir=application.app_dir,
        lifespan=application.lifespan,
        allowed_modules=settings.allowed_modules,
        only_decorated=settings.only_decorated,
        schema=settings.schema,
        signs=settings.secret_key is not None,
    )


def _limits(settings: Settings) -> Limits:
    least, most = min(settings.min_workers, settings.max_workers), settings.max_workers
    asked = "min_workers" in settings.model_fields_set and least < most
    return Limits(least, most, settings.worker_idle_timeout.total_seconds(), least if asked else None)


def _listen_dsn(our: Incarnation) -> str:
    """Where to listen: past a pooler, when one is in between."""
    direct = our.settings.listen_database_url
    return our.dsn if direct is None else direct.get_secret_value()

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
from ..runtime.announce import Announcer, wake_topic
from ..runtime.settings import Settings
from ..runtime.store.link import Link
from ..runtime.store.servers import ServerStore
from ..runtime.store.tasks import TaskStore
from ..runtime.store.upkeep import Upkeep
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
    DeskMessage,
    Drain,
    JanitorMessage,
    KeeperMessage,
    ListenerMessage,
    RecorderMessage,
    SettlerMessage,
    SupervisorMessage,
    Tick,
    WorkerMessage,
)
from .recorder import Recorder
from .settler import Settler
from .supervisor import Supervisor
from .vitals import Vitals
from .worker import DRAIN_GRACE, Colleagues, Worker

# An actor that holds attempts is not restarted alone: what it knew of them is gone, and only the end of the whole
# incarnation gives them back.
FATAL = Restarts(most=0)
FIRST_PAUSE = 0.02  # seconds after which a claim that found nothing is repeated when nobody notifies


@dataclass(frozen=True, slots=True)
class Application:
    """What the workers run: see wire.WorkerArgument."""

    app: str | None
    app_dir: str | None
    lifespan: bool


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


class Actors:
    """Their references; each actor is made when its mailbox is first read, so the order of these lines is free."""

    settler: ActorRef[SettlerMessage]
    recorder: ActorRef[RecorderMessage]
    desk: ActorRef[DeskMessage]
    claimer: ActorRef[ClaimerMessage]
    keeper: ActorRef[KeeperMessage]
    janitor: ActorRef[JanitorMessage]
    listener: ActorRef[ListenerMessage]
    supervisor: ActorRef[SupervisorMessage]

    def __init__(
        self,
        tree: Tree,
        links: Links,
        identity: Identity,
        vitals: Vitals,
        application: Application,
        settings: Settings,
        dsn: str,
        gone: Callable[[], None],
    ) -> None:
        topic = wake_topic(settings) if settings.use_postgresql_notify else None
        ttl = settings.lease_ttl.total_seconds()
        poll = settings.polling_interval.total_seconds()
        tasks, servers = TaskStore(links.settle), ServerStore(links.beat)

        # They stop in reverse: first what makes work, last what records it.
        self.settler = tree.start(
            "settler", lambda: Settler(tasks, identity.id, announcements(), vitals), restarts=FATAL
        )
        self.recorder = tree.start("recorder", lambda: Recorder(tasks, identity.id))
        self.desk = tree.start("desk", lambda: Desk(dsn, settings))
        self.claimer = tree.start(
            "claimer",
            lambda: Claimer(
                TaskStore(links.claim),
                identity.id,
                self.settler,
                self.supervisor,
                vitals,
                first_pause=poll if topic else FIRST_PAUSE,
                polling_interval=poll,
                full_pass_interval=settings.fallback_polling_interval.total_seconds(),
            ),
            restarts=FATAL,
        )
        self.janitor = tree.start(
            "janitor",
            lambda: Janitor(
                identity.id,
                servers,
                Upkeep(links.settle),
                announcements(),
                lease_ttl=ttl,
                retention=settings.retention_days * 86_400,
            ),
        )
        self.keeper = tree.start(
            "keeper",
            lambda: Keeper(
                servers,
                identity,
                vitals,
                self.claimer,
                self.janitor,
                self.supervisor,
                lease_ttl=ttl,
                health_file=settings.health_file,
            ),
            restarts=FATAL,
        )
        self.listener = tree.start(
            "listener",
            lambda: Listener(
                listen_dsn(settings, dsn),
                settings.schema,
                identity,
                self.claimer,
                self.janitor,
                self.keeper,
                topic=topic,
            ),
        )
        self.supervisor = tree.start(
            "supervisor",
            lambda: Supervisor(
                start_worker,
                lambda ref: tree.group.create_task(tree.stop(ref)),
                self.claimer,
                vitals,
                workers=settings.max_workers,
                sync_workers=min(settings.max_workers, os.cpu_count() or 1),
                gone=gone,
            ),
            restarts=FATAL,
        )

        announcer = Announcer(links.claim, topic) if topic else None

        def announcements() -> Announcements:
            return Announcements(self.claimer, announcer)

        def start_worker(number: int, sync: bool, standby: bool) -> ActorRef[WorkerMessage]:
            argument = _worker_argument(sync, application, settings)
            colleagues = Colleagues(self.supervisor, self.claimer, self.settler, self.recorder, self.desk)
            entry = sync_worker_main.main if sync else worker_main.main
            ref: ActorRef[WorkerMessage] = tree.start(
                f"worker {number}",
                lambda: Worker(number, entry, argument, colleagues, vitals, standby=standby),
                restarts=FATAL,
            )
            tree.every(ref, 0.1, Tick())
            return ref

        tree.every(self.keeper, BEAT_EVERY, Tick())
        tree.every(self.claimer, poll if topic else FIRST_PAUSE, Tick())
        tree.every(self.settler, 0.5, Tick())
        tree.every(self.janitor, 1.0, Tick())
        tree.every(self.listener, 1.0, Tick())
        tree.every(self.supervisor, 0.5, Tick())


def listen_dsn(settings: Settings, dsn: str) -> str:
    """Where to listen: past a pooler, when one is in between."""
    direct = settings.listen_database_url
    return dsn if direct is None else direct.get_secret_value()


async def run_incarnation(
    dsn: str,
    settings: Settings,
    identity: Identity,
    vitals: Vitals,
    application: Application,
    draining: asyncio.Event,
) -> None:
    """Join, work until `draining` is set, finish what runs within the grace, leave.

    Raises:
        ActorKeptFailing: an actor failed; with LeaseLost as its `error` when peers gave this server up.
        DatabaseUnavailable: it could not even join.
    """
    links = Links.of(dsn, settings, identity.name)
    servers = ServerStore(links.beat)
    try:
        await servers.register(
            identity.id,
            name=identity.name,
            host=identity.host,
            pid=identity.pid,
            version=identity.version,
            lock_key=None,
        )
        logger.info("server {} joined ({})", identity.name, identity.id)
        gone = asyncio.Event()
        async with Tree(_on_exit) as tree:
            actors = Actors(tree, links, identity, vitals, application, settings, dsn, gone.set)
            await draining.wait()
            grace = settings.shutdown_grace.total_seconds()
            logger.info("draining: what runs may finish within {:g} s", grace)
            actors.supervisor.tell(Drain(grace))
            actors.keeper.tell(Tick())
            with suppress(TimeoutError):
                async with asyncio.timeout(grace + DRAIN_GRACE + 5):
                    await gone.wait()
        await servers.leave(identity.id, "stopped")
    finally:
        await links.close()


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
    )

"""What the actors of a server say to each other. Frames from worker processes are in runtime/wire.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

from ..runtime import wire
from ..runtime.actor import ActorRef, Coalesced
from ..runtime.store.link import CALL_TIMEOUT
from ..runtime.store.servers import Peer
from ..runtime.task import Claimed, ContextWrite, LogWrite, NewTask, Settled, Stance
from .judgement import Judgement

ANY_LANE: Final = 0


@dataclass(frozen=True, slots=True)
class Tick(Coalesced):
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Wake(Coalesced):
    """Something may be claimable, perhaps in a lane as new as `newest_lane`; ANY_LANE: nobody knows in which.

    `count`: so many tasks are new; 0: nobody knows. `turn`: what all servers were told with it; empty: only this one.
    """

    newest_lane: int = ANY_LANE
    count: int = 0
    turn: str = ""


@dataclass(frozen=True, slots=True)
class Go(Coalesced):
    """Act on what the messages before this one have changed."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Take no tasks until told otherwise (`wanted` False); hand back what has not started. The answer is a Tick."""

    wanted: bool
    ref: ActorRef[KeeperMessage]


@dataclass(frozen=True, slots=True)
class HandBack:
    """Give back what has not started."""


@dataclass(frozen=True, slots=True)
class Drain:
    """The server goes: take nothing new. What runs may go on for `grace` seconds."""

    grace: float


# ---- about workers


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker takes work."""

    worker: int
    sync: bool
    slots: int
    ref: ActorRef[WorkerMessage]


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """A worker takes no more work; the answer to `ref` is Parted."""

    worker: int
    ref: ActorRef[WorkerMessage]


@dataclass(frozen=True, slots=True)
class Parted:
    """The claimer has placed with a worker all that it ever will."""


@dataclass(frozen=True, slots=True)
class Freed:
    """So many of a worker's attempts have ended, or, if they were not `run`, were given back."""

    worker: int
    count: int
    run: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Attempts for a worker to run."""

    attempts: list[Claimed]


@dataclass(frozen=True, slots=True)
class Activate:
    """A standby is to take work."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Running tasks that somebody wants cancelled or stopped."""

    cancels: tuple[UUID, ...]
    stops: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Died:
    """The process of a worker is gone."""

    code: int


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The application was imported by a worker."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker's process is gone and its attempts are accounted for.

    `traceback`: it could not start. `judgement`: its supervisor has ended it.
    """

    worker: int
    code: int
    traceback: str | None
    judgement: Judgement | None


@dataclass(frozen=True, slots=True)
class WorkerOver:
    """Nothing can come for a worker that is gone: its actor may be stopped."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkersWanted(Coalesced):
    """There are tasks of a kind for which there is no worker."""


@dataclass(frozen=True, slots=True)
class Scale:
    """There may be so many workers of each kind from now on."""

    workers: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Take no more, finish what runs, leave; the stop hooks may take `grace` seconds."""

    grace: float


@dataclass(frozen=True, slots=True)
class Overgrown:
    """A worker holds so much memory that it must not finish what runs."""

    reason: str


@dataclass(frozen=True, slots=True)
class Answers:
    """A worker has stopped to answer, or answers again: until then its free slots are worth nothing."""

    worker: int
    answers: bool


# ---- about attempts


@dataclass(frozen=True, slots=True)
class Opened:
    """A claim: attempts at these tasks will be settled under this lease."""

    lease: UUID
    tasks: list[UUID]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How attempts ended, with what is to be written in the same transaction: `alone`, or with others.

    `limit`: seconds that this may take. `size`: the characters of it, as far as Vitals counts them.
    """

    settled: list[Settled]
    contexts: list[ContextWrite]
    logs: list[LogWrite]
    added: list[tuple[Settled, list[NewTask]]]
    alone: bool = False
    limit: float = CALL_TIMEOUT
    size: int = 0


@dataclass(frozen=True, slots=True)
class Recheck(Coalesced):
    """The connection to PostgreSQL was lost: a crash may have taken recent claims with it."""


@dataclass(frozen=True, slots=True)
class LeasesGone:
    """The database knows nothing of these claims: their tasks stand in line again, or run elsewhere."""

    leases: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Unstarted:
    """Attempts that were claimed and never started."""

    attempts: list[Claimed]


@dataclass(frozen=True, slots=True)
class Parked:
    """Attempts that were claimed and can't be run here, each with the reason."""

    attempts: list[tuple[Claimed, Stance]]


@dataclass(frozen=True, slots=True)
class Declined:
    """Functions whose parked tasks are not claimed here."""

    stances: list[Stance]


@dataclass(slots=True)
class Writes:
    """What running attempts want stored; `lost`: so many lines more. `done` once the recorder is through with it."""

    contexts: list[ContextWrite]
    logs: list[LogWrite]
    lost: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """A context whose attempt goes on only once it is stored; `answer` sends to its worker, `call` is the question."""

    write: ContextWrite
    call: int
    answer: Callable[[wire.Answer], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A worker asks for something that needs the database; `answer` sends to it."""

    call: wire.Call
    worker: int
    answer: Callable[[wire.Answer], None]


@dataclass(frozen=True, slots=True)
class AskerGone:
    """A worker died: nobody waits for answers to what it asked."""

    worker: int


# ---- about the cluster


@dataclass(frozen=True, slots=True)
class DueIn:
    """A task was put off for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PeersChanged:
    """All servers as of the last beat, this one among them; `newest_lane` is the highest id of a lane."""

    peers: tuple[Peer, ...]
    newest_lane: int


@dataclass(frozen=True, slots=True)
class Reconnect(Coalesced):
    """The listening connection is gone."""


@dataclass(frozen=True, slots=True)
class Schedules:
    """What the application declares to run by the clock."""

    declared: tuple[wire.Schedule, ...]


ClaimerMessage: TypeAlias = (
    Tick | Wake | Go | Rest | Drain | WorkerJoined | WorkerLeft | Answers | Freed | PeersChanged | wire.Stances
)
WorkerMessage: TypeAlias = (
    Tick
    | Place
    | Activate
    | Wishes
    | LeasesGone
    | HandBack
    | Retire
    | Overgrown
    | Drain
    | Died
    | Parted
    | wire.Knows
    | wire.FromWorker
)
SettlerMessage: TypeAlias = Opened | Outcomes | Unstarted | Parked | Declined | Recheck | Go | Tick
RecorderMessage: TypeAlias = Writes | Commit | Go
DeskMessage: TypeAlias = Asked | AskerGone
KeeperMessage: TypeAlias = Tick
ListenerMessage: TypeAlias = Tick | Reconnect
JanitorMessage: TypeAlias = Tick | Wake | Go | DueIn
RescuerMessage: TypeAlias = Tick | PeersChanged
SchedulerMessage: TypeAlias = Tick | Schedules
SupervisorMessage: TypeAlias = (
    Tick | WorkersWanted | Scale | Drain | WorkerReady | WorkerJoined | WorkerGone | WorkerOver | Wishes | LeasesGone
)


@dataclass(frozen=True, slots=True)
class Colleagues:
    """Whom a worker tells what."""

    supervisor: ActorRef[SupervisorMessage]
    claimer: ActorRef[ClaimerMessage]
    settler: ActorRef[SettlerMessage]
    recorder: ActorRef[RecorderMessage]
    desk: ActorRef[DeskMessage]
    scheduler: ActorRef[SchedulerMessage] | None = None

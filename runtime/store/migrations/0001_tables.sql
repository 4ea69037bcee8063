-- The tables. A task is written once, then only appended to or deleted: nothing on the way of a plain task is ever
-- updated, so nothing bloats while somebody's long transaction holds back vacuum.
--
--   task      what the enqueuer wrote; never changed
--   bundle    what may be claimed now, a line per lane; ready shows its tasks
--   delayed   what may be claimed later
--   lease     what a server has claimed: one row per claim
--   attempt   an attempt that ended without ending its task
--   result    the end of a task; whoever inserts it has ended the task, its primary key decides every race
--   stopped   interrupted on purpose, until somebody retries it
--
-- The state of a task is derived from where it stands: see task_view.

create type queued_tasks.task_state as enum
    ('enqueued', 'waiting', 'doing', 'done', 'failed', 'cancelled', 'stopped');

-- A lane is the line of one channel and priority, for async workers or for sync ones. Interrupted tasks come back in a
-- lane of their own (again), which is served before the other of its kind: they have waited their turn already. With a
-- function it holds what a server that can't run this function came across: see 0018.
create table queued_tasks.lane (
    id       integer generated always as identity primary key,
    channel  text     not null check (channel <> '' and length(channel) <= 100),
    priority smallint not null,
    sync     boolean  not null,
    again    boolean  not null,
    function text,
    unique nulls not distinct (channel, priority, sync, again, function)
);

create table queued_tasks.task (
    id                uuid        primary key,
    created_at        timestamptz not null default now(),
    run_at            timestamptz,
    expires_at        timestamptz,
    timeout           float8      check (timeout > 0),
    executor          smallint    not null check (executor between 0 and 2),
    priority          smallint    not null,
    max_retries       smallint    not null check (max_retries >= 0),
    auto_remove       boolean     not null,
    function          text        not null check (function <> ''),
    name              text,
    channel           text        not null,
    key               text,
    unique_key        text,
    on_parent_failure text        check (on_parent_failure in ('run', 'cancel')),
    parents           uuid[],
    stand_ins         uuid[],
    args              json        not null,
    kwargs            json,
    context           json,
    signature         bytea
) with (fillfactor = 100, autovacuum_vacuum_insert_scale_factor = 0.2);
comment on column queued_tasks.task.on_parent_failure is 'null: cascade';
comment on column queued_tasks.task.parents is 'in the order in which they were given; dependency holds the links';
comment on column queued_tasks.task.stand_ins is
    'the parents, where a unique one was not written and another task stands for it; null: as they were given';

-- Tasks that came into a line one behind the other stand there as one row: to insert, lock and delete a row for each was
-- a third of what a claim cost, and of what it cost to add one. Each has a seq of its own, counted from that of the row,
-- so a claim that needs just some of them leaves the others where they were.
create sequence queued_tasks.ready_seq increment 64 cache 1;

create table queued_tasks.bundle (
    lane    integer not null,
    seq     bigint  not null default nextval('queued_tasks.ready_seq'),
    ids     uuid[]  not null check (cardinality(ids) between 1 and 64),
    attempt integer not null check (attempt between 1 and 1000000000),
    key     text    collate "C",
    check (key is null or cardinality(ids) = 1)
) with (fillfactor = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
create unique index bundle_line on queued_tasks.bundle (lane, seq);
create index bundle_keys on queued_tasks.bundle (lane, key, seq) where key is not null;
comment on column queued_tasks.bundle.key is 'that of the task; without one, empty where a channel has a limit per key';

create view queued_tasks.ready as
select b.lane, b.seq + u.place - 1 as seq, u.id, b.attempt, b.key
  from queued_tasks.bundle b cross join lateral unnest(b.ids) with ordinality u (id, place);

create table queued_tasks.delayed (
    run_at  timestamptz not null,
    id      uuid        not null,
    attempt integer     not null check (attempt between 1 and 1000000000),
    primary key (run_at, id)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Ids are made by the claiming server: a sequence would give out a number again when a crash of PostgreSQL takes an
-- asynchronously committed claim with it.
create table queued_tasks.lease (
    id         uuid        primary key,
    server     uuid        not null,
    claimed_at timestamptz not null default now(),
    ids        uuid[]      not null,
    attempts   integer[]   not null,
    check (cardinality(ids) = cardinality(attempts) and cardinality(ids) > 0)
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, toast_tuple_target = 8160);
-- Ids do not get smaller by compression, which took a tenth of a claim to find out.
alter table queued_tasks.lease alter ids set storage external;

create table queued_tasks.attempt (
    id                  uuid        not null,
    attempt             integer     not null,
    outcome             text        not null
                        check (outcome in ('failed', 'timeout', 'retry', 'interrupted', 'blocked', 'crashed', 'stopped')),
    server              uuid        not null,
    started_at          timestamptz not null,
    ended_at            timestamptz not null,
    next_at             timestamptz,
    exception_name      text,
    exception_message   text,
    exception_traceback text,
    primary key (id, attempt)
);
comment on table queued_tasks.attempt is
    'failed and timeout count as failures, crashed against the crash budget; what was blocked once is for sync workers';

create table queued_tasks.result (
    id                  uuid        primary key,
    state               queued_tasks.task_state not null check (state in ('done', 'failed', 'cancelled')),
    attempt             integer     not null,
    server              uuid,
    started_at          timestamptz,
    ended_at            timestamptz not null default now(),
    result              json,
    exception_name      text,
    exception_message   text,
    exception_traceback text,
    check ((state = 'failed') <= (exception_name is not null))
) with (fillfactor = 100, autovacuum_vacuum_insert_scale_factor = 0.2);
create index result_not_done on queued_tasks.result (state, id desc) where state <> 'done';

create table queued_tasks.stopped (
    id         uuid        primary key,
    attempt    integer     not null,
    stopped_at timestamptz not null default now()
);

create table queued_tasks.dependency (
    parent   uuid    not null,
    child    uuid    not null,
    released boolean not null default false,
    primary key (parent, child)
);
create index dependency_child on queued_tasks.dependency (child, parent);

create table queued_tasks.unique_task (
    key text primary key,
    id  uuid not null
);
create index unique_task_id on queued_tasks.unique_task (id);

-- A removed task, remembered for as long as its enqueuer may still repeat a write whose answer was lost.
create table queued_tasks.tombstone (
    id         uuid        primary key,
    deleted_at timestamptz not null default now()
);

-- Versions are appended and read newest first, because a row updated in place decays while vacuum is held back.
create table queued_tasks.context (
    id      uuid    not null,
    attempt integer not null,
    version integer not null,
    value   json    not null,
    primary key (id, attempt, version)
);

create table queued_tasks.log (
    task_id   uuid        not null,
    id        bigint      generated always as identity,
    attempt   integer     not null,
    at        timestamptz not null,
    level     smallint    not null,
    logger    text        not null,
    message   text        not null,
    exception text,
    primary key (task_id, id)
);

-- Who is to be told when a task ends. Unlogged: whoever waits subscribes again after a crash.
create unlogged table queued_tasks.waiter (
    task_id uuid not null,
    topic   text not null,
    primary key (task_id, topic)
);

-- One row per start of a server, kept for its name; heartbeat is the lease of the running ones.
create table queued_tasks.server (
    id         uuid        primary key,
    name       text        not null,
    host       text        not null,
    pid        integer     not null,
    version    text        not null,
    started_at timestamptz not null default now(),
    ended_at   timestamptz,
    end_reason text
);

-- A server whose row is gone has lost every lease. lock_key: the session lock that it holds while its process lives.
create table queued_tasks.heartbeat (
    server   uuid        primary key references queued_tasks.server (id),
    beat_at  timestamptz not null default clock_timestamp(),
    lock_key bigint,
    state    text        not null check (state in ('starting', 'running', 'draining', 'drained', 'blocked')),
    workers  integer     not null default 0,
    slots    integer     not null default 0,
    busy     integer     not null default 0,
    details  json        not null default '{}',
    dropped  uuid[]      not null default '{}'
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on column queued_tasks.heartbeat.dropped is
    'the last claims, by their leases, that the server has given up without an answer: see drop_lease';

-- What somebody wants done to a task that is running on `server`: read on its beat, and at once when it is notified.
create table queued_tasks.interrupt (
    id           uuid        primary key,
    server       uuid        not null,
    kind         text        not null check (kind in ('cancel', 'stop')),
    requested_at timestamptz not null default now()
);
create index interrupt_server on queued_tasks.interrupt (server);

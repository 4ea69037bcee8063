-- What runs by the clock. The rows of schedule change with a deployment or an operator's wish only; how far a schedule
-- has come is its newest row in schedule_fire, which is appended to.

create table queued_tasks.schedule (
    name     text        primary key check (name <> ''),
    cron     text        not null,
    timezone text        not null,
    function text        not null,
    paused   boolean     not null default false,
    since    timestamptz not null default clock_timestamp(),
    seen_at  timestamptz not null default clock_timestamp()
);
comment on column queued_tasks.schedule.since is 'times before this one are not due: it was made, changed or resumed then';
comment on column queued_tasks.schedule.seen_at is 'when a server last said that its application declares it like this';

create table queued_tasks.schedule_fire (
    name     text        not null,
    due_at   timestamptz not null,
    fired_at timestamptz not null default clock_timestamp(),
    task     uuid,
    reason   text,
    primary key (name, due_at),
    check ((task is null) <> (reason is null))
);
comment on column queued_tasks.schedule_fire.reason is 'why this time, and those before it without a row, were skipped';
create index schedule_fire_run on queued_tasks.schedule_fire (name, due_at) where task is not null;

-- See to one due time of a schedule, whoever else is about to. The lock on the schedule puts servers and operators in
-- order, times are seen to in order, and everything is in one call: a caller that dies has done all of it or nothing.
--
-- With p_reason the time is skipped for that reason. While the previous run is active a p_patient schedule waits and
-- any other one skips. A stopped run is not active: nobody knows when it will go on.
-- Returns fired, skipped, busy, taken (by another server), early (by the clock of the database), paused, or foreign (a
-- newer declaration than that of the caller holds).
create function queued_tasks.fire(
    p_name text, p_cron text, p_timezone text, p_due timestamptz, p_patient boolean, p_reason text,
    p_id uuid default null, p_function text default null, p_executor smallint default null, p_args json default null,
    p_kwargs json default null, p_task_name text default null, p_channel text default null, p_lane integer default null,
    p_priority smallint default null, p_max_retries smallint default null, p_timeout float8 default null,
    p_unique_key text default null, p_auto_remove boolean default null, p_context json default null,
    p_signature bytea default null
) returns text
language plpgsql as $$
declare
    v_schedule queued_tasks.schedule;
    v_reason   text := p_reason;
    v_winner   uuid;
begin
    select s.* into v_schedule from queued_tasks.schedule s where s.name = p_name for no key update;
    if v_schedule.name is null or (v_schedule.cron, v_schedule.timezone) <> (p_cron, p_timezone)
       or v_schedule.function <> p_function then
        return 'foreign';
    elsif v_schedule.paused then
        return 'paused';
    elsif p_due > clock_timestamp() then
        return 'early';
    -- what lies later than now was written by a clock that was ahead, and has been set back since
    elsif v_schedule.since between p_due and clock_timestamp()
          or exists (select from queued_tasks.schedule_fire f
                      where f.name = p_name and f.due_at between p_due and clock_timestamp()) then
        return 'taken';
    end if;

    if v_reason is null and queued_tasks.is_running(p_name) then
        if p_patient then
            return 'busy';
        end if;
        v_reason := 'the previous run was still active';
    end if;
    if v_reason is not null then
        insert into queued_tasks.schedule_fire (name, due_at, reason) values (p_name, p_due, v_reason);
        return 'skipped';
    end if;

    select a.winner into v_winner
      from queued_tasks.add_tasks(
           array[p_id], null, json_build_array(p_args), array[p_kwargs], null, null, null,
           case when p_unique_key is not null then array[p_unique_key] end, null, array[p_context], array[p_signature],
           array[p_function], array[p_executor], array[p_task_name], array[p_channel], array[p_lane], array[p_priority],
           array[p_max_retries], array[p_timeout], array[p_auto_remove], array[null::text], false) a;
    insert into queued_tasks.schedule_fire (name, due_at, task) values (p_name, p_due, coalesce(v_winner, p_id));
    return 'fired';
end $$;

-- Whether the last run of a schedule has neither ended nor been stopped; one that was removed has ended. One whose function
-- every server that takes tasks has declined, as it was renamed in a deploy, keeps no other from running.
create function queued_tasks.is_running(p_name text) returns boolean
language plpgsql stable as $$
begin
    return exists (select from queued_tasks.task t
                    where t.id = (select f.task from queued_tasks.schedule_fire f
                                   where f.name = p_name and f.task is not null and f.due_at <= clock_timestamp()
                                   order by f.due_at desc limit 1)
                      and not exists (select from queued_tasks.result r where r.id = t.id)
                      and not exists (select from queued_tasks.stopped s where s.id = t.id)
                      and (exists (select from queued_tasks.running r where r.id = t.id)
                           or not exists (select from queued_tasks.stance c where c.function = t.function)
                           or exists (select from queued_tasks.heartbeat h
                                       where h.state = 'running'
                                         and not exists (select from queued_tasks.stance c
                                                          where c.function = t.function and c.server = h.server))));
end $$;

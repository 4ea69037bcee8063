-- Record how attempts ended, if they are still this server's. One call is one decision for the whole batch:
-- lock the leases, write results and attempts for those that stand, let children go. What was not ours is in `lost`;
-- what an earlier call with a lost answer recorded already is not.
--
-- p_full: leases with nothing left open after this call; p_part: the others. p_ago: seconds since the attempt started;
-- p_took: seconds that it ran. Without p_delay an attempt ends its task and goes to `result`; with one (see go_on) it
-- goes to `attempt`. p_flagged: see after_end. An array that is null means null for every attempt, but p_attempt: first
-- ones. p_outcome may have one element for all.
--
-- An attempt that a rescuer closed as interrupted is ours by its number, yet not what we have to say of it: so whether it
-- was recorded already is a question of the outcome, too. And one that an earlier call recorded may have been removed
-- since, while its lease stays for the others: nothing is written of a task that is not there.
--
-- One call may end a task under two leases: a crash of PostgreSQL took a claim along, and the same server claimed the task
-- again before it knew. The attempts have one number, and one lease is not there: what its run has to say is dropped, but
-- the task is not lost.
create function queued_tasks.settle(
    p_server uuid, p_full uuid[], p_part uuid[], p_lease uuid[], p_id uuid[], p_attempt integer[], p_outcome text[],
    p_ago float8[], p_took float8[], p_result json[], p_delay float8[],
    p_exception_name text[], p_exception_message text[], p_exception_traceback text[], p_flagged uuid[],
    out lost uuid[], out lined integer, out told text[]
) language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '10s'
as $$
declare
    v_held     uuid[];
    v_places   tid[];
    v_ended    uuid[];
    v_open     uuid[];
    v_next     integer[];
    v_delays   float8[];
    v_count    integer;
    v_tries    integer := 0;
    v_plain    boolean;
    v_state    queued_tasks.task_state;
    v_limits   boolean;
    v_awaited  boolean;
begin
    lined := 0;
    lost := '{}';
    if p_part = '{}' then
        -- these, too, in the order of the ids: that of the index
        with held as (
            delete from queued_tasks.lease l where l.id = any (p_full) and l.server = p_server returning l.id
        )
        select coalesce(array_agg(h.id), '{}') into v_held from held h;
    else
        select coalesce(array_agg(h.id), '{}'), array_agg(h.place) filter (where h.id = any (p_full)) into v_held, v_places
          from (select l.id, l.ctid as place from queued_tasks.lease l
                 where l.id = any (p_full || p_part) and l.server = p_server
                 order by l.id for update) h;
        if v_places is not null then
            delete from queued_tasks.lease l where l.ctid = any (v_places);
        end if;
    end if;

    v_plain := p_delay is null and cardinality(v_held) = cardinality(p_full) + cardinality(p_part);
    loop
        begin
            if v_plain then
                -- All or none: whether no task was removed is much cheaper to see at once, and what was inserted is known.
                v_state := p_outcome[1];
                insert into queued_tasks.result (id, state, attempt, server, started_at, ended_at, result,
                                                 exception_name, exception_message, exception_traceback)
                select u.id, coalesce(u.outcome::queued_tasks.task_state, v_state), coalesce(u.attempt, 1), p_server,
                       now() - u.ago * interval '1 second', now() - (u.ago - u.took) * interval '1 second', u.result,
                       u.exception_name, u.exception_message, u.exception_traceback
                  from (select unnest(p_id) as id, unnest(p_attempt) as attempt, unnest(p_outcome) as outcome,
                               unnest(p_ago) as ago, unnest(p_took) as took, unnest(p_result) as result,
                               unnest(p_exception_name) as exception_name,
                               unnest(p_exception_message) as exception_message,
                               unnest(p_exception_traceback) as exception_traceback) u
                 where cardinality(p_id) = (select count(*) from queued_tasks.task t where t.id = any (p_id))
                 order by u.id;
                get diagnostics v_count = row_count;
                if v_count = cardinality(p_id) then
                    v_ended := p_id;
                    exit;
                end if;
                v_plain := false;
            end if;

            with ended as (
                insert into queued_tasks.result (id, state, attempt, server, started_at, ended_at, result,
                                                 exception_name, exception_message, exception_traceback)
                select distinct on (u.id) u.id, coalesce(u.outcome, p_outcome[1])::queued_tasks.task_state,
                       coalesce(u.attempt, 1), p_server,
                       now() - u.ago * interval '1 second', now() - (u.ago - u.took) * interval '1 second', u.result,
                       u.exception_name, u.exception_message, u.exception_traceback
                  from unnest(p_lease, p_id, p_attempt, p_outcome, p_ago, p_took, p_result, p_delay,
                              p_exception_name, p_exception_message, p_exception_traceback)
                    as u (lease, id, attempt, outcome, ago, took, result, delay,
                          exception_name, exception_message, exception_traceback)
                 where u.lease = any (v_held) and u.delay is null
                   and exists (select from queued_tasks.task t where t.id = u.id offset 0)
                   and (v_tries = 0 or not exists (select from queued_tasks.result r where r.id = u.id offset 0))
                 order by u.id
                returning result.id
            )
            select array_agg(e.id) into v_ended from ended e;
            exit;
        exception when unique_violation then
            -- One of them had ended already. Not `on conflict`: that makes each insert half as dear again.
            v_plain := false;
            v_tries := v_tries + 1;
            if v_tries = 10 then
                raise;
            end if;
        end;
    end loop;

    -- In a new statement: the one above may have waited for whoever added a child. A plain task pays for this look, no more.
    select exists (select from queued_tasks.gate),
           exists (select from queued_tasks.dependency k where k.parent = any (v_ended))
           or exists (select from queued_tasks.waiter w where w.task_id = any (v_ended))
      into v_limits, v_awaited;
    if v_awaited or p_flagged <> '{}' then
        select e.lined, e.told into lined, told
          from queued_tasks.after_end(v_ended, array(select f.id from unnest(p_flagged) f (id) where f.id = any (v_ended))) e;
    end if;

    if cardinality(v_held) < cardinality(p_full) + cardinality(p_part) then
        -- a removed task left a tombstone: it was done
        select coalesce(array_agg(u.id), '{}') into lost
          from unnest(p_lease, p_id, p_attempt, p_outcome, p_delay) u (lease, id, attempt, outcome, delay)
         where u.lease <> all (v_held)
           and not exists (select from queued_tasks.result r
                            where r.id = u.id and r.server = p_server and r.attempt = coalesce(u.attempt, 1)
                              and u.delay is null and r.state::text = coalesce(u.outcome, p_outcome[1]) offset 0)
           and not exists (select from queued_tasks.attempt a
                            where a.id = u.id and a.server = p_server and a.attempt = coalesce(u.attempt, 1)
                              and u.delay is not null and a.outcome = coalesce(u.outcome, p_outcome[1]) offset 0)
           and not exists (select from queued_tasks.tombstone s where s.id = u.id offset 0)
           and not exists (select from unnest(p_lease, p_id) h (lease, id) where h.id = u.id and h.lease = any (v_held));
    end if;

    if p_delay is not null then
        with closed as (
            insert into queued_tasks.attempt (id, attempt, outcome, server, started_at, ended_at, next_at,
                                              exception_name, exception_message, exception_traceback)
            select u.id, coalesce(u.attempt, 1), coalesce(u.outcome, p_outcome[1]), p_server,
                   now() - u.ago * interval '1 second', now() - (u.ago - u.took) * interval '1 second',
                   case when u.delay < 'infinity' then now() + u.delay * interval '1 second' end,
                   u.exception_name, u.exception_message, u.exception_traceback
              from unnest(p_lease, p_id, p_attempt, p_outcome, p_ago, p_took, p_delay,
                          p_exception_name, p_exception_message, p_exception_traceback)
                as u (lease, id, attempt, outcome, ago, took, delay,
                      exception_name, exception_message, exception_traceback)
             where u.lease = any (v_held) and u.delay is not null
               and exists (select from queued_tasks.task t where t.id = u.id offset 0)
             order by u.id
            on conflict (id, attempt) do nothing
            returning attempt.id, attempt.attempt, attempt.next_at
        )
        -- What was recorded is what follows: by its number an attempt may have an end of another lease in this call, too.
        select array_agg(c.id), array_agg(c.attempt + 1),
               array_agg(coalesce(extract(epoch from c.next_at - now())::float8, 'infinity'))
          into v_open, v_next, v_delays
          from closed c;
        if v_open is not null then
            select settle.lined + g.lined, settle.told || g.told into lined, told
              from queued_tasks.go_on(p_server, v_open, v_next, v_delays) g;
        end if;
    end if;
    if v_limits then
        lined := lined + queued_tasks.free_tokens(p_lease, p_id);
    end if;
end $$;

-- What follows for tasks that were taken and have not ended: the attempt p_next after p_delays (seconds; 0: at once and
-- ahead of the line), or none before somebody retries it (infinity). Whoever was asked meanwhile to cancel or stop the
-- task gets his will here. p_own: see line_up. Returns how many may be claimed at once, and whom to tell: see after_end.
create function queued_tasks.go_on(
    p_server uuid, p_ids uuid[], p_next integer[], p_delays float8[], p_own boolean default false,
    out lined integer, out told text[]
) language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_ids       uuid[];
    v_next      integer[];
    v_cancelled uuid[];
    v_stopped   uuid[];
begin
    lined := 0;
    with taken as materialized (
        -- what has no number left must not keep all others from being taken back
        select u.id, u.next, u.delay,
               coalesce(i.kind, case when u.delay = 'infinity' then 'stop' when u.next > 1000000000 then 'cancel' end) as wish
          from unnest(p_ids, p_next, p_delays) u (id, next, delay)
          left join lateral (select x.kind from queued_tasks.interrupt x where x.id = u.id offset 0) i on true
    ), halted as (
        insert into queued_tasks.stopped (id, attempt)
        select t.id, t.next - 1 from taken t where t.wish = 'stop' order by t.id
        on conflict (id) do nothing
    ), cancelled as (
        insert into queued_tasks.result (id, state, attempt, server, exception_message)
        select t.id, 'cancelled', t.next - 1, p_server,
               case when t.next > 1000000000 then 'it has had as many attempts as can be numbered' end
          from taken t where t.wish = 'cancel' order by t.id
        on conflict (id) do nothing
        returning result.id
    ), later as (
        insert into queued_tasks.delayed (run_at, id, attempt)
        select now() + t.delay * interval '1 second', t.id, t.next from taken t where t.wish is null and t.delay > 0
    )
    select array_agg(t.id order by t.id) filter (where t.wish is null and t.delay = 0),
           array_agg(t.next order by t.id) filter (where t.wish is null and t.delay = 0),
           array_agg(t.id) filter (where t.wish = 'stop'),
           (select array_agg(c.id) from cancelled c)
      into v_ids, v_next, v_stopped, v_cancelled
      from taken t;

    delete from queued_tasks.interrupt i where i.id = any (p_ids);
    perform queued_tasks.tell_watchers(p_ids);
    if v_cancelled is not null then
        select e.lined, e.told into lined, told from queued_tasks.after_end(v_cancelled, v_cancelled) e;
    end if;
    if v_stopped is not null then
        told := told || queued_tasks.wind_up(v_stopped, '{}');
    end if;
    if v_ids is not null then
        lined := lined + queued_tasks.line_up(v_ids, v_next, true, p_own);
    end if;
end $$;

-- Give back what was claimed and never started: the same attempts, taken out of their leases. p_leases: for each of p_ids
-- the one that it was claimed with, so that a repeated call leaves alone what was claimed again meanwhile. p_full: leases
-- with nothing left open after this. p_own: see line_up. Returns how many may be claimed again.
create function queued_tasks.give_back(
    p_server uuid, p_leases uuid[], p_ids uuid[], p_full uuid[], p_own boolean default false
) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_leases   uuid[];
    v_ids      uuid[];
    v_attempts integer[];
    v_lined    integer;
    v_told     text[];
begin
    with mine as materialized (
        select l.id, l.ids, l.attempts,
               array(select u.id from unnest(p_leases, p_ids) u (lease, id) where u.lease = l.id) as back
          from queued_tasks.lease l
         where l.server = p_server and l.id = any (p_leases)
         order by l.id
           for update
    ), emptied as (
        delete from queued_tasks.lease l using mine m
         where l.id = m.id and (l.id = any (p_full) or m.ids <@ m.back)
    ), shrunk as (
        update queued_tasks.lease l
           set ids = array(select u.id from unnest(m.ids) with ordinality u (id, place)
                            where u.id <> all (m.back) order by u.place),
               attempts = array(select m.attempts[u.place] from unnest(m.ids) with ordinality u (id, place)
                                 where u.id <> all (m.back) order by u.place)
          from mine m
         where l.id = m.id and l.id <> all (p_full) and not m.ids <@ m.back
    )
    select array_agg(m.id order by u.id), array_agg(u.id order by u.id), array_agg(u.attempt order by u.id)
      into v_leases, v_ids, v_attempts
      from mine m cross join lateral unnest(m.ids, m.attempts) u (id, attempt)
     where u.id = any (m.back);
    v_lined := queued_tasks.free_tokens(v_leases, v_ids);

    -- in a new statement: the one above may have waited for a settlement
    select array_agg(u.id order by u.id), array_agg(u.attempt order by u.id) into v_ids, v_attempts
      from unnest(v_ids, v_attempts) u (id, attempt)
     where not exists (select from queued_tasks.attempt a where a.id = u.id and a.attempt = u.attempt offset 0)
       and not exists (select from queued_tasks.result r where r.id = u.id offset 0);
    if v_ids is null then
        return v_lined;
    end if;
    select v_lined + g.lined, g.told into v_lined, v_told
      from queued_tasks.go_on(p_server, v_ids, v_attempts, array_fill(0::float8, array[cardinality(v_ids)]), p_own) g;
    perform queued_tasks.tell(v_told);
    return v_lined;
end $$;

-- Give back what a claim took whose answer never arrived. It may still be under way: wait for it. It may even arrive later
-- than this, from a connection that was given up long ago: then it finds itself among `dropped`, and takes nothing.
create function queued_tasks.drop_lease(p_server uuid, p_lease uuid) returns integer
language plpgsql
set lock_timeout = '10s'
as $$
declare
    v_ids uuid[];
begin
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));
    update queued_tasks.heartbeat h
       set dropped = (array_prepend(p_lease, h.dropped))[:100]
     where h.server = p_server and p_lease <> all (h.dropped);
    select l.ids into v_ids from queued_tasks.lease l where l.server = p_server and l.id = p_lease;
    if v_ids is null then
        return 0;
    end if;
    return queued_tasks.give_back(p_server, array_fill(p_lease, array[cardinality(v_ids)]), v_ids, array[p_lease]);
end $$;

-- Store log lines, a row each: p_ago in seconds. Only while the attempt runs, so that a write that is repeated leaves no
-- second copy; p_late: also when this server has recorded the attempt's end, and nobody else in its name.
create function queued_tasks.write_logs(
    p_server uuid, p_lease uuid[], p_id uuid[], p_attempt integer[], p_ago float8[], p_level smallint[], p_logger text[],
    p_message text[], p_exception text[], p_late boolean
) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_held uuid[];
    v_late boolean;
begin
    with held as (
        select l.id from queued_tasks.lease l where l.id = any (p_lease) and l.server = p_server order by l.id for share
    )
    select coalesce(array_agg(h.id), '{}') into v_held from held h;
    v_late := p_late and not exists (select from queued_tasks.server s where s.id = p_server and s.end_reason = 'lost');

    -- in a new statement: the one above may have waited for the end of some of these attempts
    insert into queued_tasks.log (task_id, attempt, at, level, logger, message, exception)
    select u.id, u.attempt, clock_timestamp() - u.ago * interval '1 second', u.level, u.logger, u.message, u.exception
      from unnest(p_lease, p_id, p_attempt, p_ago, p_level, p_logger, p_message, p_exception)
           with ordinality u (lease, id, attempt, ago, level, logger, message, exception, place)
      left join lateral (select r.server, r.attempt from queued_tasks.result r where r.id = u.id offset 0) r on true
      left join lateral (select a.server, a.outcome from queued_tasks.attempt a
                          where a.id = u.id and a.attempt = u.attempt offset 0) a on true
     where case when r.attempt is null and a.outcome is null then u.lease = any (v_held)
                else v_late and (r.server = p_server and r.attempt = u.attempt
                                 or a.server = p_server and a.outcome <> 'interrupted') end
       and exists (select from queued_tasks.task t where t.id = u.id offset 0)
     order by u.place;
    perform queued_tasks.tell_watchers(p_id);
end $$;

-- Store an error of the process that added a task: a hook of its own failed.
create function queued_tasks.write_note(p_id uuid, p_message text, p_exception text) returns void
language plpgsql as $$
begin
    insert into queued_tasks.log (task_id, attempt, at, level, logger, message, exception)
    select t.id, 0, clock_timestamp(), 40, 'queued_tasks.runtime.hooks', p_message, p_exception
      from queued_tasks.task t where t.id = p_id;
    perform queued_tasks.tell_watchers(array[p_id]);
end $$;

-- Store contexts, a row each, if their leases are still this server's. The newest version counts; older ones go.
-- Returns the tasks whose contexts are.
create function queued_tasks.write_context(
    p_server uuid, p_lease uuid[], p_id uuid[], p_attempt integer[], p_version integer[], p_value json[]
) returns setof uuid
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_held uuid[];
begin
    with held as (
        select l.id from queued_tasks.lease l where l.id = any (p_lease) and l.server = p_server order by l.id for share
    )
    select array_agg(h.id) into v_held from held h;

    insert into queued_tasks.context (id, attempt, version, value)
    select u.id, u.attempt, u.version, u.value
      from unnest(p_lease, p_id, p_attempt, p_version, p_value) u (lease, id, attempt, version, value)
     where u.lease = any (v_held)
       and exists (select from queued_tasks.task t where t.id = u.id offset 0)
    on conflict do nothing;
    delete from queued_tasks.context c
     where c.ctid = any (array(
           select o.ctid
             from unnest(p_lease, p_id, p_attempt, p_version) u (lease, id, attempt, version)
            cross join lateral (
                  select k.ctid from queued_tasks.context k
                   where k.id = u.id and (k.attempt, k.version) < (u.attempt, u.version) offset 0) o
            where u.lease = any (v_held)));
    perform queued_tasks.tell_watchers(p_id);
    return query select u.id from unnest(p_lease, p_id) u (lease, id) where u.lease = any (v_held);
end $$;

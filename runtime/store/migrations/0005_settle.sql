-- Record how attempts ended, if they are still this server's. One call is one decision for the whole batch:
-- lock the leases, write results and attempts for those that stand, let children go. What was not ours is in `lost`;
-- what an earlier call with a lost answer recorded already is not.
--
-- p_full: leases with nothing left open after this call; p_part: the others. p_ago: seconds since the attempt started;
-- p_took: seconds that it ran. Without p_delay an attempt ends its task and goes to `result`; with one (see go_on) it
-- goes to `attempt`. p_flagged: see after_end.
create function queued_tasks.settle(
    p_server uuid, p_full uuid[], p_part uuid[], p_lease uuid[], p_id uuid[], p_attempt integer[], p_outcome text[],
    p_ago float8[], p_took float8[], p_result json[], p_delay float8[],
    p_exception_name text[], p_exception_message text[], p_exception_traceback text[], p_flagged uuid[],
    out lost uuid[], out lined integer, out told text[]
) language plpgsql
set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_held     uuid[];
    v_ended    uuid[];
    v_open     uuid[];
    v_attempts integer[];
    v_delays   float8[];
begin
    lined := 0;
    lost := '{}';
    with closed as (
        delete from queued_tasks.lease l where l.id = any (p_full) and l.server = p_server returning l.id
    ), kept as (
        select l.id from queued_tasks.lease l where l.id = any (p_part) and l.server = p_server for no key update
    )
    select coalesce(array_agg(h.id), '{}') into v_held from (select id from closed union all select id from kept) h;

    with ended as (
        insert into queued_tasks.result (id, state, attempt, server, started_at, ended_at, result,
                                         exception_name, exception_message, exception_traceback)
        select u.id, u.outcome::queued_tasks.task_state, u.attempt, p_server,
               now() - u.ago * interval '1 second', now() - (u.ago - u.took) * interval '1 second', u.result,
               u.exception_name, u.exception_message, u.exception_traceback
          from unnest(p_lease, p_id, p_attempt, p_outcome, p_ago, p_took, p_result, p_delay,
                      p_exception_name, p_exception_message, p_exception_traceback)
            as u (lease, id, attempt, outcome, ago, took, result, delay,
                  exception_name, exception_message, exception_traceback)
         where u.lease = any (v_held) and u.delay is null
         order by u.id
        on conflict (id) do nothing
        returning result.id
    )
    select array_agg(e.id) into v_ended from ended e;

    if v_ended is not null then
        select e.lined, e.told into lined, told
          from queued_tasks.after_end(v_ended, array(select f.id from unnest(p_flagged) f (id) where f.id = any (v_ended))) e;
    end if;

    if cardinality(v_held) < cardinality(p_full) + cardinality(p_part) then
        select coalesce(array_agg(u.id), '{}') into lost
          from unnest(p_lease, p_id, p_attempt) u (lease, id, attempt)
         where u.lease <> all (v_held)
           and not exists (select from queued_tasks.result r
                            where r.id = u.id and r.server = p_server and r.attempt = u.attempt)
           and not exists (select from queued_tasks.attempt a
                            where a.id = u.id and a.server = p_server and a.attempt = u.attempt)
           and not exists (select from queued_tasks.tombstone s where s.id = u.id);
    end if;

    if p_delay is not null then
        with closed as (
            insert into queued_tasks.attempt (id, attempt, outcome, server, started_at, ended_at, next_at,
                                              exception_name, exception_message, exception_traceback)
            select u.id, u.attempt, u.outcome, p_server,
                   now() - u.ago * interval '1 second', now() - (u.ago - u.took) * interval '1 second',
                   case when u.delay < 'infinity' then now() + u.delay * interval '1 second' end,
                   u.exception_name, u.exception_message, u.exception_traceback
              from unnest(p_lease, p_id, p_attempt, p_outcome, p_ago, p_took, p_delay,
                          p_exception_name, p_exception_message, p_exception_traceback)
                as u (lease, id, attempt, outcome, ago, took, delay,
                      exception_name, exception_message, exception_traceback)
             where u.lease = any (v_held) and u.delay is not null
             order by u.id
            on conflict (id, attempt) do nothing
            returning attempt.id, attempt.attempt
        )
        select array_agg(c.id), array_agg(c.attempt), array_agg(u.delay) into v_open, v_attempts, v_delays
          from closed c join unnest(p_id, p_attempt, p_delay) u (id, attempt, delay)
            on u.id = c.id and u.attempt = c.attempt;
        if v_open is not null then
            lined := lined + queued_tasks.go_on(p_server, v_open, v_attempts, v_delays);
        end if;
    end if;
end $$;

-- What follows on attempts that were closed without ending their task: another one after p_delays (seconds; 0: at once
-- and ahead of the line), or none before somebody retries it (infinity). Whoever was asked meanwhile to cancel or stop
-- the task gets his will here. Returns how many may be claimed at once.
create function queued_tasks.go_on(p_server uuid, p_ids uuid[], p_attempts integer[], p_delays float8[]) returns integer
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_ids       uuid[];
    v_attempts  integer[];
    v_cancelled uuid[];
    v_lined     integer := 0;
begin
    with closed as (
        select u.id, u.attempt, u.delay,
               coalesce(i.kind, case when u.delay = 'infinity' then 'stop' end) as wish
          from unnest(p_ids, p_attempts, p_delays) u (id, attempt, delay)
          left join queued_tasks.interrupt i on i.id = u.id
    ), halted as (
        insert into queued_tasks.stopped (id, attempt)
        select c.id, c.attempt from closed c where c.wish = 'stop'
        on conflict (id) do nothing
    ), cancelled as (
        insert into queued_tasks.result (id, state, attempt, server)
        select c.id, 'cancelled', c.attempt, p_server from closed c where c.wish = 'cancel' order by c.id
        on conflict (id) do nothing
        returning result.id
    ), later as (
        insert into queued_tasks.delayed (run_at, id, attempt)
        select now() + c.delay * interval '1 second', c.id, c.attempt + 1
          from closed c where c.wish is null and c.delay > 0
    )
    select array_agg(c.id order by c.id) filter (where c.wish is null and c.delay = 0),
           array_agg(c.attempt + 1 order by c.id) filter (where c.wish is null and c.delay = 0),
           (select array_agg(x.id) from cancelled x)
      into v_ids, v_attempts, v_cancelled
      from closed c;

    delete from queued_tasks.interrupt i where i.id = any (p_ids);
    if v_cancelled is not null then
        perform queued_tasks.after_end(v_cancelled, v_cancelled);
    end if;
    if v_ids is not null then
        v_lined := queued_tasks.line_up(v_ids, v_attempts, true);
    end if;
    return v_lined;
end $$;

-- Give back what was claimed and never started: the same attempt, taken out of its lease. p_full: leases with nothing
-- left open after this.
create function queued_tasks.give_back(p_server uuid, p_ids uuid[], p_full uuid[]) returns integer
language plpgsql as $$
declare
    v_ids      uuid[];
    v_attempts integer[];
begin
    with mine as materialized (
        select l.id, l.ids, l.attempts
          from queued_tasks.lease l
         where l.server = p_server and l.ids && p_ids
         order by l.id
           for update
    ), emptied as (
        delete from queued_tasks.lease l using mine m where l.id = m.id and l.id = any (p_full)
    ), shrunk as (
        update queued_tasks.lease l
           set ids = array(select u.id from unnest(m.ids) with ordinality u (id, place)
                            where u.id <> all (p_ids) order by u.place),
               attempts = array(select m.attempts[u.place] from unnest(m.ids) with ordinality u (id, place)
                                 where u.id <> all (p_ids) order by u.place)
          from mine m
         where l.id = m.id and l.id <> all (p_full)
    )
    select array_agg(u.id order by u.id), array_agg(u.attempt order by u.id) into v_ids, v_attempts
      from mine m cross join lateral unnest(m.ids, m.attempts) u (id, attempt)
     where u.id = any (p_ids)
       and not exists (select from queued_tasks.attempt a where a.id = u.id and a.attempt = u.attempt)
       and not exists (select from queued_tasks.result r where r.id = u.id);
    if v_ids is null then
        return 0;
    end if;
    return queued_tasks.line_up(v_ids, v_attempts, true);
end $$;

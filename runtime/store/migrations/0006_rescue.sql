-- Take back what a server holds that is gone. p_beat_at is the last beat that the rescuer saw: a server that has beaten
-- since is not gone. Returns null when there was nothing to rescue, else the number of tasks that may run again.
--
-- Several statements, not one: the first waits for claims of this server that are under way (they hold its heartbeat
-- row), the next one for its settlements (they hold the lease rows), and only the last, with a snapshot taken after both,
-- can tell which attempts are still without an end. A single statement would look before it has waited. It waits for a
-- moment at most: the rescuer has its own lease to keep.
--
-- A task may have taken the server along: a container that needs too much memory is killed as a whole, so no supervisor
-- is left to count that. From p_pardoned interruptions on the loss of its server counts as a crash of the task, and the
-- crash number p_most_crashes ends it: but only the one task that can have been it. Who was beside it is as suspect, so
-- those that one more loss would end, or would have ended, come back one after the other, further apart each time.
create function queued_tasks.rescue(
    p_server uuid, p_beat_at timestamptz, p_pardoned integer, p_most_crashes integer
) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '2s'
as $$
declare
    v_leases   uuid[];
    v_ids      uuid[];
    v_attempts integer[];
    v_delays   float8[];
    v_failed   uuid[];
    v_lined    integer := 0;
    v_told     text[];
    v_more     integer;
    v_topics   text[];
begin
    delete from queued_tasks.heartbeat h where h.server = p_server and h.beat_at = p_beat_at;
    if not found then
        return null;
    end if;
    update queued_tasks.server s set ended_at = now(), end_reason = 'lost' where s.id = p_server;

    perform 1 from queued_tasks.lease l where l.server = p_server order by l.id for update;
    with taken as (
        delete from queued_tasks.lease l where l.server = p_server returning l.id, l.ids, l.attempts
    )
    select array_agg(t.id), array_agg(u.id), array_agg(u.attempt) into v_leases, v_ids, v_attempts
      from taken t, unnest(t.ids, t.attempts) u (id, attempt);
    if v_ids is null then
        return 0;
    end if;
    perform queued_tasks.free_tokens(v_leases, v_ids);

    with open as materialized (
        select u.id, u.attempt, h.crashes,
               count(*) filter (where h.crashes >= p_most_crashes) over () = 1 as convicts,
               case when h.crashes >= p_most_crashes - 1 then
                    least(3600, (row_number() over (partition by h.crashes >= p_most_crashes - 1 order by u.id) - 1)
                                * 30 * 2 ^ least(h.interruptions - p_pardoned, 10))
                    else 0 end as delay,
               case when h.crashes is not null then 'WorkerDied' end as exception_name,
               format('the task''s server was lost under it, which counts as a crash after %s interruptions: %s times now',
                      h.interruptions, h.crashes) as message
          from unnest(v_ids, v_attempts) u (id, attempt)
          left join lateral (
               select count(*) filter (where a.outcome = 'interrupted') as interruptions,
                      count(*) filter (where a.outcome = 'crashed') + 1 as crashes
                 from queued_tasks.attempt a
                where a.id = u.id and u.attempt > p_pardoned
               having count(*) filter (where a.outcome = 'interrupted') >= p_pardoned offset 0) h
            -- somebody wants it cancelled or stopped: it is
            on not exists (select from queued_tasks.interrupt i where i.id = u.id offset 0)
         where exists (select from queued_tasks.task t where t.id = u.id offset 0)
           and not exists (select from queued_tasks.result r where r.id = u.id offset 0)
           and not exists (select from queued_tasks.attempt a where a.id = u.id and a.attempt = u.attempt offset 0)
    ), failed as (
        insert into queued_tasks.result (id, state, attempt, server, started_at, ended_at, exception_name, exception_message)
        select o.id, 'failed', o.attempt, p_server, now(), now(), o.exception_name, o.message
          from open o where o.crashes >= p_most_crashes and o.convicts order by o.id
        on conflict (id) do nothing
        returning result.id
    ), closed as (
        insert into queued_tasks.attempt (id, attempt, outcome, server, started_at, ended_at, next_at,
                                          exception_name, exception_message)
        select o.id, o.attempt, case when o.crashes < p_most_crashes then 'crashed' else 'interrupted' end,
               p_server, now(), now(), case when o.delay > 0 then now() + o.delay * interval '1 second' end,
               case when o.crashes < p_most_crashes then o.exception_name end,
               case when o.crashes < p_most_crashes then o.message end
          from open o where not (coalesce(o.crashes, 0) >= p_most_crashes and o.convicts) order by o.id
        on conflict (id, attempt) do nothing
        returning attempt.id, attempt.attempt, attempt.next_at
    )
    select array_agg(c.id), array_agg(c.attempt + 1), array_agg(coalesce(extract(epoch from c.next_at - now())::float8, 0)),
           (select array_agg(f.id) from failed f)
      into v_ids, v_attempts, v_delays, v_failed
      from closed c;
    if v_failed is not null then
        select e.lined, e.told into v_lined, v_told from queued_tasks.after_end(v_failed, v_failed) e;
    end if;
    if v_ids is not null then
        select g.lined, g.told into v_more, v_topics
          from queued_tasks.go_on(p_server, v_ids, v_attempts, v_delays) g;
        v_lined := v_lined + v_more;
        v_told := v_told || v_topics;
    end if;
    perform queued_tasks.tell(v_told);
    return v_lined;
end $$;

-- End tasks on purpose. An unstarted one is cancelled here and now and never starts; for a running one its server is
-- asked. The exclusive lock waits for the claims that are under way and holds back new ones until we have committed, so
-- a task is either in a lease that we see, or its result is there before anybody can claim it.
-- Returns which ended now, and which servers were asked.
create function queued_tasks.cancel_tasks(p_ids uuid[], p_reason text, out ended uuid[], out asked uuid[], out told text[])
language plpgsql
set jit = off set enable_hashjoin = off set enable_mergejoin = off
set lock_timeout = '10s'
as $$
declare
    v_running uuid[];
begin
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));
    select w.running, w.asked into v_running, asked from queued_tasks.wish(p_ids, 'cancel') w;

    perform queued_tasks.lock_families(array(select unnest(p_ids) except select unnest(v_running)));
    with cancelled as (
        insert into queued_tasks.result (id, state, attempt, exception_message)
        select t.id, 'cancelled', coalesce((select max(a.attempt) from queued_tasks.attempt a where a.id = t.id), 0), p_reason
          from queued_tasks.task t
         where t.id = any (p_ids) and t.id <> all (v_running)
         order by t.id
        on conflict (id) do nothing
        returning result.id
    )
    select array_agg(c.id) into ended from cancelled c;
    if ended is null then
        return;
    end if;

    delete from queued_tasks.stopped s where s.id = any (ended);
    -- a place among the delayed is known by its time; one in a line is left to the claim that comes across it
    delete from queued_tasks.delayed d
     using (select t.run_at, t.id from queued_tasks.task t where t.id = any (ended) and t.run_at is not null
            union all
            select a.next_at, a.id from queued_tasks.attempt a where a.id = any (ended) and a.next_at is not null) o
     where d.run_at = o.run_at and d.id = o.id;
    select e.told into told from queued_tasks.after_end(ended, ended) e;
end $$;

-- Ask the servers of running tasks to stop them. Returns these servers; null when none of the tasks was running.
create function queued_tasks.stop_tasks(p_ids uuid[]) returns uuid[]
language plpgsql
set lock_timeout = '10s'
as $$
begin
    return (select w.asked from queued_tasks.wish(p_ids, 'stop') w);
end $$;

-- Leave word for the servers of running tasks. To cancel outdoes to stop.
create function queued_tasks.wish(p_ids uuid[], p_kind text, out running uuid[], out asked uuid[])
language plpgsql as $$
begin
    -- Whoever settles these leases has looked for wishes already: wait for him, and only then see what still runs.
    perform 1 from queued_tasks.lease l where l.ids && p_ids order by l.id for share;
    with wished as (
        insert into queued_tasks.interrupt (id, server, kind)
        select r.id, r.server, p_kind from queued_tasks.running r where r.id = any (p_ids) order by r.id
        on conflict (id) do update
           set server = excluded.server,
               kind = case when interrupt.kind = 'cancel' then 'cancel' else excluded.kind end
        returning interrupt.id, interrupt.server
    )
    select coalesce(array_agg(w.id), '{}'), array_agg(distinct w.server) into running, asked from wished w;
end $$;

-- Let stopped tasks run again, where they stand. Returns those that were stopped.
create function queued_tasks.resume_tasks(p_ids uuid[]) returns uuid[]
language plpgsql as $$
declare
    v_ids      uuid[];
    v_attempts integer[];
begin
    with resumed as (delete from queued_tasks.stopped s where s.id = any (p_ids) returning s.id, s.attempt)
    select array_agg(r.id order by r.id), array_agg(r.attempt + 1 order by r.id) into v_ids, v_attempts from resumed r;
    if v_ids is not null then
        perform queued_tasks.line_up(v_ids, v_attempts, true);
    end if;
    return v_ids;
end $$;

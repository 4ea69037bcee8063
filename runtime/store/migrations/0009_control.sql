-- End tasks on purpose. An unstarted one is cancelled here and now and never starts; for a running one its server is
-- asked. The exclusive lock waits for the claims that are under way and holds back new ones until we have committed, so
-- a task is either in a lease that we see, or its result is there before anybody can claim it.
-- Returns which ended now, and which servers were asked.
create function queued_tasks.cancel_tasks(p_ids uuid[], p_reason text, out ended uuid[], out asked uuid[], out told text[])
language plpgsql as $$
declare
    v_running uuid[];
begin
    perform pg_advisory_xact_lock(hashtextextended('queued_tasks.claim', 0));

    with running as (
        insert into queued_tasks.interrupt (id, server, kind)
        select r.id, r.server, 'cancel' from queued_tasks.running r where r.id = any (p_ids) order by r.id
        on conflict (id) do update set kind = 'cancel', server = excluded.server
        returning interrupt.id, interrupt.server
    )
    select coalesce(array_agg(r.id), '{}'), array_agg(distinct r.server) into v_running, asked from running r;

    with cancelled as (
        insert into queued_tasks.result (id, state, attempt, exception_message)
        select t.id, 'cancelled', 0, p_reason
          from queued_tasks.task t
         where t.id = any (p_ids) and t.id <> all (v_running)
         order by t.id
        on conflict (id) do nothing
        returning result.id
    ), unstopped as (
        delete from queued_tasks.stopped s using cancelled c where s.id = c.id
    )
    select array_agg(c.id) into ended from cancelled c;
    if ended is not null then
        select e.told into told from queued_tasks.after_end(ended, ended) e;
    end if;
end $$;

-- Ask the servers of running tasks to stop them. Returns these servers; null when none of the tasks was running.
create function queued_tasks.stop_tasks(p_ids uuid[]) returns uuid[]
language plpgsql as $$
declare
    v_asked uuid[];
begin
    with running as (
        insert into queued_tasks.interrupt (id, server, kind)
        select r.id, r.server, 'stop' from queued_tasks.running r where r.id = any (p_ids) order by r.id
        on conflict (id) do update set server = excluded.server
        returning interrupt.server
    )
    select array_agg(distinct r.server) into v_asked from running r;
    return v_asked;
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

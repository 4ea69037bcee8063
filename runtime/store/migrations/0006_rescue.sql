-- Take back what a server holds that is gone. p_beat_at is the last beat that the rescuer saw: a server that has beaten
-- since is not gone. Returns null when there was nothing to rescue, else the number of tasks that may run again.
--
-- Several statements, not one: the first waits for claims of this server that are under way (they hold its heartbeat
-- row), the next one for its settlements (they hold the lease rows), and only the last, with a snapshot taken after both,
-- can tell which attempts are still without an end. A single statement would look before it has waited. It waits for a
-- moment at most: the rescuer has its own lease to keep.
create function queued_tasks.rescue(p_server uuid, p_beat_at timestamptz) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '2s'
as $$
declare
    v_leases   uuid[];
    v_ids      uuid[];
    v_attempts integer[];
    v_lined    integer;
    v_told     text[];
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

    with closed as (
        insert into queued_tasks.attempt (id, attempt, outcome, server, started_at, ended_at)
        select u.id, u.attempt, 'interrupted', p_server, now(), now()
          from unnest(v_ids, v_attempts) u (id, attempt)
         where exists (select from queued_tasks.task t where t.id = u.id offset 0)
           and not exists (select from queued_tasks.result r where r.id = u.id offset 0)
         order by u.id
        on conflict (id, attempt) do nothing
        returning attempt.id, attempt.attempt
    )
    select array_agg(c.id), array_agg(c.attempt + 1) into v_ids, v_attempts from closed c;
    if v_ids is null then
        return 0;
    end if;
    select g.lined, g.told into v_lined, v_told
      from queued_tasks.go_on(p_server, v_ids, v_attempts, array_fill(0::float8, array[cardinality(v_ids)])) g;
    perform queued_tasks.tell(v_told);
    return v_lined;
end $$;

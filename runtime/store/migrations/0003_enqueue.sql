-- Take unique keys for new tasks, but for those in p_skip. Returns the tasks whose key another one holds, and that one.
-- Waits for a transaction that is taking one of them, but for a moment only: others may be in the same batch.
create function queued_tasks.hold_keys(p_ids uuid[], p_keys text[], p_skip uuid[], out losers uuid[], out winners uuid[])
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off
set lock_timeout = '5s'
as $$
declare
    v_free boolean;
begin
    -- Again when a holder that stood in the way has ended before we could read who it was.
    loop
        -- in the order of the keys, so that two batches can't wait for each other
        insert into queued_tasks.unique_task (key, id)
        select f.key, f.id
          from (select distinct on (u.key) u.key, u.id
                  from unnest(p_ids, p_keys) with ordinality u (id, key, place)
                 where u.key is not null and u.id <> all (p_skip)
                 order by u.key, u.place) f
         order by f.key
        on conflict (key) do nothing;

        select coalesce(array_agg(u.id) filter (where k.id <> u.id), '{}'),
               coalesce(array_agg(k.id) filter (where k.id <> u.id), '{}'),
               bool_or(k.id is null)
          into losers, winners, v_free
          from unnest(p_ids, p_keys) u (id, key)
          left join lateral (select x.id from queued_tasks.unique_task x where x.key = u.key offset 0) k on true
         where u.key is not null and u.id <> all (p_skip);
        exit when v_free is not true;
    end loop;
end $$;

-- Make the ends of tasks wait for this transaction, or wait for them. To end a task is to insert its result, so a
-- result inserted here, and deleted again, keeps that place occupied until we are through: either a parent's end waits
-- for us and then finds the child, or we waited for it and see it when we look at the child.
--
-- All of them or none: whoever we wait for may be waiting for one that we occupy, so after a moment these are given up
-- and tried again. Those that a new child's end may remove (see remove_finished) are locked here for the same reason.
create function queued_tasks.hold_ends(p_ids uuid[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off
set lock_timeout = '100ms'
as $$
declare
    v_places tid[];
    v_tries  integer := 0;
begin
    loop
        begin
            perform 1
               from (select distinct x.id from unnest(p_ids) x (id) order by x.id) u
              cross join lateral (
                    select from queued_tasks.task t where t.id = u.id and t.auto_remove for no key update) t;
            with held as (
                insert into queued_tasks.result (id, state, attempt)
                select u.id, 'cancelled', 0 from unnest(p_ids) u (id) order by u.id
                on conflict (id) do nothing
                returning result.ctid as place
            )
            select array_agg(h.place) into v_places from held h;
            delete from queued_tasks.result r where r.ctid = any (v_places);
            return;
        exception when lock_not_available then
            v_tries := v_tries + 1;
            if v_tries = 50 then
                raise;
            end if;
        end;
    end loop;
end $$;

-- Write tasks, plain ones and graphs alike. Repeating a call is harmless: lines, dependencies and unique keys come only
-- from tasks that this very call inserted, and p_repeat (the answer to an earlier call was lost) also passes over tasks
-- that were written, and perhaps removed, meanwhile. An array that is null means null for every task.
-- Returns a row for each task that was not written because another with its unique key stands.
create function queued_tasks.add_tasks(
    p_id uuid[], p_function text[], p_executor smallint[], p_args json[], p_kwargs json[], p_name text[],
    p_channel text[], p_lane integer[], p_key text[], p_priority smallint[], p_max_retries smallint[],
    p_timeout float8[], p_run_at timestamptz[], p_expires_at timestamptz[], p_unique_key text[],
    p_auto_remove boolean[], p_on_parent_failure text[], p_parents text[], p_context json[], p_signature bytea[],
    p_repeat boolean
) returns table (loser uuid, winner uuid)
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_mergejoin = off
set lock_timeout = '10s'
as $$
declare
    v_keyed   text[] := array(select g.channel from queued_tasks.gate g where g.key_cap is not null);
    v_skip    uuid[] := '{}';
    v_losers  uuid[] := '{}';
    v_winners uuid[] := '{}';
    v_added   uuid[];
    v_written uuid[];
    v_outer   uuid[];
begin
    if p_repeat then
        -- Something to commit even when all is written: that waits for the standby, which the earlier call may have been
        -- kept from.
        perform pg_logical_emit_message(true, 'queued_tasks', '');
    end if;
    if p_repeat or p_unique_key is not null then
        select coalesce(array_agg(u.id), '{}') into v_skip
          from unnest(p_id) u (id)
         where exists (select from queued_tasks.tombstone s where s.id = u.id offset 0)
            or exists (select from queued_tasks.task t where t.id = u.id offset 0);
    end if;

    if p_unique_key is not null then
        select w.losers, w.winners into v_losers, v_winners
          from queued_tasks.hold_keys(p_id, p_unique_key, v_skip) w;
    end if;

    with written as (
        insert into queued_tasks.task (id, function, executor, args, kwargs, name, channel, key, priority, max_retries,
               timeout, run_at, expires_at, unique_key, auto_remove, on_parent_failure, parents, stand_ins, context,
               signature)
        select u.id, u.function, u.executor, u.args, u.kwargs, u.name, u.channel, u.key, u.priority, u.max_retries,
               u.timeout, u.run_at, u.expires_at, u.unique_key, u.auto_remove, u.on_parent_failure,
               u.parents::uuid[],
               case when v_losers <> '{}' and u.parents::uuid[] && v_losers then
                    array(select coalesce(v_winners[array_position(v_losers, p.id)], p.id)
                            from unnest(u.parents::uuid[]) with ordinality p (id, place) order by p.place) end,
               u.context, u.signature
          from unnest(p_id, p_function, p_executor, p_args, p_kwargs, p_name, p_channel, p_key, p_priority,
                      p_max_retries, p_timeout, p_run_at, p_expires_at, p_unique_key, p_auto_remove,
                      p_on_parent_failure, p_parents, p_context, p_signature)
            as u (id, function, executor, args, kwargs, name, channel, key, priority, max_retries, timeout, run_at,
                  expires_at, unique_key, auto_remove, on_parent_failure, parents, context, signature)
         where (v_skip = '{}' or u.id <> all (v_skip)) and (v_losers = '{}' or u.id <> all (v_losers))
        on conflict (id) do nothing
        returning task.id, task.run_at, task.parents is null as plain
    ), later as (
        insert into queued_tasks.delayed (run_at, id, attempt)
        select w.run_at, w.id, 1 from written w where w.plain and w.run_at > now()
    ), now_due as (
        insert into queued_tasks.ready (lane, id, attempt, key)
        select u.lane, u.id, 1, coalesce(u.key, case when u.channel = any (v_keyed) then '' end)
          from unnest(p_id, p_lane, p_key, p_channel) with ordinality u (id, lane, key, channel, place)
          join written w on w.id = u.id and w.plain and (w.run_at is null or w.run_at <= now())
         order by u.place
    )
    select array_agg(w.id) filter (where not w.plain), case when p_parents is not null then array_agg(w.id) end
      into v_added, v_written
      from written w;

    if v_added is not null then
        insert into queued_tasks.dependency (parent, child)
        select distinct p.id, t.id
          from unnest(v_added) u (id)
         cross join lateral (select * from queued_tasks.task k where k.id = u.id offset 0) t
         cross join unnest(coalesce(t.stand_ins, t.parents)) p (id);

        select array_agg(o.parent) into v_outer
          from (select d.parent
                  from unnest(v_added) u (id)
                 cross join lateral (select k.parent from queued_tasks.dependency k where k.child = u.id offset 0) d
                except select unnest(v_written)) o;
        if v_outer is not null then
            perform queued_tasks.hold_ends(v_outer);
            perform queued_tasks.let_go(
                array(select distinct u.id
                        from unnest(v_added) u (id)
                       cross join lateral (select k.parent from queued_tasks.dependency k where k.child = u.id offset 0) d
                        join unnest(v_outer) o (id) on o.id = d.parent));
        end if;
    end if;

    return query select u.l, u.w from unnest(v_losers, v_winners) u (l, w);
end $$;

-- What is added in a transaction of the user's, and what is wanted of tasks by plain SQL. Such a transaction may stay
-- open for hours, so it must hold nothing that others wait for: it inserts rows of its own and nothing else. Once it has
-- committed, servers do what is left to do, each row once.
create table queued_tasks.inbox (
    seq        bigint  generated always as identity primary key,
    id         uuid    not null,
    cancel     boolean not null default false,
    unique_key text
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on column queued_tasks.inbox.cancel is 'the task is to be cancelled; else it is new and has no place yet';
create index inbox_key on queued_tasks.inbox (unique_key) where unique_key is not null;
create index inbox_cancel on queued_tasks.inbox (id) where cancel;

-- Tell the servers, once we commit, to look into the inbox. With p_anyhow false only while one of them has a free slot:
-- busy ones come by in a moment, and a notification is not free.
create function queued_tasks.announce_inbox(p_anyhow boolean) returns void
language plpgsql as $$
begin
    perform pg_notify(h.topic, 'delayed')
       from (select distinct b.details ->> 'topic' as topic
               from queued_tasks.heartbeat b
              where b.state = 'running' and (p_anyhow or b.busy < b.slots)) h
      where h.topic is not null;
end $$;

-- Write tasks in the transaction of somebody else: p_tasks is a JSON array of them, as text, because drivers differ in
-- what they make of anything else. Dependencies are written along, so that a parent that ends later finds the child.
--
-- A unique key is taken when the task gets its place: taken here, it would block whoever adds the same one until this
-- transaction ends. What can be seen is respected at once. Returns winners by losers, as JSON; null without any.
create function queued_tasks.post_tasks(p_tasks text) returns text
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_task    record;
    v_winner  uuid;
    v_losers  uuid[] := '{}';
    v_winners uuid[] := '{}';
    v_parents uuid[];
begin
    for v_task in
        select * from json_to_recordset(p_tasks::json) as u (
               id uuid, function text, executor smallint, args text, kwargs text, name text, channel text, key text,
               priority smallint, max_retries smallint, timeout float8, run_at timestamptz, expires_at timestamptz,
               unique_key text, auto_remove boolean, on_parent_failure text, parents uuid[], context text, signature text)
    loop
        continue when exists (select from queued_tasks.task t where t.id = v_task.id)
                   or exists (select from queued_tasks.tombstone s where s.id = v_task.id);
        if v_task.unique_key is not null then
            -- one that is to be cancelled, and does not run, has no time left to be started: see hold_keys
            select coalesce((select u.id from queued_tasks.unique_task u
                              where u.key = v_task.unique_key
                                and (not exists (select from queued_tasks.inbox i where i.cancel and i.id = u.id)
                                     or exists (select from queued_tasks.running r where r.id = u.id))),
                            (select i.id from queued_tasks.inbox i
                              where i.unique_key = v_task.unique_key
                                and not exists (select from queued_tasks.inbox c where c.cancel and c.id = i.id)
                                and not exists (select from queued_tasks.result r where r.id = i.id)
                              order by i.seq limit 1)) into v_winner;
            if v_winner is not null then
                v_losers := v_losers || v_task.id;
                v_winners := v_winners || v_winner;
                continue;
            end if;
        end if;

        v_parents := array(select coalesce(v_winners[array_position(v_losers, p.id)], p.id)
                             from unnest(v_task.parents) with ordinality p (id, place) order by p.place);
        insert into queued_tasks.task (id, function, executor, args, kwargs, name, channel, key, priority, max_retries,
               timeout, run_at, expires_at, unique_key, auto_remove, on_parent_failure, parents, stand_ins, context,
               signature)
        values (v_task.id, v_task.function, v_task.executor, v_task.args::json, v_task.kwargs::json, v_task.name,
                v_task.channel, v_task.key, v_task.priority, v_task.max_retries, v_task.timeout, v_task.run_at,
                v_task.expires_at, v_task.unique_key, v_task.auto_remove, v_task.on_parent_failure, v_task.parents,
                nullif(v_parents, coalesce(v_task.parents, '{}')), v_task.context::json, decode(v_task.signature, 'hex'));
        insert into queued_tasks.dependency (parent, child)
        select distinct p.id, v_task.id from unnest(v_parents) p (id);
        insert into queued_tasks.inbox (id, unique_key) values (v_task.id, v_task.unique_key);
    end loop;
    perform queued_tasks.announce_inbox(false);
    return (select json_object_agg(u.loser, u.winner)::text from unnest(v_losers, v_winners) u (loser, winner));
end $$;

-- Give posted tasks their places: up to p_limit of those whose transactions have committed, in the order in which they
-- were posted. `lined`: how many may be claimed now; `cancels`: how many wishes to cancel are left to cancel_posted.
create function queued_tasks.promote_inbox(p_limit integer, out taken integer, out lined integer, out cancels integer)
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_ids      uuid[];
    v_keys     text[];
    v_plain    uuid[];
    v_children uuid[];
    v_losers   uuid[];
    v_winners  uuid[];
    v_outer    uuid[];
    v_told     text[];
    v_moved    uuid[] := '{}';
    v_place    integer;
    v_more     integer;
begin
    lined := 0;
    with next as materialized (
        select i.seq, i.cancel from queued_tasks.inbox i order by i.seq limit p_limit for update skip locked
    ), gone as (
        delete from queued_tasks.inbox i
         where i.seq = any (array(select n.seq from next n where not n.cancel))
        returning i.seq, i.id, i.unique_key
    )
    select array_agg(g.id order by g.seq), array_agg(g.unique_key order by g.seq),
           (select count(*) filter (where n.cancel) from next n)
      into v_ids, v_keys, cancels
      from gone g;
    taken := coalesce(cardinality(v_ids), 0);
    if taken = 0 then
        return;
    end if;

    -- who cancels or removes one of them at this moment is waited for, or waits and finds what it takes here
    perform queued_tasks.lock_tasks(v_ids);
    -- the keys first: whoever added a task with the same one meanwhile keeps it
    select w.losers, w.winners into v_losers, v_winners from queued_tasks.hold_keys(v_ids, v_keys, array(
           select u.id from unnest(v_ids) u (id)
            where not exists (select from queued_tasks.task t where t.id = u.id offset 0)
               or exists (select from queued_tasks.result r where r.id = u.id offset 0))) w;
    for v_place in 1 .. cardinality(v_losers) loop
        v_moved := v_moved || queued_tasks.give_way(v_losers[v_place], v_winners[v_place]);
    end loop;

    select coalesce(array_agg(u.id order by u.place) filter (where t.parents is null), '{}'),
           coalesce(array_agg(u.id) filter (where t.parents is not null), '{}')
      into v_plain, v_children
      from unnest(v_ids) with ordinality u (id, place)
      join lateral (select k.parents from queued_tasks.task k where k.id = u.id offset 0) t on true
     where not exists (select from queued_tasks.result r where r.id = u.id offset 0);
    lined := queued_tasks.line_up(v_plain, array_fill(1, array[cardinality(v_plain)]), false);
    v_children := v_children || v_moved;

    if v_children <> '{}' then
        select array_agg(distinct d.parent) into v_outer
          from queued_tasks.dependency d where d.child = any (v_children) and d.parent <> all (v_plain);
        if v_outer is not null then
            -- a parent whose end is under way may not have seen the child: see hold_ends
            perform queued_tasks.hold_ends(v_outer);
            select g.lined, g.told into v_more, v_told
              from queued_tasks.let_go(array(
                   select distinct d.child from queued_tasks.dependency d
                    where d.parent = any (v_outer) and d.child = any (v_children))) g;
            lined := lined + coalesce(v_more, 0);
            perform queued_tasks.tell(v_told);
        end if;
    end if;
end $$;

-- Cancel a posted task whose unique key another one had taken by the time that it got here. Its children follow the other
-- one instead: these children are returned. One that may run already, because its parents have ended, is left alone, and
-- so is one that the other one waits for, which would wait for itself.
create function queued_tasks.give_way(p_loser uuid, p_winner uuid) returns uuid[]
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    v_children uuid[];
begin
    perform queued_tasks.lock_families(array[p_loser]);
    if exists (select from queued_tasks.dependency d where d.child = p_loser and d.released)
       or p_winner in (
          with recursive family (id) as (
              select p_loser
              union
              select d.child from family f join queued_tasks.dependency d on d.parent = f.id
          )
          select f.id from family f)
    then
        return '{}';
    end if;

    select coalesce(array_agg(d.child), '{}') into v_children
      from queued_tasks.dependency d where d.parent = p_loser and not d.released;
    insert into queued_tasks.dependency (parent, child)
    select p_winner, c.id from unnest(v_children) c (id)
    on conflict do nothing;
    delete from queued_tasks.dependency d where d.parent = p_loser and d.child = any (v_children);
    update queued_tasks.task t
       set stand_ins = array_replace(coalesce(t.stand_ins, t.parents), p_loser, p_winner)
     where t.id = any (v_children);

    insert into queued_tasks.result (id, state, attempt, exception_message)
    values (p_loser, 'cancelled', 0, 'task ' || p_winner || ' with the same unique key was there before')
    on conflict (id) do nothing;
    perform queued_tasks.tell(e.told) from queued_tasks.after_end(array[p_loser], array[p_loser]) e;
    return v_children;
end $$;

-- Whether something waits to be promoted: posted tasks, or delayed ones that are due.
create function queued_tasks.is_overdue() returns boolean
language plpgsql stable
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    return exists (select from queued_tasks.inbox)
        or coalesce((select d.run_at <= clock_timestamp() from queued_tasks.delayed d order by d.run_at limit 1), false);
end $$;

-- Do what plain SQL wanted cancelled. In a transaction of its own: to cancel holds back claims. Returns how many ended.
create function queued_tasks.cancel_posted(p_limit integer) returns integer
language plpgsql as $$
declare
    v_ids   uuid[];
    v_ended uuid[];
    v_asked uuid[];
    v_told  text[];
begin
    with next as materialized (
        select i.seq, i.id from queued_tasks.inbox i where i.cancel order by i.seq limit p_limit for update skip locked
    ), gone as (
        delete from queued_tasks.inbox i using next n where i.seq = n.seq
    )
    select array_agg(n.id) into v_ids from next n;
    if v_ids is null then
        return 0;
    end if;
    select c.ended, c.asked, c.told into v_ended, v_asked, v_told from queued_tasks.cancel_tasks(v_ids, 'on request') c;
    perform queued_tasks.tell(v_told);
    perform queued_tasks.tell(array(select 'queued_tasks_' || replace(s.id::text, '-', '') || ' wish'
                                      from unnest(v_asked) s (id)));
    return coalesce(cardinality(v_ended), 0);
end $$;

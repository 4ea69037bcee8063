-- How tasks get into line, and what the end of one means for others.
--
-- Every function of the hot path names the plans that it allows: the statistics of tables that fill and empty all the
-- time say nothing, and index scans in nested loops are the plans that can't go wrong. `offset 0` keeps the planner from
-- turning a look-up by key into a join, which it would begin with the whole of a table that is empty when it plans. Many
-- keys are looked up one by one for the same reason: in a small table `= any` is dearer than to read all of it. A plan
-- that could not do without what was forbidden is priced so high that PostgreSQL before 18 would compile it: `jit = off`.

-- Put tasks to the end of their lines, or among the delayed when they are not due. `again`: interrupted ones, ahead of
-- those that never had a turn. What has blocked the event loop that it shared with others goes to the sync workers from
-- now on: there it is alone. p_own: into the lanes of their functions. Returns how many may be claimed at once.
create function queued_tasks.line_up(p_ids uuid[], p_attempts integer[], p_again boolean, p_own boolean default false)
returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_now   timestamptz := clock_timestamp();
    v_keyed text[] := array(select g.channel from queued_tasks.gate g where g.key_cap is not null);
    v_count integer;
begin
    if cardinality(p_ids) = 0 then
        return 0;
    end if;
    insert into queued_tasks.lane (channel, priority, sync, again, function)
    select distinct t.channel, t.priority, t.sync, p_again, t.own
      from unnest(p_ids, p_attempts) u (id, attempt)
      join lateral (
           select k.channel, k.priority,
                  k.executor = 1 or u.attempt > 1 and exists (
                  select from queued_tasks.attempt a where a.id = k.id and a.outcome = 'blocked' offset 0) as sync,
                  case when p_own then k.function end as own
             from queued_tasks.task k where k.id = u.id offset 0) t on true
     where not exists (select from queued_tasks.lane l
                        where l.channel = t.channel and l.priority = t.priority
                          and l.sync = t.sync and l.again = p_again and l.function is not distinct from t.own)
     order by 1, 2, 3, 5
    on conflict do nothing;

    insert into queued_tasks.delayed (run_at, id, attempt)
    select t.run_at, t.id, u.attempt
      from unnest(p_ids, p_attempts) u (id, attempt)
      join lateral (select * from queued_tasks.task k where k.id = u.id offset 0) t on true
     where t.run_at > v_now and not p_again;

    with lined as (
        insert into queued_tasks.bundle (lane, ids, attempt, key)
        select l.id, array[t.id], u.attempt, coalesce(t.key, case when t.channel = any (v_keyed) then '' end)
          from unnest(p_ids, p_attempts) with ordinality u (id, attempt, place)
          join lateral (
               select k.id, k.channel, k.priority, k.run_at, k.key,
                      k.executor = 1 or u.attempt > 1 and exists (
                      select from queued_tasks.attempt a where a.id = k.id and a.outcome = 'blocked' offset 0) as sync,
                      case when p_own then k.function end as own
                 from queued_tasks.task k where k.id = u.id offset 0) t on true
          join queued_tasks.lane l
            on l.channel = t.channel and l.priority = t.priority and l.sync = t.sync and l.again = p_again
           and l.function is not distinct from t.own
         where t.run_at is null or t.run_at <= v_now or p_again
         order by u.place
        returning lane, key, seq
    ), come as (
        insert into queued_tasks.newcomer (lane, key, first)
        select y.lane, y.key, min(y.seq)
          from lined y
          join queued_tasks.lane l on l.id = y.lane
         where v_keyed <> '{}' and l.channel = any (v_keyed)
         group by y.lane, y.key
    )
    select count(*) into v_count from lined;
    return v_count;
end $$;

-- Let each task of these bundles stand in its line by itself, with this key, which takes turns from now on. For channels
-- with limits: there a claim takes one here and one there.
create function queued_tasks.untie(p_places tid[], p_key text) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    with tied as (
        delete from queued_tasks.bundle b where b.ctid = any (p_places) returning b.lane, b.seq, b.ids, b.attempt
    ), come as (
        insert into queued_tasks.newcomer (lane, key, first)
        select t.lane, p_key, min(t.seq) from tied t where p_key is not null group by t.lane
    )
    insert into queued_tasks.bundle (lane, seq, ids, attempt, key)
    select t.lane, t.seq + u.place - 1, array[u.id], t.attempt, p_key
      from tied t cross join lateral unnest(t.ids) with ordinality u (id, place);
end $$;

-- Lock tasks in the order that every transaction keeps to.
create function queued_tasks.lock_tasks(p_ids uuid[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    perform 1
       from (select distinct x.id from unnest(p_ids) x (id) order by x.id) u
      cross join lateral (select from queued_tasks.task t where t.id = u.id for no key update) t;
end $$;

-- Make settlements of leases in which these tasks are, or were, wait for this transaction, or wait for them: what they
-- write of a task must not be written while it is removed. These locks come before those of tasks. A plan that knows the
-- ids hashes them.
create function queued_tasks.hold_leases(p_ids uuid[]) returns void
language plpgsql
set plan_cache_mode = force_custom_plan
as $$
begin
    perform 1 from queued_tasks.lease l
      where exists (select from unnest(l.ids) u (id) where u.id = any (p_ids))
      order by l.id for share;
end $$;

-- Lock tasks and all their descendants.
create function queued_tasks.lock_families(p_ids uuid[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_ids uuid[];
begin
    with recursive family (id) as (
        select unnest(p_ids)
        union
        select d.child
          from family f
          join lateral (select k.child from queued_tasks.dependency k where k.parent = f.id offset 0) d on true
    )
    select array_agg(f.id) into v_ids from family f;
    perform queued_tasks.lock_tasks(v_ids);
end $$;

-- Look at waiting children again: let those run whose parents have all ended, end those whose parents went bad, and go
-- on with the children of the latter. Two parents that end at the same instant both come here; the second one waits
-- for the lock on the child and then sees, in a new statement, what the first has committed. So a child is let go once.
--
-- When a parent went bad, all descendants are locked before the first of them is ended: locked generation by generation,
-- two families that share members could wait for each other.
--
-- p_all_done: they are looked at because parents ended, all of them done. Those with another open parent go on waiting
-- then, and to find one we begin with the last parent: of ten thousand that run in their order it is the last to end.
--
-- `delayed`: some of them are not due yet.
create function queued_tasks.look_at_children(
    p_children uuid[], p_all_done boolean, out ended uuid[], out lined integer, out delayed boolean
)
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_look  uuid[] := p_children;
    v_free  uuid[];
    v_bad   uuid[];
    v_lined integer;
begin
    ended := '{}';
    lined := 0;
    delayed := false;
    if p_all_done then
        perform queued_tasks.lock_tasks(p_children);
        select coalesce(array_agg(u.id), '{}') into v_look
          from unnest(v_look) u (id)
         where not exists (
               select from (select k.parent from queued_tasks.dependency k
                             where k.child = u.id order by k.child desc, k.parent desc offset 0) d
                where not exists (select from queued_tasks.result r where r.id = d.parent offset 0)
                  and exists (select from queued_tasks.task t where t.id = d.parent offset 0));
    elsif exists (select from unnest(p_children) u (id)
                cross join lateral (select k.parent from queued_tasks.dependency k where k.child = u.id offset 0) d
                cross join lateral (
                      select from queued_tasks.result k where k.id = d.parent and k.state <> 'done' offset 0) r) then
        perform queued_tasks.lock_families(p_children);
    end if;
    while cardinality(v_look) > 0 loop
        perform queued_tasks.lock_tasks(v_look);

        with family as (
            select t.id,
                   t.on_parent_failure,
                   bool_or(r.id is null and p.id is not null) as open,
                   bool_or(coalesce(r.state = 'failed', false)) as failed,
                   bool_or(coalesce(r.state = 'cancelled', false)) as cancelled
              from (select distinct x.id from unnest(v_look) x (id)) u
              join lateral (select * from queued_tasks.task k where k.id = u.id offset 0) t on true
              join lateral (select k.parent from queued_tasks.dependency k where k.child = t.id offset 0) d on true
              left join lateral (select k.id from queued_tasks.task k where k.id = d.parent offset 0) p on true
              left join lateral (select k.id, k.state from queued_tasks.result k where k.id = d.parent offset 0) r on true
             where exists (select from queued_tasks.dependency u where u.child = t.id and not u.released offset 0)
               and not exists (select from queued_tasks.result own where own.id = t.id offset 0)
             group by t.id, t.on_parent_failure
        ), verdict as (
            select f.id,
                   case when f.on_parent_failure = 'run' then case when f.open then 'wait' else 'run' end
                        when f.on_parent_failure = 'cancel' and (f.failed or f.cancelled) then 'cancelled'
                        when f.failed then 'failed'
                        when f.cancelled then 'cancelled'
                        when f.open then 'wait'
                        else 'run' end as verdict
              from family f
        ), bad as (
            insert into queued_tasks.result (id, state, attempt, exception_name, exception_message)
            select v.id, v.verdict::queued_tasks.task_state, 0, 'ParentTaskFailed', 'a parent ended ' || v.verdict
              from verdict v
             where v.verdict in ('failed', 'cancelled')
             order by v.id
            on conflict (id) do nothing
            returning id
        ), released as (
            update queued_tasks.dependency d set released = true
             where d.ctid = any (array(
                   select k.ctid
                     from verdict v
                    cross join lateral (
                          select x.ctid from queued_tasks.dependency x where x.child = v.id and not x.released offset 0) k
                    where v.verdict <> 'wait'))
        )
        select coalesce(array_agg(v.id order by v.id) filter (where v.verdict = 'run'), '{}'),
               (select coalesce(array_agg(b.id), '{}') from bad b)
          into v_free, v_bad
          from verdict v;

        v_lined := queued_tasks.line_up(v_free, array_fill(1, array[cardinality(v_free)]), false);
        lined := lined + v_lined;
        delayed := delayed or v_lined < cardinality(v_free);
        ended := ended || v_bad;
        select coalesce(array_agg(distinct d.child), '{}') into v_look
          from unnest(v_bad) u (id)
         cross join lateral (select k.child from queued_tasks.dependency k where k.parent = u.id offset 0) d;
    end loop;
end $$;

-- Everything that the end of tasks sets in motion, in the transaction that records it. `told`: a topic and an id for
-- everyone who waits for one of them, and the word for the servers of tasks that are due later. `flagged` are those of them that have a unique key, parents, or are to be removed:
-- a plain task pays for two look-ups in small tables and no more.
create function queued_tasks.after_end(p_ended uuid[], p_flagged uuid[], out lined integer, out told text[])
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_children uuid[];
    v_all_done boolean;
begin
    lined := 0;
    select array_agg(distinct d.child) into v_children
      from unnest(p_ended) u (id)
     cross join lateral (select k.child from queued_tasks.dependency k where k.parent = u.id offset 0) d;
    if v_children is not null then
        v_all_done := not exists (
            select from unnest(p_ended) u (id)
             cross join lateral (
                   select from queued_tasks.result k where k.id = u.id and k.state <> 'done' offset 0) r);
        select c.lined, c.told into lined, told from queued_tasks.let_go(v_children, v_all_done) c;
    end if;
    told := told || queued_tasks.wind_up(p_ended, p_flagged);
end $$;

-- Look at children again, and wind up those that end with it. What is returned: see after_end.
create function queued_tasks.let_go(
    p_children uuid[], p_all_done boolean default false, out lined integer, out told text[]
)
language plpgsql as $$
declare
    v_ended   uuid[];
    v_delayed boolean;
begin
    select c.ended, c.lined, c.delayed into v_ended, lined, v_delayed from queued_tasks.look_at_children(p_children, p_all_done) c;
    if cardinality(v_ended) > 0 then
        told := queued_tasks.wind_up(v_ended, v_ended);
    end if;
    if v_delayed then
        told := told || array(select distinct b.details ->> 'topic' || ' delayed'
                                from queued_tasks.heartbeat b where b.details ->> 'topic' is not null);
    end if;
end $$;

-- What tasks that have ended, or stopped, still hold is set free. Returns whom to tell: see after_end.
create function queued_tasks.wind_up(p_ended uuid[], p_flagged uuid[]) returns text[]
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_told   text[];
    v_waited uuid[];
    v_topics text[];
begin
    with told as (
        delete from queued_tasks.waiter w where w.task_id = any (p_ended) returning w.topic, w.task_id
    )
    select array_agg(t.topic || ' ' || t.task_id), array_agg(t.task_id), array_agg(t.topic)
      into v_told, v_waited, v_topics from told t;

    if cardinality(p_flagged) > 0 then
        delete from queued_tasks.unique_task k
         where k.ctid = any (array(
               select x.ctid
                 from unnest(p_flagged) u (id)
                cross join lateral (select y.ctid from queued_tasks.unique_task y where y.id = u.id offset 0) x));
        delete from queued_tasks.interrupt i where i.id = any (p_flagged);
        perform queued_tasks.remove_finished(p_flagged, coalesce(v_waited, '{}'), coalesce(v_topics, '{}'));
    end if;
    return v_told;
end $$;

-- Say to those who wait what the caller of a function can't be told.
create function queued_tasks.tell(p_told text[]) returns void
language plpgsql as $$
begin
    perform pg_notify(split_part(t.entry, ' ', 1), split_part(t.entry, ' ', 2)) from unnest(p_told) t (entry);
end $$;

-- Remove what asked to be removed when done, and the parents that were only kept for these last children. p_waited:
-- whoever listens on p_topics is about to read their results; they stay until he has: see have_read.
create function queued_tasks.remove_finished(p_ended uuid[], p_waited uuid[], p_topics text[]) returns void
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_parents uuid[];
    v_gone    uuid[];
begin
    select array_agg(distinct d.parent) into v_parents
      from unnest(p_ended) u (id)
     cross join lateral (select k.parent from queued_tasks.dependency k where k.child = u.id offset 0) d
     cross join lateral (select from queued_tasks.task k where k.id = d.parent and k.auto_remove offset 0) t;
    if v_parents is not null then
        -- two last children that end at the same instant would each take the other for unfinished
        perform queued_tasks.lock_tasks(v_parents);
    end if;

    -- one that is not there was removed while its end was recorded once more
    select array_agg(u.id order by u.id) into v_gone
      from (select distinct x.id from unnest(p_ended || v_parents) x (id)) u
      left join lateral (select k.id, k.auto_remove from queued_tasks.task k where k.id = u.id offset 0) t on true
     where t.id is null
        or (t.auto_remove
            and t.id <> all (p_waited)
            and exists (select from queued_tasks.result r where r.id = t.id and r.state = 'done' offset 0)
            and not exists (select from queued_tasks.log g where g.task_id = t.id and g.level >= 40 offset 0)
            -- from the last child on, as with parents
            and not exists (select from (select k.child from queued_tasks.dependency k
                                          where k.parent = t.id order by k.parent desc, k.child desc offset 0) d
                             where not exists (select from queued_tasks.result x where x.id = d.child offset 0)));
    if v_gone is not null then
        perform queued_tasks.remove_tasks(v_gone);
    end if;
    if cardinality(p_waited) > 0 then
        insert into queued_tasks.lingering (id, topic)
        select w.id, w.topic
          from unnest(p_waited, p_topics) w (id, topic)
         where w.id = any (p_ended)
           and exists (select from queued_tasks.task t where t.id = w.id and t.auto_remove offset 0)
         order by w.id, w.topic
        on conflict do nothing;
    end if;
end $$;

-- Remove tasks with all that belongs to them.
create function queued_tasks.remove_tasks(p_ids uuid[]) returns integer
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_count integer;
begin
    insert into queued_tasks.tombstone (id) select unnest(p_ids) on conflict (id) do nothing;
    delete from queued_tasks.result where id = any (p_ids);
    delete from queued_tasks.attempt where id = any (p_ids);
    delete from queued_tasks.stopped where id = any (p_ids);
    delete from queued_tasks.context where id = any (p_ids);
    delete from queued_tasks.log where task_id = any (p_ids);
    delete from queued_tasks.unique_task where id = any (p_ids);
    delete from queued_tasks.waiter where task_id = any (p_ids);
    delete from queued_tasks.interrupt where id = any (p_ids);
    delete from queued_tasks.dependency where child = any (p_ids);
    delete from queued_tasks.task where id = any (p_ids);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

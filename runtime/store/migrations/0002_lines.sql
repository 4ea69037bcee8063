-- How tasks get into line, and what the end of one means for others.
--
-- Every function of the hot path names the plans that it allows: the statistics of tables that fill and empty all the
-- time say nothing, and index scans in nested loops are the plans that can't go wrong.

-- Put tasks to the end of their lines, or among the delayed when they are not due. `again`: interrupted ones, ahead of
-- those that never had a turn. Returns how many may be claimed at once.
create function queued_tasks.line_up(p_ids uuid[], p_attempts integer[], p_again boolean) returns integer
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_count integer;
begin
    insert into queued_tasks.lane (channel, priority, sync, again)
    select distinct t.channel, t.priority, t.executor = 1, p_again
      from queued_tasks.task t
     where t.id = any (p_ids)
       and not exists (select from queued_tasks.lane l
                        where l.channel = t.channel and l.priority = t.priority
                          and l.sync = (t.executor = 1) and l.again = p_again)
     order by 1, 2, 3
    on conflict do nothing;

    insert into queued_tasks.delayed (run_at, id, attempt)
    select t.run_at, t.id, u.attempt
      from unnest(p_ids, p_attempts) u (id, attempt)
      join queued_tasks.task t on t.id = u.id
     where t.run_at > now() and not p_again;

    insert into queued_tasks.ready (lane, id, attempt)
    select l.id, t.id, u.attempt
      from unnest(p_ids, p_attempts) with ordinality u (id, attempt, place)
      join queued_tasks.task t on t.id = u.id
      join queued_tasks.lane l
        on l.channel = t.channel and l.priority = t.priority and l.sync = (t.executor = 1) and l.again = p_again
     where t.run_at is null or t.run_at <= now() or p_again
     order by u.place;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Look at waiting children again: let those run whose parents have all ended, end those whose parents went bad, and go
-- on with the children of the latter. Two parents that end at the same instant both come here; the second one waits
-- for the lock on the child and then sees, in a new statement, what the first has committed. So a child is let go once.
create function queued_tasks.look_at_children(p_children uuid[], out ended uuid[], out lined integer)
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_look  uuid[] := p_children;
    v_free  uuid[];
    v_bad   uuid[];
begin
    ended := '{}';
    lined := 0;
    while cardinality(v_look) > 0 loop
        perform 1 from queued_tasks.task t where t.id = any (v_look) order by t.id for no key update;

        with family as (
            select t.id,
                   t.on_parent_failure,
                   bool_or(r.id is null and p.id is not null) as open,
                   bool_or(coalesce(r.state = 'failed', false)) as failed,
                   bool_or(coalesce(r.state = 'cancelled', false)) as cancelled
              from queued_tasks.task t
              join queued_tasks.dependency d on d.child = t.id
              left join queued_tasks.task p on p.id = d.parent
              left join queued_tasks.result r on r.id = d.parent
             where t.id = any (v_look)
               and exists (select from queued_tasks.dependency u where u.child = t.id and not u.released)
               and not exists (select from queued_tasks.result own where own.id = t.id)
             group by t.id
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
              from verdict v
             where d.child = v.id and v.verdict <> 'wait' and not d.released
        )
        select coalesce(array_agg(v.id order by v.id) filter (where v.verdict = 'run'), '{}'),
               (select coalesce(array_agg(b.id), '{}') from bad b)
          into v_free, v_bad
          from verdict v;

        lined := lined + queued_tasks.line_up(v_free, array_fill(1, array[cardinality(v_free)]), false);
        ended := ended || v_bad;
        select coalesce(array_agg(distinct d.child), '{}') into v_look
          from queued_tasks.dependency d
         where d.parent = any (v_bad);
    end loop;
end $$;

-- Everything that the end of tasks sets in motion, in the transaction that records it. `told`: a topic and an id for
-- everyone who waits for one of them. `flagged` are those of them that
-- have a unique key, parents, are to be removed, or were asked to end: a plain task pays for two look-ups in small tables and no more.
create function queued_tasks.after_end(p_ended uuid[], p_flagged uuid[], out lined integer, out told text[])
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_children uuid[];
    v_cascaded uuid[] := '{}';
begin
    lined := 0;
    select array_agg(distinct d.child) into v_children from queued_tasks.dependency d where d.parent = any (p_ended);
    if v_children is not null then
        select c.ended, c.lined into v_cascaded, lined from queued_tasks.look_at_children(v_children) c;
    end if;

    with told as (
        delete from queued_tasks.waiter w where w.task_id = any (p_ended || v_cascaded) returning w.topic, w.task_id
    )
    select array_agg(t.topic || ' ' || t.task_id) into told from told t;

    if cardinality(p_flagged) + cardinality(v_cascaded) > 0 then
        delete from queued_tasks.unique_task u where u.id = any (p_flagged || v_cascaded);
        delete from queued_tasks.interrupt i where i.id = any (p_flagged);
        perform queued_tasks.remove_finished(p_flagged || v_cascaded);
    end if;
end $$;

-- Remove what asked to be removed when done, and the parents that were only kept for these last children.
create function queued_tasks.remove_finished(p_ended uuid[]) returns void
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_gone uuid[];
begin
    with candidate as (
        select unnest(p_ended) as id
        union
        select d.parent from queued_tasks.dependency d where d.child = any (p_ended)
    )
    select array_agg(t.id order by t.id) into v_gone
      from candidate c
      join queued_tasks.task t on t.id = c.id and t.auto_remove
      join queued_tasks.result r on r.id = t.id and r.state = 'done'
     where not exists (select from queued_tasks.log g where g.task_id = t.id and g.level >= 40)
       and not exists (select from queued_tasks.dependency d
                        where d.parent = t.id
                          and not exists (select from queued_tasks.result x where x.id = d.child));
    if v_gone is not null then
        perform queued_tasks.remove_tasks(v_gone);
    end if;
end $$;

-- Remove tasks with all that belongs to them.
create function queued_tasks.remove_tasks(p_ids uuid[]) returns integer
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
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
    delete from queued_tasks.dependency where child = any (p_ids);
    delete from queued_tasks.task where id = any (p_ids);
    get diagnostics v_count = row_count;
    return v_count;
end $$;

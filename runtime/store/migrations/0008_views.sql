-- What is running where: every attempt that a lease holds and nothing has closed. A removed task has left no trace of its
-- end but that it is not there.
create view queued_tasks.running as
select u.id, u.attempt, l.server, l.claimed_at, l.id as lease
  from queued_tasks.lease l
 cross join lateral unnest(l.ids, l.attempts) u (id, attempt)
 where not exists (select from queued_tasks.result r where r.id = u.id)
   and not exists (select from queued_tasks.attempt a where a.id = u.id and a.attempt = u.attempt)
   and exists (select from queued_tasks.task t where t.id = u.id offset 0);

-- A task as people want to see it, with its state, which is stored nowhere.
create view queued_tasks.task_view as
select t.id,
       coalesce(t.name, split_part(t.function, ':', 2)) as name,
       case when starts_with(t.function, '<local>:') then '<local>:' || split_part(t.function, ':', 2)
            else t.function end as function,
       case when r.id is not null then r.state
            when s.id is not null then 'stopped'::queued_tasks.task_state
            when l.attempt is not null then 'doing'::queued_tasks.task_state
            when exists (select from queued_tasks.dependency d where d.child = t.id and not d.released)
                then 'waiting'::queued_tasks.task_state
            else 'enqueued'::queued_tasks.task_state end as state,
       t.args,
       coalesce(t.kwargs, '{}'::json) as kwargs,
       coalesce(c.value, t.context, '{}'::json) as context,
       r.result,
       t.channel,
       t.priority,
       coalesce(r.attempt, s.attempt, l.attempt, a.last, 0) as attempt,
       coalesce(a.failures, 0) + case when r.state = 'failed' and r.attempt > 0 then 1 else 0 end as failures,
       t.max_retries,
       t.timeout,
       t.auto_remove,
       t.unique_key,
       coalesce(t.stand_ins, t.parents, '{}') as parents,
       t.created_at,
       coalesce(a.next_at, t.run_at) as run_at,
       t.expires_at,
       coalesce(r.started_at, l.claimed_at, a.started_at) as started_at,
       r.ended_at,
       r.ended_at - r.started_at as execution_time,
       v.name as server,
       case when r.id is null then a.exception_name else r.exception_name end as exception_name,
       case when r.id is null then a.exception_message else r.exception_message end as exception_message,
       case when r.id is null then a.exception_traceback else r.exception_traceback end as exception_traceback
  from queued_tasks.task t
  left join queued_tasks.result r on r.id = t.id
  left join queued_tasks.stopped s on s.id = t.id
  left join lateral (
       select u.attempt, x.server, x.claimed_at
         from queued_tasks.lease x cross join lateral unnest(x.ids, x.attempts) u (id, attempt)
        where x.ids @> array[t.id] and u.id = t.id
          and not exists (select from queued_tasks.attempt p where p.id = t.id and p.attempt = u.attempt)
        limit 1) l on r.id is null and s.id is null
  left join lateral (
       select max(p.attempt) as last,
              count(*) filter (where p.outcome in ('failed', 'timeout')) as failures,
              (array_agg(p.next_at order by p.attempt desc))[1] as next_at,
              (array_agg(p.started_at order by p.attempt desc))[1] as started_at,
              (array_agg(p.server order by p.attempt desc))[1] as server,
              (array_agg(p.exception_name order by p.attempt desc))[1] as exception_name,
              (array_agg(p.exception_message order by p.attempt desc))[1] as exception_message,
              (array_agg(p.exception_traceback order by p.attempt desc))[1] as exception_traceback
         from queued_tasks.attempt p where p.id = t.id) a on true
  left join lateral (
       select x.value from queued_tasks.context x where x.id = t.id
        order by x.attempt desc, x.version desc limit 1) c on true
  left join queued_tasks.server v on v.id = coalesce(r.server, l.server, a.server);

-- How far tasks are, for whoever waits for them.
create function queued_tasks.get_ends(p_ids uuid[])
returns table (id uuid, known boolean, state text, result json, exception_name text, exception_message text,
               exception_traceback text, stopped boolean, lingers boolean)
language plpgsql stable
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    select q.id, t.id is not null, r.state::text, r.result, r.exception_name, r.exception_message,
           r.exception_traceback, s.id is not null,
           exists (select from queued_tasks.lingering l where l.id = q.id offset 0)
      from unnest(p_ids) q (id)
      left join lateral (select * from queued_tasks.task k where k.id = q.id offset 0) t on true
      left join lateral (select * from queued_tasks.result k where k.id = q.id offset 0) r on true
      left join lateral (select * from queued_tasks.stopped k where k.id = q.id offset 0) s on true;
end $$;

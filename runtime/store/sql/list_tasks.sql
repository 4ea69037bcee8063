-- newest first: $1 state, $2 name, $3 channel, $4 before this id, $5 limit
-- First the ids of the page, from where tasks in that state stand: to derive the state of every task in order to compare
-- it would mean to read all of them.
with page as (
    (select t.id
       from queued_tasks.task t
      where $1::text is null and ($4::uuid is null or t.id < $4)
        and ($2::text is null or coalesce(t.name, split_part(t.function, ':', 2)) = $2)
        and ($3::text is null or t.channel = $3)
      order by t.id desc limit $5)
    union all
    (select r.id
       from queued_tasks.result r
      cross join lateral (select * from queued_tasks.task k where k.id = r.id offset 0) t
      where $1 = 'done' and r.state = 'done' and ($4 is null or r.id < $4)
        and ($2 is null or coalesce(t.name, split_part(t.function, ':', 2)) = $2)
        and ($3 is null or t.channel = $3)
      order by r.id desc limit $5)
    union all
    (select r.id
       from queued_tasks.result r
      cross join lateral (select * from queued_tasks.task k where k.id = r.id offset 0) t
      where $1 in ('failed', 'cancelled') and r.state = $1::queued_tasks.task_state and r.state <> 'done' and ($4 is null or r.id < $4)
        and ($2 is null or coalesce(t.name, split_part(t.function, ':', 2)) = $2)
        and ($3 is null or t.channel = $3)
      order by r.id desc limit $5)
    union all
    (select o.id
       from (select x.id from queued_tasks.running x where $1 = 'doing'
             union all select x.id from queued_tasks.stopped x where $1 = 'stopped'
             union all select x.child from queued_tasks.dependency x where $1 = 'waiting' and not x.released group by x.child
             union all select x.id from queued_tasks.ready x where $1 = 'enqueued'
             union all select x.id from queued_tasks.delayed x where $1 = 'enqueued'
             union all select x.id from queued_tasks.inbox x
                        where $1 = 'enqueued' and not x.cancel
                          and not exists (select from queued_tasks.dependency d where d.child = x.id)
             order by 1 desc) o
      cross join lateral (select * from queued_tasks.task k where k.id = o.id offset 0) t
      where ($4 is null or o.id < $4)
        and ($2 is null or coalesce(t.name, split_part(t.function, ':', 2)) = $2)
        and ($3 is null or t.channel = $3)
        and not exists (select from queued_tasks.result r where r.id = o.id)
      order by o.id desc limit $5)
)
select v.id, v.name, v.function, v.state::text, v.args, v.kwargs, v.context, v.result, v.channel, v.priority, v.attempt,
       v.failures, v.max_retries, v.timeout, v.auto_remove, v.unique_key, v.parents, v.created_at, v.run_at, v.started_at,
       v.ended_at, v.execution_time, v.server, v.exception_name, v.exception_message, v.exception_traceback
  from page p
  join queued_tasks.task_view v on v.id = p.id
 order by v.id desc

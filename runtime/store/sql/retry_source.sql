-- $1 ids: tasks as they were written, and what clones of them need beyond: the name, the parents that stand, the context,
-- which is where the task had got to, unless it is done: then the first one. `holder`: who has the unique key by now.
select v.id, v.state::text, v.name as called, v.parents as standing,
       case when v.state = 'done' then t.context else v.context end as reached,
       (select u.id from queued_tasks.unique_task u where u.key = t.unique_key) as holder,
       t.function, t.executor, t.args, t.kwargs, t.name, t.channel, t.key, t.priority, t.max_retries, t.timeout,
       t.run_at, t.expires_at, t.unique_key, t.auto_remove, t.on_parent_failure, t.parents, t.context, t.signature
  from queued_tasks.task_view v join queued_tasks.task t on t.id = v.id
 where v.id = any ($1::uuid[])

-- $1 id: what a clone of this task needs. Its context is where the task had got to, unless it is done: then the first one.
select v.state::text, v.name, t.function, t.executor, t.args, t.kwargs, t.channel, t.key, t.priority, t.max_retries,
       t.timeout, t.unique_key, t.auto_remove, coalesce(t.parents, '{}') as parents,
       case when v.state = 'done' then t.context else v.context end as context
  from queued_tasks.task_view v join queued_tasks.task t on t.id = v.id
 where v.id = $1

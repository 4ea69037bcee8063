-- newest first: $1 state, $2 name, $3 channel, $4 before this id, $5 limit
select v.id, v.name, v.function, v.state::text, v.args, v.kwargs, v.context, v.result, v.channel, v.priority, v.attempt,
       v.failures, v.max_retries, v.timeout, v.auto_remove, v.unique_key, v.parents, v.created_at, v.run_at, v.started_at,
       v.ended_at, v.execution_time, v.server, v.exception_name, v.exception_message, v.exception_traceback
  from queued_tasks.task_view v
 where ($1::text is null or v.state = $1::queued_tasks.task_state)
   and ($2::text is null or v.name = $2)
   and ($3::text is null or v.channel = $3)
   and ($4::uuid is null or v.id < $4)
 order by v.id desc
 limit $5

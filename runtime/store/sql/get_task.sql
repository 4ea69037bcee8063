-- $1 id
select id, name, function, state::text, args, kwargs, context, result, channel, priority, attempt, failures, max_retries,
       timeout, auto_remove, unique_key, parents, created_at, run_at, started_at, ended_at, execution_time, server,
       exception_name, exception_message, exception_traceback
  from queued_tasks.task_view
 where id = $1

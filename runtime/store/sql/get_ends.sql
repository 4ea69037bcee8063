-- $1 ids
select id, known, state, result, exception_name, exception_message, exception_traceback, stopped, lingers
  from queued_tasks.get_ends($1::uuid[])

-- $1 limit (tasks)
select queued_tasks.add_keys($1)

-- $1 limit (tasks)
select queued_tasks.remove_lingering($1)

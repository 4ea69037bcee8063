-- $1 limit (tasks)
select queued_tasks.cancel_posted($1)

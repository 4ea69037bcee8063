-- $1 limit (tasks)
select lined, next_in from queued_tasks.promote($1)

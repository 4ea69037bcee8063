-- $1 limit (tasks)
select taken, lined, cancels from queued_tasks.promote_inbox($1)

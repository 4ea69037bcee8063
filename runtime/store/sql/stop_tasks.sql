-- $1 ids
select queued_tasks.stop_tasks($1::uuid[])

-- $1 ids
select queued_tasks.resume_tasks($1::uuid[])

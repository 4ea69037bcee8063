-- $1 ids
select id, progress from queued_tasks.get_progress($1::uuid[])

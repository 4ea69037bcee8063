-- $1 task, $2 message, $3 exception
select queued_tasks.write_note($1, $2, $3)

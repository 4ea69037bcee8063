-- $1 the lost server, $2 its last beat
select queued_tasks.rescue($1, $2)

-- $1 the lost server, $2 its last beat, $3 the interruptions before that counts as a crash, $4 the crash that ends a task
select queued_tasks.rescue($1, $2, $3, $4)

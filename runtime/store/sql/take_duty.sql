-- $1 name, $2 period in seconds
select queued_tasks.take_duty($1, $2::float8)

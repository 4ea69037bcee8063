-- $1 name, $2 expression, $3 time zone, $4 due time, $5 reason
select queued_tasks.fire($1, $2, $3, $4, false, $5)

-- $1 servers, $2 intent or null, $3 workers or null
select direct_servers as id from queued_tasks.direct_servers($1, $2, $3)

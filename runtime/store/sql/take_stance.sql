-- $1 server, $2 functions, $3 what it says of each: unknown or refused, $4 why, $5 how many tasks may end
select ended, lined from queued_tasks.take_stance($1, $2::text[], $3::text[], $4::text[], $5)

-- $1 server, $2 leases of tasks that it can't run, $3 their ids, $4 leases that hold nothing else any more,
-- $5 functions, $6 what the server says of each: unknown or refused, $7 why, $8 how many tasks may end
select ended, lined from queued_tasks.park($1, $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8)

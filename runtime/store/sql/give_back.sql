-- $1 server, $2 leases of tasks that it claimed and did not start, $3 their ids, $4 leases that hold nothing else any more
select queued_tasks.give_back($1, $2::uuid[], $3::uuid[], $4::uuid[])

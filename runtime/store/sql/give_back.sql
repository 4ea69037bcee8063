-- $1 server, $2 ids of tasks that it claimed and did not start
select queued_tasks.give_back($1, $2::uuid[])

-- $1 ids of tasks whose results were read, $2 topic of those who were waiting for them
select queued_tasks.have_read($1::uuid[], $2)

-- $1 server: the leases that the database knows of
select l.id from queued_tasks.lease l where l.server = $1

-- $1 server, $2 lease: tasks of a claim whose answer never arrived
select l.ids from queued_tasks.lease l where l.server = $1 and l.id = $2

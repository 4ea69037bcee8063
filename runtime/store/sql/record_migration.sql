-- $1 version, $2 name
insert into queued_tasks.migration (version, name) values ($1, $2)

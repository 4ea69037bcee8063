-- $1 id, $2 name, $3 host, $4 pid, $5 version, $6 lock key
with known as (
    insert into queued_tasks.server (id, name, host, pid, version) values ($1, $2, $3, $4, $5)
    on conflict (id) do nothing
    returning id
)
insert into queued_tasks.heartbeat (server, lock_key, state) select k.id, $6, 'starting' from known k

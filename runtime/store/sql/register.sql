-- $1 id, $2 name, $3 host, $4 pid, $5 version, $6 lock key, $7 the incarnation before this one, null for the first,
-- $8 settings that have to be alike everywhere
-- What was wanted of the one before is wanted of this one.
with known as (
    insert into queued_tasks.server (id, name, host, pid, version, settings, intent, wanted_workers)
    select $1, $2, $3, $4, $5, $8::json, coalesce(p.intent, 'run'), p.wanted_workers
      from (values ($7::uuid)) b (id) left join queued_tasks.server p on p.id = b.id
    on conflict (id) do nothing
    returning id, intent, wanted_workers
), present as (
    insert into queued_tasks.heartbeat (server, lock_key, state) select k.id, $6, 'starting' from known k
)
select k.intent, k.wanted_workers from known k
union all
select s.intent, s.wanted_workers from queued_tasks.server s where s.id = $1

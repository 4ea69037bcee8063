-- $1 server, then a row each: $2 lease, $3 task, $4 attempt, $5 version, $6 value. Only what is still ours is written.
with held as (
    select l.id from queued_tasks.lease l where l.id = any ($2::uuid[]) and l.server = $1 order by l.id for share
), written as (
    insert into queued_tasks.context (id, attempt, version, value)
    select u.id, u.attempt, u.version, u.value
      from unnest($2::uuid[], $3::uuid[], $4::integer[], $5::integer[], $6::json[]) u (lease, id, attempt, version, value)
     where u.lease in (select h.id from held h)
    on conflict do nothing
    returning id, attempt, version
)
delete from queued_tasks.context c using written w where c.id = w.id and (c.attempt, c.version) < (w.attempt, w.version)

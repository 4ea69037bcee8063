-- Gives servers that hold leases but have no heartbeat one that has long lapsed: rescue takes back what a heartbeat holds.
with revived as (
    insert into queued_tasks.heartbeat (server, beat_at, state)
    select distinct l.server, timestamptz 'epoch', 'draining'
      from queued_tasks.lease l
      join queued_tasks.server s on s.id = l.server
     where not exists (select from queued_tasks.heartbeat h where h.server = l.server)
    on conflict (server) do nothing
    returning server, beat_at
)
select r.server, s.name, r.beat_at from revived r join queued_tasks.server s on s.id = r.server

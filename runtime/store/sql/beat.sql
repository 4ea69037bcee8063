-- $1 server, $2 lock key, $3 state, $4 workers, $5 slots, $6 busy, $7 details
-- Renews the lease and reads the peers, oneself first, with what is wanted of it. `alive`: the own row was still there.
with me as (
    update queued_tasks.heartbeat h
       set beat_at = clock_timestamp(), lock_key = $2, state = $3, workers = $4, slots = $5, busy = $6, details = $7::json
     where h.server = $1
    returning h.server
)
select h.server, s.name, s.intent, s.wanted_workers, h.state, h.slots, h.busy, h.beat_at, h.lock_key,
       extract(epoch from clock_timestamp() - h.beat_at)::float8 as silent_for,
       coalesce(d.pace, 1) as pace, d.channels, d.excluded_channels,
       exists (select from me) as alive,
       (select coalesce(array_agg(i.id), '{}') from queued_tasks.interrupt i where i.server = $1 and i.kind = 'cancel') as cancels,
       (select coalesce(array_agg(i.id), '{}') from queued_tasks.interrupt i where i.server = $1 and i.kind = 'stop') as stops,
       (select coalesce(max(l.id), 0) from queued_tasks.lane l) as newest_lane,
       queued_tasks.is_overdue() as overdue
  from queued_tasks.heartbeat h
  join queued_tasks.server s on s.id = h.server
 cross join json_to_record(h.details) d (pace float8, channels text, excluded_channels text)
 order by h.server = $1 desc, s.started_at

-- the running ones, and those that ended or were lost within the last hour
select s.id, s.name, s.host, s.pid, s.version, s.settings, s.started_at, s.ended_at, s.end_reason,
       h.server is not null as present, h.state, h.workers, h.slots, h.busy, h.beat_at, h.details,
       extract(epoch from clock_timestamp() - h.beat_at)::float8 as silent_for
  from queued_tasks.server s
  left join queued_tasks.heartbeat h on h.server = s.id
 where h.server is not null or s.ended_at > now() - interval '1 hour'
 order by h.server is null, s.name, s.started_at

-- $1 servers, null for all, $2 limit
-- What runs, the longest first; `total` is how many there are.
select r.id, coalesce(t.name, split_part(t.function, ':', 2)) as name, t.channel, r.attempt, r.server, s.name as server_name,
       extract(epoch from clock_timestamp() - r.claimed_at)::float8 as runs_for, count(*) over () as total
  from queued_tasks.running r
  join queued_tasks.task t on t.id = r.id
  left join queued_tasks.server s on s.id = r.server
 where $1::uuid[] is null or r.server = any ($1)
 order by r.claimed_at, r.id
 limit $2
